package nearside

import (
	"bytes"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/nearside-cache/nearside/api/near"
)

// entryOverhead is about what an entry takes besides its key and its value, in bytes.
const entryOverhead = 256

// l0 keeps what the sidecar answered, by the rules L1 to L8 of docs/protocol.md. All of
// it belongs to one connection, whose reading goroutine alone puts something in. A nil
// *l0 keeps nothing.
type l0 struct {
	store    *otter.Cache[string, *entry]
	bound    time.Duration
	clock    *clock
	counters *counters

	// view is what readers go by; nil: nothing may be served.
	view atomic.Pointer[view]

	mu    sync.Mutex // of what changes view and store, and of the fields below
	owner *conn      // whose answers are kept; nil: nobody's
	life  uint64     // raised when everything dies
	knots uint64     // raised when everything that is linked dies
}

// view is what an L0 knows at a moment. Immutable.
type view struct {
	life    uint64
	knots   uint64
	asOf    time.Duration // of the newest FRESH
	applied near.Token
	token   string // of applied
}

// entry is an answer that is kept. Immutable but for decoded.
type entry struct {
	value   []byte
	version uint64
	asOf    time.Duration
	until   time.Duration // 0: no end
	bound   time.Duration
	life    uint64
	knots   uint64 // 0: not linked
	status  Status
	decoded atomic.Pointer[any] // the value as a Source with Shared has decoded it
}

func newL0(o *L0Options, clock *clock, counters *counters) (*l0, error) {
	if o == nil {
		return nil, nil
	}
	options := otter.Options[string, *entry]{MaximumSize: o.MaxEntries}
	if o.MaxBytes > 0 {
		options.MaximumWeight = uint64(o.MaxBytes)
		options.Weigher = func(key string, e *entry) uint32 {
			return uint32(min(len(key)+len(e.value)+entryOverhead, math.MaxUint32))
		}
	}
	store, err := otter.New(&options)
	if err != nil {
		return nil, err
	}
	return &l0{store: store, bound: o.Bound, clock: clock, counters: counters, knots: 1}, nil
}

// get reads a key from L0 into a, if what is kept is as fresh as the read asks for (L5,
// L6), and reports whether it did. The order matters: first the view, then the entry,
// and the time last.
func (l *l0) get(key string, r *read, a *Answer) bool {
	v := l.view.Load()
	if v == nil {
		return l.miss()
	}
	e, ok := l.store.GetIfPresent(key)
	if !ok || e.life != v.life || e.knots != 0 && e.knots != v.knots {
		return l.miss()
	}
	now := l.clock.now()
	age := now - max(v.asOf, e.asOf)
	if age > l.bound || e.until != 0 && now >= e.until || !serves(v, e, r, age) {
		return l.miss()
	}
	a.Status, a.Value, a.Version, a.Age, a.FromL0, a.entry = e.status, e.value, e.version, max(0, age), true, e
	if r.withToken {
		a.Token = readToken(v.token, e.version)
	}
	l.counters.hit(key)
	return true
}

func (l *l0) miss() bool {
	l.counters.l0Misses.Add(1)
	return false
}

// serves reports whether an entry of an age is as fresh as a read asks for.
func serves(v *view, e *entry, r *read, age time.Duration) bool {
	switch r.mode {
	case near.Any:
		return true
	case near.MaxStale:
		return age <= r.maxStale
	case near.Class:
		return e.bound > 0 && age <= e.bound
	case near.AtLeast:
		return r.position.known && e.bound > 0 && age <= e.bound &&
			v.applied.Covers(r.position.Token) && e.version >= r.position.Version
	}
	return false
}

// answered takes note of an answer, before the app does.
func (l *l0) answered(c *conn, p *call) {
	if l == nil || p.err != nil || p.kind != near.KindTrack && p.keys == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch a := p.answer.(type) {
	case *near.Fresh:
		l.begin(c, a)
	case *near.Filled:
		l.store.Invalidate(p.keys[0])
	case *near.Value:
		l.keep(c, p.keys[0], a, a.Value)
	case *near.Values:
		for i := range min(len(a.Items), len(p.keys)) {
			// A view would hold on to all the others.
			l.keep(c, p.keys[i], &a.Items[i], bytes.Clone(a.Items[i].Value))
		}
	}
}

// begin makes L0, which is empty, that of a connection which has begun to track (L1).
func (l *l0) begin(c *conn, f *near.Fresh) {
	applied, err := near.ParseToken(f.Applied)
	if err != nil {
		return
	}
	l.owner = c
	l.view.Store(&view{life: l.life, knots: l.knots, asOf: f.AsOf, applied: applied, token: f.Applied})
}

// keep puts an answer in the place of what is kept of its key, or drops that (L3).
func (l *l0) keep(c *conn, key string, a *near.Value, value []byte) {
	if c != l.owner {
		return
	}
	// What is past its soft TTL is not kept: the sidecar must hear of its readers.
	if a.Flags&near.Cacheable == 0 || a.Status == near.Stale || !a.Status.Found() && a.Status != near.Negative {
		l.store.Invalidate(key)
		return
	}
	e := &entry{value: value, version: a.Version, asOf: a.AsOf, until: a.Until, bound: a.Bound, life: l.life, status: Status(a.Status)}
	if e.status == Regular {
		e.status = Hit // what L0 serves is no Strong answer any more
	}
	if a.Flags&near.Links != 0 {
		e.knots = l.knots
	}
	l.store.Set(key, e)
}

// invalidated drops what the sidecar names (L4).
func (l *l0) invalidated(c *conn, m *near.Invalidated) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c != l.owner {
		return
	}
	l.counters.l0Invalidations.Add(1)
	switch {
	case m.Scope == near.Keys:
		for _, k := range m.Names {
			l.store.Invalidate(string(k))
		}
	case m.Scope == near.Prefix && len(m.Names) == 1:
		prefix := string(m.Names[0])
		l.drop(func(key string) bool { return strings.HasPrefix(key, prefix) })
	case m.Scope == near.Namespace && len(m.Names) == 1:
		namespace := string(m.Names[0])
		l.drop(func(key string) bool { return near.NamespaceOf(key) == namespace })
	case m.Scope == near.Linked:
		l.knots++
		l.show(func(v *view) { v.knots = l.knots })
	default:
		l.life++
		l.show(func(v *view) { v.life = l.life })
		l.store.InvalidateAll()
	}
}

// drop drops the entries of keys.
func (l *l0) drop(of func(key string) bool) {
	var keys []string
	for key := range l.store.Keys() {
		if of(key) {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		l.store.Invalidate(key)
	}
}

// show changes the view.
func (l *l0) show(change func(*view)) {
	v := *l.view.Load()
	change(&v)
	l.view.Store(&v)
}

// fresh takes note that everything from before a moment has been told (O3). One that
// cannot be read is an error: what it is worth is not known.
func (l *l0) fresh(c *conn, m *near.Fresh) error {
	if l == nil {
		return nil
	}
	applied, err := near.ParseToken(m.Applied)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c == l.owner {
		l.show(func(v *view) { v.asOf, v.applied, v.token = m.AsOf, applied, m.Applied })
	}
	return nil
}

// forget drops a key.
func (l *l0) forget(key string) {
	if l != nil {
		l.store.Invalidate(key)
	}
}

// end empties L0 when its connection ends (L1).
func (l *l0) end(c *conn) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c == l.owner {
		l.owner = nil
		l.view.Store(nil)
		l.store.InvalidateAll()
	}
}

// close ends what the store runs by itself.
func (l *l0) close() {
	if l != nil {
		l.store.StopAllGoroutines()
	}
}

// valid reports whether L0 may serve something now.
func (l *l0) valid() bool {
	v := l.view.Load()
	return v != nil && l.clock.now()-v.asOf <= l.bound
}
