package operation

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/purge"
)

// CheckKey returns why no store could hold a key, empty if one could.
func CheckKey(key string) (fault string) {
	n := len(key)
	if n < api.MinKey || n > api.MaxKey {
		return fmt.Sprintf("a key has %d bytes: want %d to %d", n, api.MinKey, api.MaxKey)
	}
	if n > bus.MaxNamespace { // what no event can name must not be kept
		if n = len(bus.NamespaceOf(key)); n > bus.MaxNamespace {
			return fmt.Sprintf("a key's namespace, the part before the first ':', has %d bytes: want at most %d", n, bus.MaxNamespace)
		}
	}
	return ""
}

// CheckNamespace returns why a name is none of a namespace: an empty one would be the
// domain.
func CheckNamespace(name string) (fault string) {
	if name == "" || len(name) > bus.MaxNamespace {
		return fmt.Sprintf("a namespace has %d bytes: want 1 to %d", len(name), bus.MaxNamespace)
	}
	return ""
}

// Write is what a client says has changed.
type Write struct {
	cache.Write
	Namespace string // all of it, and nothing else
	Domain    bool   // all there is
}

// Check returns why a write makes no sense, empty if it does. Keys are not looked at.
func (w Write) Check() (fault string) {
	named := len(w.Keys) > 0 || len(w.Tags) > 0 || w.Prefix != ""
	switch {
	case w.Namespace != "" && named:
		return "NAMESPACE purges all of it: name nothing else"
	case w.Namespace == "" && !named:
		return "nothing is named: want KEYS, TAGS, PREFIX or NAMESPACE"
	case w.Prefix != "" && !strings.Contains(w.Prefix, ":"):
		return fmt.Sprintf("prefix %.64q names no namespace: want one up to a ':' at least", w.Prefix)
	case w.Update && w.Keys[0].Version == 0:
		return "the version is 0: an update needs the source's own version of the value; without one, NEAR.INVALIDATE"
	}
	return ""
}

// Purge is what a Write must be admitted for.
func (w Write) Purge() purge.Request {
	return purge.Request{Tags: w.Tags, Prefix: w.Prefix, Namespace: w.Namespace, Domain: w.Domain}
}

// Publish publishes a write by a client, and returns as Cache.Invalidate does. by is
// asked for of wide purges only. Why it fails, Explain words.
func (e *Env) Publish(ctx context.Context, w Write, by audit.Who) (cache.Receipt, error) {
	if r := w.Purge(); r.Wide() {
		r.By = by
		if err := e.Purges.Admit(r); err != nil {
			return cache.Receipt{}, err
		}
	}
	if w.Domain || w.Namespace != "" {
		return e.Cache.Flush(ctx, w.Namespace)
	}
	return e.Cache.Invalidate(ctx, w.Write)
}

// Confirms reports whether a fill must wait until its version is known everywhere
// (C12).
func Confirms(o cache.FillOptions) bool { return o.Lease.Strong && o.Version != 0 }

// Fill judges and perhaps stores a value that was loaded under a lease. Where it
// Confirms, it waits for that, and only then it can fail.
func (e *Env) Fill(ctx context.Context, key string, value []byte, o cache.FillOptions) (coherence.Verdict, error) {
	if Confirms(o) {
		e.Cache.Confirming(key, o.Lease, o.Version)
		if err := e.Cache.Confirm(ctx, key, o.Version); err != nil {
			e.Cache.Release(key, o.Lease)
			return 0, err
		}
	}
	return e.Cache.Fill(key, value, o), nil
}

// Barrier returns the token of a position when everything published anywhere before
// the call is applied here.
func (e *Env) Barrier(ctx context.Context) (token string, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.BarrierTimeout)
	defer cancel()
	p, err := e.Cache.Barrier(ctx)
	return p.String(), err
}

// Failure is why an operation failed, as clients are told. Its text is the first word
// of a RESP error.
type Failure string

// Failures.
const (
	Failed     Failure = "ERR"
	NoAck      Failure = "NOACK"
	NotApplied Failure = "NOTAPPLIED"
	NoPerm     Failure = "NOPERM"
	Paused     Failure = "PAUSED"
	Limited    Failure = "LIMITED"
)

// Explain words the failure of something that had to be published, for a client: what
// happened, and what to do.
func Explain(err error) (f Failure, words string) {
	var refusal *purge.RefusedError
	switch {
	case errors.As(err, &refusal):
		return refused(refusal), refusal.Words
	case errors.Is(err, bus.ErrNotAcknowledged):
		return NoAck, "the invalidation is not acknowledged by the stream and may still appear; it is applied in this sidecar only. Repeat it. " + err.Error()
	case errors.Is(err, cache.ErrTimeout), errors.Is(err, bus.ErrNotApplied):
		return NotApplied, "the invalidation is in the stream, but this sidecar has not applied it yet. " + err.Error()
	}
	return Failed, err.Error()
}

func refused(r *purge.RefusedError) Failure {
	switch r.Outcome {
	case purge.Paused:
		return Paused
	case purge.Limited:
		return Limited
	}
	return NoPerm
}
