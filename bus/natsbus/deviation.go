package natsbus

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
)

// Deviation is one setting of a stream that is not as rule B7 wants it.
type Deviation struct {
	Setting string `json:"setting"`
	Is      string `json:"is"`
	Wants   string `json:"wants"`
	Why     string `json:"why"` // why it matters
	// Fatal says that the stream cannot give the guarantees as it is.
	Fatal bool `json:"fatal"`
}

// String is one line for people.
func (d Deviation) String() string {
	return fmt.Sprintf("%s is %s, wants %s: %s", d.Setting, d.Is, d.Wants, d.Why)
}

const (
	whyHoles   = "a message removed from the middle cannot be told from a lost one"
	whyForeign = "seqs and contents must be those that publishers had acknowledged"
	whyDurable = "acknowledged events would be lost"
	whyRepair  = "what the live feed loses could not be fetched"
	whyLive    = "sidecars would receive nothing"
)

// Check compares a stream with rule B7 and returns what deviates. Safe choices,
// such as a longer max age, do not.
func Check(s *jetstream.StreamInfo, cfg StreamConfig) []Deviation {
	var d deviations
	d.checkHoles(s.Config)
	d.checkContents(s.Config)
	d.checkFeed(s.Config, cfg)
	d.checkKeeping(s, cfg)
	return d
}

type deviations []Deviation

func (d *deviations) fatal(bad bool, setting string, is, wants any, why string) {
	d.add(bad, Deviation{setting, fmt.Sprint(is), fmt.Sprint(wants), why, true})
}

func (d *deviations) warn(bad bool, setting string, is, wants any, why string) {
	d.add(bad, Deviation{setting, fmt.Sprint(is), fmt.Sprint(wants), why, false})
}

func (d *deviations) add(bad bool, v Deviation) {
	if bad {
		*d = append(*d, v)
	}
}

// checkHoles finds what removes messages anywhere but at the front.
func (d *deviations) checkHoles(c jetstream.StreamConfig) {
	d.fatal(c.Retention != jetstream.LimitsPolicy, "retention", c.Retention, jetstream.LimitsPolicy, whyHoles)
	d.fatal(c.MaxMsgsPerSubject > 0, "max_msgs_per_subject", c.MaxMsgsPerSubject, "no limit", whyHoles)
	d.fatal(c.AllowMsgTTL, "allow_msg_ttl", true, false, whyHoles)
	d.fatal(c.AllowRollup, "allow_rollup_hdrs", true, false, whyHoles)
	d.fatal(c.AllowMsgSchedules, "allow_msg_schedules", true, false, whyHoles)
	d.fatal(!c.DenyDelete, "deny_delete", false, true, whyHoles)
	d.fatal(!c.DenyPurge, "deny_purge", false, true, "a retried publish of a purged event would be acknowledged without being stored")
	d.warn(c.Discard != jetstream.DiscardOld, "discard", c.Discard, jetstream.DiscardOld, "when the stream is full, publishing fails instead of the oldest events going")
}

// checkContents finds what makes the messages other than their publishers'.
func (d *deviations) checkContents(c jetstream.StreamConfig) {
	d.fatal(c.AllowMsgCounter, "allow_msg_counter", true, false, whyForeign)
	d.fatal(c.SubjectTransform != nil, "subject_transform", "set", "none", whyForeign)
	d.fatal(c.Mirror != nil, "mirror", "set", "none", whyForeign)
	d.fatal(len(c.Sources) > 0, "sources", len(c.Sources), "none", whyForeign)
	d.fatal(c.Sealed, "sealed", true, false, "nothing can be published")
	d.fatal(c.NoAck, "no_ack", true, false, "no publish would ever be acknowledged")
	d.fatal(c.Duplicates < MinDuplicates, "duplicate_window", c.Duplicates, "at least "+MinDuplicates.String(), "a retried publish would be stored twice")
	d.warn(c.FirstSeq <= 1, "first_seq", c.FirstSeq, "derived from the creation time", "a stream created in its place would reuse its seqs")
	d.warn(c.MaxMsgSize > 0, "max_msg_size", c.MaxMsgSize, "no limit", "larger events are refused")
}

// checkFeed finds what keeps events from sidecars (B1, B2).
func (d *deviations) checkFeed(c jetstream.StreamConfig, cfg StreamConfig) {
	all, live := cfg.Subjects.All(), cfg.Subjects.Live()
	d.fatal(!slices.Contains(c.Subjects, all), "subjects", c.Subjects, all, "events on other subjects would not be stored")
	d.warn(slices.Contains(c.Subjects, all) && len(c.Subjects) > 1, "subjects", c.Subjects, all, "a message on a foreign subject flushes the domain in every sidecar")
	d.fatal(!c.AllowDirect, "allow_direct", false, true, whyRepair)
	if r := c.RePublish; r == nil {
		d.fatal(true, "republish", "none", all+" to "+live, whyLive)
	} else {
		d.fatal(r.Destination != live || r.Source != all, "republish", r.Source+" to "+r.Destination, all+" to "+live, whyLive)
		d.fatal(r.HeadersOnly, "republish headers_only", true, false, "events would come without their bodies")
	}
}

// checkKeeping finds what loses events or keeps them too briefly.
func (d *deviations) checkKeeping(s *jetstream.StreamInfo, cfg StreamConfig) {
	c := s.Config
	d.fatal(c.Storage != jetstream.FileStorage, "storage", c.Storage, jetstream.FileStorage, whyDurable)
	d.fatal(c.PersistMode == jetstream.AsyncPersistMode, "persist_mode", "async", "default", whyDurable)
	// Servers from 2.11 on state their level, and those alone answer batches.
	level, _ := strconv.Atoi(c.Metadata["_nats.level"])
	d.fatal(level < 1, "server", "older than NATS 2.11", "2.11 or later", whyRepair)
	d.warn(c.MaxAge > 0 && c.MaxAge < cfg.maxAge(), "max_age", c.MaxAge, "at least "+cfg.maxAge().String(), "a sidecar that was cut off for longer flushes")
	want := cfg.Replicas
	if want == 0 && s.Cluster != nil && s.Cluster.Name != "" {
		want = wantReplicas
	}
	d.warn(c.Replicas < want, "num_replicas", c.Replicas, want, "the loss of one server loses acknowledged events")
}
