package nearside

import (
	"context"
	"errors"
	"time"

	"github.com/nearside-cache/nearside/api/near"
)

// maxLoads is how often one call loads at most, because events overtook what it loaded.
const maxLoads = 3

// Loaded is what a loader brings.
type Loaded[T any] struct {
	Value T
	// Version is the source's own stamp of the value, which only grows: a row version, an
	// LSN, a commit timestamp of the database. 0: none. With it fewer loads are refused,
	// and Strong reads are linearizable.
	Version uint64
	TTL     time.Duration // 0: the policy's
	SoftTTL time.Duration // 0: the policy's
	Tags    []string
	Depends []string // keys that the value was made of
	// Absent: the source has no value. It is kept for the policy's negative_ttl.
	Absent bool
}

// Source is where values of one kind come from.
type Source[T any] struct {
	// Load reads a key's value from the source: the primary, not a replica that lags, or
	// the policy says by how much (replica_lag).
	Load func(ctx context.Context, key string) (Loaded[T], error)
	// Codec says how values are kept; nil: JSON.
	Codec Codec[T]
	// Timeout bounds a load; 0: the context does.
	Timeout time.Duration
	// Shared: values are never changed by who gets them, and so one that L0 holds is
	// decoded once for all.
	Shared bool
}

// Result is a value, and where it is from.
type Result[T any] struct {
	Value   T
	Version uint64
	Age     time.Duration // see Answer; 0 of what was loaded
	// Status is what the read found. Of what was loaded: why it had to be; 0: the sidecar
	// gave no answer.
	Status Status
	FromL0 bool
	// Loaded: the value is from the source, loaded after the call began. Stored: the
	// sidecar keeps it. Verdict: why it does not.
	Loaded  bool
	Stored  bool
	Verdict string
}

// GetOrLoad returns the value of a key: from L0, from the sidecar, or from the source,
// and then it is offered to the sidecar. It fails with ErrAbsent when the source has
// none, with the loader's own error, and as Load says.
func GetOrLoad[T any](ctx context.Context, c *Client, key string, from Source[T], options ...ReadOption) (T, error) {
	r, err := Load(ctx, c, key, from, options...)
	return r.Value, err
}

// Load is GetOrLoad that says where the value is from.
//
// One load of a key is under way in the process, and one in the pod as far as the
// sidecar knows (Wait). When the sidecar is away, or cannot prove how fresh it is, the
// value comes from the source; Stats tell. Of a context with a deadline, the sidecar gets
// half of what is left at most.
//
// A value that the sidecar refuses, because something happened to the key while it was
// loaded, is loaded again, three times in all. Then it is returned, with Stored false and
// the Verdict: it was read from the source after the call began, and so it has every
// write that was committed before. Only where that is not what was asked for, the error
// is ErrUnproven, and the value comes with it: for Strong, when the sidecar could not make
// its version known everywhere; for AtLeast, when its version is below the token's.
func Load[T any](ctx context.Context, c *Client, key string, from Source[T], options ...ReadOption) (Result[T], error) {
	var r read
	r.set(ctx, options)
	if c.l0 != nil {
		var a Answer
		if c.l0.get(key, &r, &a) {
			if r, err := found(&from, &a); !isCodecError(err) {
				return r, err
			}
		}
	}
	if err := checkKey(key); err != nil {
		return Result[T]{}, err
	}
	l := &loading[T]{client: c, key: key, from: from, read: r}
	if l.from.Codec == nil {
		l.from.Codec = JSON[T]{}
	}
	return l.run(ctx)
}

// loading is one call of Load.
type loading[T any] struct {
	client *Client
	key    string
	from   Source[T]
	read   read
}

// found is the result of an answer with a value, or without because there is none.
func found[T any](from *Source[T], a *Answer) (Result[T], error) {
	r := Result[T]{Version: a.Version, Age: a.Age, Status: a.Status, FromL0: a.FromL0, Stored: true}
	if a.Status == Negative {
		return r, ErrAbsent
	}
	shared := a.entry != nil && from.Shared
	if shared {
		if d := a.entry.decoded.Load(); d != nil {
			if v, ok := (*d).(T); ok {
				r.Value = v
				return r, nil
			}
		}
	}
	v, err := decode(from.Codec, a.Value)
	if err != nil {
		return r, &codecError{err}
	}
	if r.Value = v; shared {
		keep := any(v)
		a.entry.decoded.Store(&keep)
	}
	return r, nil
}

func decode[T any](c Codec[T], b []byte) (T, error) {
	if c == nil {
		return JSON[T]{}.Decode(b)
	}
	return c.Decode(b)
}

// codecError says that what is kept is not what the codec can read: an other version of
// the app may have written it.
type codecError struct{ error }

func (e *codecError) Unwrap() error { return e.error }

func isCodecError(err error) bool {
	if err == nil {
		return false
	}
	var e *codecError
	return errors.As(err, &e)
}

// run reads, and loads what is missed.
func (l *loading[T]) run(ctx context.Context) (Result[T], error) {
	k := flightKey{l.key, l.read.mode == near.Strong}
	for {
		var miss *Answer // of the read just made
		if !l.client.flights.under(k) {
			a, r, known, err := l.ask(ctx)
			if known || stop(ctx, err) {
				return r, err
			}
			miss = &a
		}
		f, mine := l.client.flights.join(k)
		if mine {
			return l.lead(ctx, k, f, miss)
		}
		if err := wait(ctx, f.done); err != nil {
			return Result[T]{}, err
		}
		if f.stored {
			continue // and read it, under this call's own mode
		}
		if l.client.flights.claim(k, f.next) {
			return l.lead(ctx, k, f.next, nil)
		}
		if err := wait(ctx, f.next.done); err != nil {
			return Result[T]{}, err
		}
		if r, ok := f.next.result.(Result[T]); ok {
			l.client.counters.sharedLoads.Add(1)
			return r, l.proven(r, f.next.err)
		}
	}
}

func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop reports whether a read's error is for the caller: everything else is what there
// is a source for.
func stop(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || errors.Is(err, ErrClosed))
}

// ask reads from the sidecar. known: r and err are what the call comes to. Otherwise the
// key has to be loaded, under a's lease if there is one; err says why there is no
// answer.
func (l *loading[T]) ask(ctx context.Context) (a Answer, r Result[T], known bool, err error) {
	read, timeout := l.read, l.read.timeout(&l.client.options)
	if end, ok := ctx.Deadline(); ok {
		if half := time.Until(end) / 2; half < timeout {
			timeout = half
			if most := max(0, half-half/4); read.wait < 0 || read.wait > most {
				read.wait = most // so that a lease comes in time
			}
		}
	}
	a, err = l.client.ask(ctx, l.key, read, timeout)
	if err != nil || !a.Status.Found() && a.Status != Negative {
		return a, r, false, err
	}
	r, err = found(&l.from, &a)
	if isCodecError(err) {
		l.client.counters.codecErrors.Add(1)
		return Answer{Status: a.Status}, r, false, nil
	}
	return a, r, true, err
}

// lead loads for all who miss the key. miss is what a read just made was answered.
func (l *loading[T]) lead(ctx context.Context, k flightKey, f *flight, miss *Answer) (r Result[T], err error) {
	ok := false // else the loader panicked, or the context ended: that is nobody else's
	defer func() {
		if ok {
			l.client.flights.land(k, f, r.Stored, r, err)
		} else {
			l.client.flights.land(k, f, false, nil, nil)
		}
	}()
	r, err = l.load(ctx, miss)
	ok = err == nil || ctx.Err() == nil
	return r, l.proven(r, err)
}

// load loads under the lease of a miss and offers what it got, again while events
// overtake it. The lease is taken before the load begins.
func (l *loading[T]) load(ctx context.Context, miss *Answer) (Result[T], error) {
	for n := 1; ; n++ {
		if miss == nil {
			a, r, known, err := l.ask(ctx)
			if known || stop(ctx, err) {
				return r, err
			}
			miss = &a
		}
		r, rejected, err := l.once(ctx, miss)
		if !rejected || n == maxLoads {
			return r, err
		}
		miss = nil
	}
}

// once loads and offers. rejected: something had happened to the key meanwhile.
func (l *loading[T]) once(ctx context.Context, a *Answer) (r Result[T], rejected bool, err error) {
	n := &l.client.counters
	n.loads.Add(1)
	if a.Status == 0 {
		n.fellThrough.Add(1)
	}
	loaded, err := l.call(ctx, a)
	if err != nil {
		n.failedLoads.Add(1)
		return r, false, err
	}
	l.client.l0.forget(l.key) // nobody may see less after this than it tells
	r = Result[T]{Value: loaded.Value, Version: loaded.Version, Status: a.Status, Loaded: true}
	if loaded.Absent {
		err = ErrAbsent
	}
	if a.Lease == "" {
		n.notKept.Add(1)
		r.Verdict = "no lease"
		return r, false, err
	}
	filled, failed := l.fill(ctx, a.Lease, &loaded)
	switch {
	case failed != nil:
		n.notKept.Add(1)
		r.Verdict = failed.Error()
	case filled.Stored:
		n.stored.Add(1)
		r.Stored = true
	default:
		n.rejected.Add(1)
		r.Verdict, rejected = filled.Verdict, true
	}
	return r, rejected, err
}

// call calls the loader. When it fails, the right to load goes to somebody else.
func (l *loading[T]) call(ctx context.Context, a *Answer) (loaded Loaded[T], err error) {
	if l.from.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.from.Timeout)
		defer cancel()
	}
	ok := false
	defer func() {
		if !ok && a.Right {
			_ = l.client.Release(context.WithoutCancel(ctx), l.key, a.Lease) // it ends by itself, too
		}
	}()
	loaded, err = l.from.Load(ctx, l.key)
	ok = err == nil
	return loaded, err
}

// fill offers what was loaded. A value that cannot be encoded is not kept.
func (l *loading[T]) fill(ctx context.Context, lease Lease, loaded *Loaded[T]) (Filled, error) {
	f := Fill{
		Key: l.key, Lease: lease, Version: loaded.Version, TTL: loaded.TTL, SoftTTL: loaded.SoftTTL,
		Tags: loaded.Tags, Depends: loaded.Depends, Absent: loaded.Absent,
	}
	if !loaded.Absent {
		var err error
		if f.Value, err = l.from.Codec.Encode(loaded.Value); err != nil {
			l.client.counters.codecErrors.Add(1)
			_ = l.client.Release(ctx, l.key, lease) // it ends by itself, too
			return Filled{}, err
		}
	}
	return l.client.Fill(ctx, f)
}

// proven is the error of a result, or ErrUnproven where it is not what the read asks
// for.
func (l *loading[T]) proven(r Result[T], err error) error {
	if err != nil && !errors.Is(err, ErrAbsent) || !r.Loaded || r.Stored {
		return err
	}
	switch l.read.mode {
	case near.Strong:
		return ErrUnproven
	case near.AtLeast:
		if v := l.read.position.Version; v > 0 && r.Version > 0 && r.Version < v {
			return ErrUnproven
		}
	}
	return err
}
