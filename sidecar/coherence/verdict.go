package coherence

import "time"

// Verdict is the answer to a fill. Values are append-only; their names are
// metric labels.
type Verdict uint8

// Verdicts on fills.
const (
	Stored           Verdict = iota
	NotReady                 // the stream is not being followed
	OtherIncarnation         // the lease is from before a doubt, a fork or a restart
	BelowFloor               // the lease is older than what fences can judge
	Voided                   // this sidecar published a write of the key after the lease
	Flushed                  // a wide purge came after the lease
	Invalidated              // an event of the key came after the lease
	OlderVersion             // a newer version is known
	Superseded               // another value of the key was stored or lost after the lease
	Blind                    // the history that would judge it cannot be had yet
	TooLarge                 // the store cannot hold it
	Bypass                   // the sidecar cannot prove that it is fresh enough
	Off                      // the namespace's policy keeps nothing
	Absent                   // the source has no value, and the policy does not keep that
	Ahead                    // it was loaded elsewhere, after more events than are applied here
	OtherLog                 // it was loaded elsewhere, after events that the stream has lost
	verdictCount
)

var verdictNames = [verdictCount]string{
	"stored", "not-ready", "other-incarnation", "below-floor", "voided", "flushed",
	"invalidated", "older-version", "superseded", "blind", "too-large", "bypass", "off",
	"absent", "ahead", "other-log",
}

var verdictWords = [verdictCount]string{
	"the value was stored",
	"the sidecar does not follow the stream yet",
	"the lease is from before a doubt, a fork or a restart",
	"the lease is older than the fences that could judge it",
	"this sidecar published a write of the key after the lease",
	"a wide purge was applied after the lease",
	"an invalidation of the key was applied after the lease",
	"a newer version of the key is known",
	"another value of the key was stored, evicted or dropped after the lease",
	"the events of the last fill window cannot be had yet",
	"the value is larger than the policy or the store permits",
	"the sidecar cannot prove that it is as fresh as the namespace's policy asks",
	"the namespace's mode is off: nothing is kept",
	"the source has no value, and the policy does not keep that",
	"another sidecar loaded it after more events than are applied here",
	"another sidecar loaded it after events that the stream has lost since",
}

// Verdicts returns all verdicts, for those who count them.
func Verdicts() []Verdict {
	all := make([]Verdict, verdictCount)
	for i := range all {
		all[i] = Verdict(i)
	}
	return all
}

// String returns the name used as a metric label and on the wire.
func (v Verdict) String() string {
	if v < verdictCount {
		return verdictNames[v]
	}
	return "unknown"
}

// Words says the verdict in a sentence for people.
func (v Verdict) Words() string {
	if v < verdictCount {
		return verdictWords[v]
	}
	return "unknown"
}

// verdictLog remembers the last verdict of about the last thousand keys, for
// Explain.
type verdictLog [1024]struct {
	hash    uint64
	at      time.Duration
	verdict Verdict
	set     bool
}

func (l *verdictLog) note(hash uint64, v Verdict, now time.Duration) {
	e := &l[hash%uint64(len(l))]
	e.hash, e.at, e.verdict, e.set = hash, now, v, true
}

func (l *verdictLog) last(hash uint64) (Verdict, time.Duration, bool) {
	e := &l[hash%uint64(len(l))]
	return e.verdict, e.at, e.set && e.hash == hash
}
