package operation

import (
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Event describes an applied event to who watches. Fields are append-only.
type Event struct {
	Seq       uint64     `json:"seq"`
	Position  string     `json:"position"`
	Op        string     `json:"op"`
	Namespace string     `json:"namespace,omitempty"`
	Keys      []EventKey `json:"keys,omitempty"`
	MoreKeys  int        `json:"more_keys,omitempty"`
	Tags      []string   `json:"tags,omitempty"`
	Prefix    string     `json:"prefix,omitempty"`
	Writer    string     `json:"writer,omitempty"`
	Stored    time.Time  `json:"stored"`
	LagMicros int64      `json:"lag_us"`
	Error     string     `json:"error,omitempty"`
	Lost      uint64     `json:"lost,omitempty"` // events before this one that the watcher was too slow for
}

// EventKey is one key of an Event.
type EventKey struct {
	Key     string `json:"key"`
	Version uint64 `json:"version,omitempty"`
}

// describedKeys is how many keys of an event are shown.
const describedKeys = 20

// DescribeEvent describes an event; what is sensitive by p is masked.
func DescribeEvent(a cache.Applied, lost uint64, p *policy.Set) Event {
	tags, prefix := describeNames(a, p)
	e := Event{
		Seq: a.Position.Seq, Position: a.Position.String(), Op: a.Event.Op.String(), Namespace: a.Namespace,
		Tags: tags, Prefix: prefix, Writer: a.Event.Writer,
		Stored: a.Time, LagMicros: a.Lag().Microseconds(), Lost: lost,
		MoreKeys: max(0, len(a.Event.Keys)-describedKeys),
	}
	for _, kv := range a.Event.Keys[:min(len(a.Event.Keys), describedKeys)] {
		e.Keys = append(e.Keys, EventKey{Key: p.Shown(kv.Key), Version: kv.Version})
	}
	if err := p.ShownError(a.Namespace, a.Err); err != nil {
		e.Error = err.Error()
	}
	return e
}

// describeNames returns an event's tags and prefix as they may be shown.
func describeNames(a cache.Applied, p *policy.Set) (tags []string, prefix string) {
	tags, prefix = a.Event.Tags, a.Event.Prefix
	namespace := a.Namespace
	if prefix != "" {
		namespace = bus.NamespaceOf(prefix)
	}
	if !p.Of(namespace).Sensitive {
		return tags, prefix
	}
	masked := make([]string, len(tags))
	for i, t := range tags {
		masked[i] = policy.Mask(t)
	}
	if prefix != "" {
		prefix = namespace + ":" + policy.Mask(prefix)
	}
	return masked, prefix
}
