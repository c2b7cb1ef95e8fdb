package cache_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// origin answers as its test says, and remembers what it was asked.
type origin struct {
	mu     sync.Mutex
	asked  []loader.Request
	answer func(loader.Request) (loader.Result, error)
	gate   chan struct{} // nil: answers at once
	takes  time.Duration // or after this
}

// Load implements cache.Origins. What it answers is what was true when it was asked.
func (o *origin) Load(ctx context.Context, _ string, r loader.Request) (loader.Result, error) {
	o.mu.Lock()
	o.asked = append(o.asked, r)
	result, err := o.answer(r)
	gate, takes := o.gate, o.takes
	o.mu.Unlock()
	if takes > 0 {
		time.Sleep(takes)
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return loader.Result{}, ctx.Err()
		}
	}
	return result, err
}

// answers changes what is answered from now on.
func (o *origin) answers(r loader.Result, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = func(loader.Request) (loader.Result, error) { return r, err }
}

// holds makes it wait before it tells its answers, until the returned function is called.
func (o *origin) holds() (release func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	gate := make(chan struct{})
	o.gate = gate
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.gate = nil
		close(gate)
	}
}

// requests returns what was asked since the last call.
func (o *origin) requests() []loader.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	asked := o.asked
	o.asked = nil
	return asked
}

func count(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return m.GetCounter().GetValue()
}

func value(v string, version uint64) loader.Result {
	return loader.Result{Value: []byte(v), Version: version}
}

var errDown = loader.ErrFailed

// loading is a cache whose default namespace has a loader, in virtual time but for
// the cache's own clock, which stands until it is moved.
type loading struct {
	by
	origin    *origin
	metrics   *cache.Metrics
	seq, fork uint64
	published func() bus.Position // applies what was published; nil: publishing fails
}

func withLoader(t *testing.T, change func(*policy.Namespace), test func(*testing.T, *loading)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newLoading(t, change, nil)) })
}

// newLoading must be called in a bubble of synctest. tiers may be nil.
func newLoading(t *testing.T, change func(*policy.Namespace), tiers func(*policy.Set) cache.Tiers) *loading {
	l := &loading{origin: &origin{}, seq: 10}
	l.origin.answers(value("v", 0), nil)
	l.by = byHand(t, func(cfg *cache.Config) {
		cfg.Metrics = cache.NewMetrics(prometheus.NewRegistry())
		l.metrics = cfg.Metrics
		cfg.Origins = l.origin
		n := &cfg.Policies.Default
		n.Loader = &policy.Loader{URL: "http://origin/{key}"}
		n.TTLJitter = 0
		if change != nil {
			change(n)
		}
		if tiers != nil {
			cfg.Tiers = tiers(cfg.Policies)
		}
	}, func(context.Context) (bus.Position, error) {
		if l.published == nil {
			return bus.Position{}, bus.ErrNotAcknowledged
		}
		return l.published(), nil
	})
	l.pulse()
	return l
}

// applies applies an event as of now.
func (l *loading) applies(e bus.Event) {
	l.seq++
	namespace := bus.DefaultNamespace
	if len(e.Keys) > 0 {
		namespace = bus.NamespaceOf(e.Keys[0].Key)
	}
	p := at(l.seq)
	p.Epoch.Fork = max(p.Epoch.Fork, l.fork)
	l.Apply(bus.Delivery{Position: p, Digest: digestOf(l.seq), Namespace: namespace, Event: e, Fresh: l.Now()})
}

// digestOf is that of the message at seq, in the one log that there is.
func digestOf(seq uint64) uint64 { return 1000 + seq }

// resumes has it begin again at its seq, with a history from seq from on.
func (l *loading) resumes(from uint64) {
	l.Doubt(bus.ReasonHole)
	r := bus.Resume{Position: at(l.seq), HistoryFrom: from - 1, Fresh: l.Now()}
	for seq := from; seq <= l.seq; seq++ {
		r.History = append(r.History, bus.Delivery{Position: at(seq), Digest: digestOf(seq), Event: bus.Event{Op: bus.OpPulse}})
	}
	l.Resume(r)
}

func (l *loading) pulse() { l.applies(bus.Event{Op: bus.OpPulse}) }

func (l *loading) changed(key string, version uint64) {
	l.applies(bus.Event{Keys: []bus.KeyVersion{{Key: key, Version: version}}})
}

// passes lets time pass, with the pulses that keep it live.
func (l *loading) passes(d time.Duration) {
	l.clock.Advance(d)
	l.pulse()
}

// must loads and reads again.
func (l *loading) must(key, want string) {
	l.t.Helper()
	require.NoError(l.t, l.Reload(l.t.Context(), key))
	require.Equal(l.t, want, l.get(key))
	l.origin.requests()
}

// reads reads as a plain GET does, without a load of its own, and lets what is loaded
// in the background end.
func (l *loading) reads(key string) (string, cache.Found) {
	v, found := l.Read(key, nil, l.Now())
	synctest.Wait()
	return string(v), found
}

func (l *loading) near(m cache.Mode) (string, cache.Outcome) {
	v, a := l.Near("k", m, true, false, nil)
	synctest.Wait()
	return string(v), a.Status
}

// startsSlow is starts of a load that takes its time, and does not wait for it to begin.
func (l *loading) startsSlow(key string, takes time.Duration) <-chan error {
	l.origin.mu.Lock()
	l.origin.takes = takes
	l.origin.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- l.Reload(l.t.Context(), key) }()
	return ended
}

// starts begins to load and returns where its end is told.
func (l *loading) starts(key string) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- l.Reload(l.t.Context(), key) }()
	synctest.Wait()
	return ended
}

// Of a hundred readers that miss a key one loads; all read what it brought (I13).
func TestOneLoadForAllReaders(t *testing.T) {
	withLoader(t, nil, func(t *testing.T, l *loading) {
		release := l.origin.holds()
		var readers sync.WaitGroup
		for range 100 {
			readers.Go(func() {
				if err := l.Load(t.Context(), "k", 0); err != nil {
					t.Error(err)
				}
				if v, found := l.Read("k", nil, l.Now()); found != cache.Value || string(v) != "v" {
					t.Errorf("read %q, %v", v, found)
				}
			})
		}
		synctest.Wait()
		first := l.origin.requests()
		release()
		readers.Wait()
		require.Len(t, first, 1)
		require.Empty(t, l.origin.requests())
		require.EqualValues(t, 1, count(t, l.metrics.Loads.WithLabelValues("stored")))
	})
}

// The lease is taken before the load (C2): what was loaded while an event came is
// not served, to nobody, and loaded again.
func TestEventDuringALoad(t *testing.T) {
	for name, happens := range map[string]func(*loading){
		"event":     func(l *loading) { l.changed("k", 0) },
		"version":   func(l *loading) { l.changed("k", 2) },
		"flush":     func(l *loading) { l.applies(bus.Event{Op: bus.OpFlush}) },
		"tag":       func(l *loading) { l.applies(bus.Event{Tags: []string{"t"}}) },
		"doubt":     func(l *loading) { l.Doubt(bus.ReasonHole); l.Resume(bus.Resume{Position: at(l.seq), Fresh: l.Now()}) },
		"own write": func(l *loading) { _, _ = l.Invalidate(l.t.Context(), cache.Write{Keys: []bus.KeyVersion{{Key: "k"}}}) },
	} {
		t.Run(name, func(t *testing.T) {
			withLoader(t, nil, func(t *testing.T, l *loading) {
				release := l.origin.holds()
				l.origin.answers(loader.Result{Value: []byte("old"), Version: 1, Tags: []string{"t"}}, nil)
				first, second := l.starts("k"), l.starts("k")
				l.origin.answers(value("new", 2), nil)
				happens(l)
				release()
				require.NoError(t, <-first)
				require.NoError(t, <-second)
				require.Equal(t, "new", l.get("k"))
				require.Len(t, l.origin.requests(), 2)
				require.EqualValues(t, 1, count(t, l.metrics.Loads.WithLabelValues("stored")))
			})
		})
	}
}

// What is overtaken again and again is given up, and never served.
func TestOvertakenAgainAndAgain(t *testing.T) {
	withLoader(t, nil, func(t *testing.T, l *loading) {
		l.origin.answer = func(loader.Request) (loader.Result, error) {
			l.changed("k", 0)
			return value("old", 0), nil
		}
		require.ErrorIs(t, l.Reload(t.Context(), "k"), cache.ErrOvertaken)
		require.Len(t, l.origin.requests(), 3)
		require.Empty(t, l.get("k"))
	})
}

// What is known of the key's version is asked for, and an older one refused.
func TestLoadAsksForWhatIsKnown(t *testing.T) {
	withLoader(t, nil, func(t *testing.T, l *loading) {
		l.changed("k", 7)
		l.origin.answers(value("old", 6), nil)
		require.ErrorIs(t, l.Reload(t.Context(), "k"), cache.ErrOvertaken)
		require.Empty(t, l.get("k"))
		require.EqualValues(t, 7, l.origin.requests()[0].AtLeast)
		l.origin.answers(value("new", 9), nil)
		l.must("k", "new")
		require.NoError(t, l.Reload(t.Context(), "k"))
		require.EqualValues(t, 9, l.origin.requests()[0].AtLeast, "of what is resident")
	})
}

// Nothing is asked where it is known before that nothing would be kept.
func TestNothingIsLoadedInVain(t *testing.T) {
	cases := map[string]func(*loading){
		"bypass":    func(l *loading) { l.clock.Advance(l.Policies().Default.Bound() + 1) },
		"not ready": func(l *loading) { l.Doubt(bus.ReasonHole) },
		"own flush that was not acknowledged": func(l *loading) {
			_, err := l.Flush(l.t.Context(), bus.DefaultNamespace)
			require.Error(l.t, err)
		},
	}
	for name, happens := range cases {
		t.Run(name, func(t *testing.T) {
			withLoader(t, func(n *policy.Namespace) { n.MaxStale = time.Minute }, func(t *testing.T, l *loading) {
				happens(l)
				require.ErrorIs(t, l.Reload(t.Context(), "k"), cache.ErrNotKept)
				require.Empty(t, l.origin.requests())
			})
		})
	}
	t.Run("replica lag", func(t *testing.T) {
		withLoader(t, func(n *policy.Namespace) { n.ReplicaLag = time.Second }, func(t *testing.T, l *loading) {
			l.passes(time.Minute)
			l.changed("k", 0)
			require.ErrorIs(t, l.Reload(t.Context(), "k"), cache.ErrNotKept)
			require.Empty(t, l.origin.requests(), "the replica may not have it yet")
			l.passes(2 * time.Second)
			l.must("k", "v")
		})
	})
	for _, mode := range []policy.Mode{policy.Off, policy.Shadow} {
		t.Run(string(mode), func(t *testing.T) {
			withLoader(t, func(n *policy.Namespace) { n.Mode = mode }, func(t *testing.T, l *loading) {
				require.False(t, l.Loads("k"), "its clients load")
				require.ErrorIs(t, l.Reload(t.Context(), "k"), loader.ErrNoLoader)
				require.Empty(t, l.origin.requests())
			})
		})
	}
}

// What is too large is not tried again at once, and what was held stays.
func TestTooLargeIsNotKept(t *testing.T) {
	withLoader(t, func(n *policy.Namespace) { n.MaxValue = 8 }, func(t *testing.T, l *loading) {
		l.must("k", "v")
		l.origin.answers(value("123456789", 0), nil)
		require.ErrorIs(t, l.Reload(t.Context(), "k"), cache.ErrNotKept)
		require.Len(t, l.origin.requests(), 1)
		require.Equal(t, "v", l.get("k"))
	})
}

// Who comes when a load has just ended takes what it brought, unless that is older than
// what it asks for.
func TestWhatWasJustLoadedIsNotLoadedAgain(t *testing.T) {
	withLoader(t, soft, func(t *testing.T, l *loading) {
		l.origin.answers(value("v", 7), nil)
		for atLeast, asked := range map[uint64]int{0: 0, 7: 0, 8: 1} {
			l.must("k", "v")
			require.NoError(t, l.Load(t.Context(), "k", atLeast))
			require.Len(t, l.origin.requests(), asked, "at least %d", atLeast)
		}
		l.passes(10 * time.Second)
		require.NoError(t, l.Load(t.Context(), "k", 0))
		require.Len(t, l.origin.requests(), 1, "it is past its soft TTL")
	})
}

// A reader goes on at the soft timeout, and the load too.
func TestSoftTimeout(t *testing.T) {
	withLoader(t, func(n *policy.Namespace) { n.Loader.SoftTimeout = 30 * time.Millisecond }, func(t *testing.T, l *loading) {
		release := l.origin.holds()
		began := time.Now()
		require.ErrorIs(t, l.Load(t.Context(), "k", 0), loader.ErrSlow)
		require.Equal(t, 30*time.Millisecond, time.Since(began))
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errors.New("gone"))
		defer cancel()
		require.EqualError(t, l.Load(ctx, "k", 0), "gone")
		release()
		synctest.Wait()
		require.Equal(t, "v", l.get("k"))
		require.Len(t, l.origin.requests(), 1)
	})
}

// Close ends the loads, and none begins afterwards.
func TestCloseEndsLoads(t *testing.T) {
	withLoader(t, nil, func(t *testing.T, l *loading) {
		l.origin.holds()
		ended := []<-chan error{l.starts("k"), l.starts("j")}
		require.NoError(t, l.Close())
		for _, e := range ended {
			require.ErrorIs(t, <-e, context.Canceled)
		}
		require.ErrorIs(t, l.Load(t.Context(), "k", 0), cache.ErrClosed)
		require.Len(t, l.origin.requests(), 2)
	})
}

// Policies change while loads run: nothing that was loaded under the former one is
// kept against the present one, and nobody minds.
func TestPoliciesChangeWhileLoadsRun(t *testing.T) {
	withLoader(t, nil, func(t *testing.T, l *loading) {
		with := l.Policies()
		without := *with
		without.Default.Loader = nil
		off := *with
		off.Default.Mode = policy.Off
		release := l.origin.holds()
		ended := l.starts("k")
		l.SetPolicies(&off)
		release()
		require.ErrorIs(t, <-ended, cache.ErrNotKept)
		require.Len(t, l.origin.requests(), 1)
		var loads sync.WaitGroup
		for range 4 {
			loads.Go(func() {
				for range 200 {
					_ = l.Load(t.Context(), "k", 0)
				}
			})
		}
		for i := range 200 {
			l.SetPolicies([]*policy.Set{with, &without, &off}[i%3])
		}
		loads.Wait()
	})
}

// More keys than can be loaded at once are refused, not piled up (I15).
func TestTooManyLoads(t *testing.T) {
	withLoader(t, nil, func(t *testing.T, l *loading) {
		release := l.origin.holds()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for i := range 4096 {
			require.ErrorIs(t, l.Load(ctx, strconv.Itoa(i), 0), context.Canceled)
		}
		require.ErrorIs(t, l.Load(t.Context(), "one more", 0), cache.ErrTooManyLoads)
		release()
		synctest.Wait()
		l.must("one more", "v")
	})
}

// A 304 confirms the very entry that was asked about, with what it hangs on.
func TestNotModified(t *testing.T) {
	tagged := loader.Result{Value: []byte("v"), ETag: `"1"`, Tags: []string{"t"}}
	confirmed := loader.Result{NotModified: true, ETag: `"1"`}
	withLoader(t, func(n *policy.Namespace) { n.TTL = time.Minute }, func(t *testing.T, l *loading) {
		l.origin.answers(tagged, nil)
		l.must("k", "v")
		l.passes(2 * time.Minute)
		require.Empty(t, l.get("k"))
		l.origin.answers(confirmed, nil)
		require.NoError(t, l.Reload(t.Context(), "k"))
		require.Equal(t, `"1"`, l.origin.requests()[0].ETag)
		require.Equal(t, "v", l.get("k"))
		l.applies(bus.Event{Tags: []string{"t"}})
		require.Empty(t, l.get("k"), "it hangs on what it hung on before")
		l.origin.answers(tagged, nil)
		require.NoError(t, l.Reload(t.Context(), "k"))
		require.Empty(t, l.origin.requests()[0].ETag, "what is dead cannot be confirmed")
	})
	withLoader(t, nil, func(t *testing.T, l *loading) {
		l.origin.answers(loader.Result{Value: []byte("v"), Version: 1, ETag: `"1"`}, nil)
		l.must("k", "v")
		l.passes(2 * l.Policies().Default.TTL)
		release := l.origin.holds()
		l.origin.answers(loader.Result{NotModified: true, Version: 3, ETag: `"1"`}, nil)
		ended := l.starts("k")
		lease := l.Lease("k", false)
		require.Equal(t, coherence.Stored, l.Fill("k", []byte("other"), cache.FillOptions{Lease: lease, Version: 2}))
		l.origin.answers(value("loaded", 3), nil)
		release()
		require.NoError(t, <-ended)
		require.Equal(t, "loaded", l.get("k"), "not the other one, which was not asked about")
	})
}

// A client's value that keeps the TTL does not keep the ETag of the one before: a 304
// would confirm what the origin never had.
func TestKeptTTLKeepsNoETag(t *testing.T) {
	withLoader(t, nil, func(t *testing.T, l *loading) {
		l.origin.answers(loader.Result{Value: []byte("v"), ETag: `"1"`}, nil)
		l.must("k", "v")
		l.passes(time.Minute) // more than a window later
		require.Equal(t, coherence.Stored, l.Set("k", []byte("set"), cache.TTL{Keep: true}))
		require.NoError(t, l.Reload(t.Context(), "k"))
		require.Empty(t, l.origin.requests()[0].ETag)
	})
}

// An ETag that is too long to be kept is as none.
func TestLongETag(t *testing.T) {
	withLoader(t, nil, func(t *testing.T, l *loading) {
		for _, n := range []int{255, 256} {
			l.origin.answers(loader.Result{Value: []byte("v"), ETag: string(make([]byte, n))}, nil)
			require.NoError(t, l.Reload(t.Context(), "k"))
			l.origin.requests()
			require.NoError(t, l.Reload(t.Context(), "k"))
			require.Len(t, l.origin.requests()[0].ETag, n%256)
		}
	})
}
