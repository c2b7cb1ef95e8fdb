package rights_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/rights"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// value reads a counter or a gauge back.
func value(c prometheus.Metric) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		return -1
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

const term = 2 * time.Second

// rig is a table under test, in the time of the test's bubble.
type rig struct {
	*rights.Table
	t       *testing.T
	metrics *rights.Metrics
}

func newRig(t *testing.T, limit, waiting int) rig {
	m := rights.NewMetrics(prometheus.NewRegistry())
	return rig{rights.New(rights.Config{Max: limit, Waiting: waiting, Clock: clock.Elapsed(), Metrics: m}), t, m}
}

// reader is one that claims.
type reader struct {
	rig
	rights.Holder
	plain bool
	got   chan answer
}

type answer struct {
	number  uint64
	outcome rights.Outcome
	after   time.Duration
}

func (r rig) reader() *reader { return &reader{rig: r, got: make(chan answer, 1)} }

func (r rig) plain() *reader {
	p := r.reader()
	p.plain = true
	return p
}

func (r *reader) claim() rights.Claim {
	return rights.Claim{Holder: &r.Holder, For: term, Plain: r.plain}
}

func (r *reader) take(key string) (uint64, rights.Outcome) { return r.Take(key, r.claim()) }

// gets takes a right that must be free.
func (r *reader) gets(key string) uint64 {
	r.t.Helper()
	n, o := r.take(key)
	require.Equal(r.t, rights.Granted, o)
	require.NotZero(r.t, n)
	return n
}

// waits begins to wait for a right that must be busy.
func (r *reader) waits(key string, patience time.Duration) *reader {
	r.t.Helper()
	_, o := r.take(key)
	require.Equal(r.t, rights.Busy, o)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		began := time.Now()
		n, o := r.Wait(ctx, key, r.claim())
		r.got <- answer{n, o, time.Since(began)}
	}()
	synctest.Wait()
	return r
}

// answered is what waiting came to.
func (r *reader) answered() answer {
	synctest.Wait()
	select {
	case a := <-r.got:
		return a
	default:
		r.t.Helper()
		r.t.Fatal("still waiting")
		return answer{}
	}
}

func (r *reader) waiting() {
	r.t.Helper()
	synctest.Wait()
	require.Empty(r.t, r.got)
}

func in(t *testing.T, test func(*testing.T, rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newRig(t, 100, 100)) })
}

func TestOneLoadsAndAllReadAgain(t *testing.T) {
	in(t, func(t *testing.T, r rig) {
		a := r.reader()
		a.gets("k")
		b, c := r.reader().waits("k", time.Minute), r.reader().waits("k", time.Minute)
		_, o := r.reader().take("other")
		require.Equal(t, rights.Granted, o, "another key's is another right")
		time.Sleep(100 * time.Millisecond)
		b.waiting()
		r.Filled("k")
		require.Equal(t, answer{0, rights.Again, 100 * time.Millisecond}, b.answered())
		require.Equal(t, rights.Again, c.answered().outcome)
		b.gets("k")
		require.Equal(t, 3.0, value(r.metrics.Granted))
		require.Equal(t, 2.0, value(r.metrics.Waits))
		require.Equal(t, 2.0, value(r.metrics.Held))
		require.Zero(t, value(r.metrics.Waiting))
		require.Zero(t, value(r.metrics.PassedOn))
	})
}

// A right passes on to who has waited longest, for a full term of its own.
func TestExpiryPassesOnInTurn(t *testing.T) {
	in(t, func(t *testing.T, r rig) {
		a := r.reader()
		late := a.gets("k")
		b, c := r.reader().waits("k", time.Minute), r.reader().waits("k", time.Minute)
		time.Sleep(term - time.Millisecond)
		b.waiting()
		time.Sleep(time.Millisecond)
		got := b.answered()
		require.Equal(t, rights.Granted, got.outcome)
		require.Equal(t, term, got.after)
		require.NotEqual(t, late, got.number)
		require.False(t, r.Release("k", late), "the right is another's now")
		c.waiting()
		time.Sleep(term)
		require.Equal(t, 2*term, c.answered().after)
		require.Equal(t, 2.0, value(r.metrics.Expired))
		require.Equal(t, 2.0, value(r.metrics.PassedOn))
		require.Equal(t, 1.0, value(r.metrics.Held))
	})
}

func TestExpiredWithoutWaitersIsFree(t *testing.T) {
	in(t, func(t *testing.T, r rig) {
		r.reader().gets("k")
		time.Sleep(term)
		r.reader().gets("k")
	})
}

func TestReleasePassesOn(t *testing.T) {
	in(t, func(t *testing.T, r rig) {
		n := r.reader().gets("k")
		b := r.reader().waits("k", time.Minute)
		require.False(t, r.Release("k", 0))
		require.False(t, r.Release("k", n+1))
		require.False(t, r.Release("other", n))
		b.waiting()
		require.True(t, r.Release("k", n))
		require.False(t, r.Release("k", n))
		got := b.answered()
		require.Equal(t, rights.Granted, got.outcome)
		require.True(t, r.Release("k", got.number))
		held, _ := r.Sizes()
		require.Zero(t, held)
	})
}

// A holder that ends gives up all it has, and is given nothing more.
func TestLeave(t *testing.T) {
	in(t, func(t *testing.T, r rig) {
		a := r.reader()
		a.gets("k")
		a.gets("j")
		b, c := r.reader().waits("k", time.Minute), r.reader().waits("k", time.Minute)
		r.Leave(&b.Holder) // before its turn, while it waits still
		r.Leave(&a.Holder)
		r.Leave(&a.Holder)
		require.Equal(t, rights.Alone, b.answered().outcome)
		require.Equal(t, rights.Granted, c.answered().outcome)
		r.reader().gets("j")
		_, o := a.take("new")
		require.Equal(t, rights.Alone, o)
	})
}

func TestNobodyWaitsForItself(t *testing.T) {
	in(t, func(t *testing.T, r rig) {
		a := r.reader()
		n := a.gets("k")
		require.Equal(t, n, a.gets("k"))
		again, o := a.Wait(context.Background(), "k", a.claim())
		require.Equal(t, rights.Granted, o)
		require.Equal(t, n, again)
	})
}

func TestPatienceEnds(t *testing.T) {
	in(t, func(t *testing.T, r rig) {
		r.reader().gets("k")
		b, c := r.reader().waits("k", 50*time.Millisecond), r.reader().waits("k", time.Minute)
		time.Sleep(50 * time.Millisecond)
		require.Equal(t, answer{0, rights.Alone, 50 * time.Millisecond}, b.answered())
		c.waiting()
		r.Void("k", 0)
		require.Equal(t, rights.Granted, c.answered().outcome, "who gave up is not in the way")
	})
}

// A void lease's load would be refused: nobody waits for it.
func TestVoid(t *testing.T) {
	for name, void := range map[string]func(rig){
		"event":     func(r rig) { r.Void("ns:k", 0) },
		"version":   func(r rig) { r.Void("ns:k", 7) },
		"namespace": func(r rig) { r.VoidNamespace("ns") },
		"domain":    rig.VoidAll,
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, r rig) {
				r.reader().gets("ns:k")
				r.reader().gets("other:k")
				b, c := r.reader().waits("ns:k", time.Minute), r.reader().waits("ns:k", time.Minute)
				r.Void("ns:j", 0)
				r.VoidNamespace("n")
				b.waiting()
				void(r)
				require.Equal(t, rights.Granted, b.answered().outcome)
				c.waiting()
				if name != "domain" {
					_, o := r.reader().take("other:k")
					require.Equal(t, rights.Busy, o)
				}
				r.Filled("ns:k")
				c.answered()
			})
		})
	}
}

// The event that a STRONG fill sends ahead of itself is no reason to load again.
func TestVoidByWhatTheHolderBrings(t *testing.T) {
	in(t, func(t *testing.T, r rig) {
		n := r.reader().gets("k")
		b := r.reader().waits("k", time.Minute)
		r.Brings("k", n+1, 9)
		r.Brings("k", n, 7)
		r.Void("k", 7)
		b.waiting()
		r.Void("k", 8)
		got := b.answered()
		require.Equal(t, rights.Granted, got.outcome)
		r.Void("k", 7)
		require.False(t, r.Release("k", got.number), "what one brings, the next does not")
	})
}

func TestDoubtUnfitAndCloseLetEverybodyGo(t *testing.T) {
	for name, end := range map[string]func(rig){
		"doubt": rig.Doubt,
		"unfit": func(r rig) { r.Unfit("k") },
		"close": func(r rig) { r.Close(); r.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, r rig) {
				r.reader().gets("k")
				b, c := r.reader().waits("k", time.Minute), r.reader().waits("k", time.Minute)
				end(r)
				require.Equal(t, rights.Alone, b.answered().outcome)
				require.Equal(t, rights.Alone, c.answered().outcome)
				_, o := r.reader().take("k")
				require.Equal(t, name == "close", o == rights.Alone)
			})
		})
	}
}

func TestFullTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, 1)
		r.reader().gets("a")
		time.Sleep(time.Second)
		r.reader().gets("b")
		_, o := r.reader().take("c")
		require.Equal(t, rights.Alone, o)
		w := r.reader().waits("a", time.Minute)
		x := r.reader()
		_, o = x.Wait(t.Context(), "a", x.claim())
		require.Equal(t, rights.Alone, o, "the queues are full, too")
		r.Filled("a")
		w.answered()
		r.reader().gets("c")
		time.Sleep(term)
		r.reader().gets("d") // those whose time is over give way
		r.reader().gets("e")
	})
}

// Plain loads whose right ended early come back with SETs, which are refused. They
// do not make others load beside the holder.
func TestRefusedSets(t *testing.T) {
	in(t, func(t *testing.T, r rig) {
		a := r.plain()
		a.gets("k")
		b, c, d := r.plain().waits("k", time.Minute), r.plain().waits("k", 10*time.Millisecond), r.plain().waits("k", time.Minute)
		r.Void("k", 0)
		require.Equal(t, rights.Granted, b.answered().outcome)
		time.Sleep(10 * time.Millisecond)
		require.Equal(t, rights.Alone, c.answered().outcome)

		pool := r.reader() // a connection that a SET comes by, and nobody claimed by
		r.Refused("k", &a.Holder)
		r.Refused("k", &pool.Holder)
		d.waiting()
		r.Refused("k", &pool.Holder)
		require.Equal(t, rights.Granted, d.answered().outcome, "a and c are back: it is the holder's")

		r.Void("k", 0) // nobody waits, d loads on
		held, _ := r.Sizes()
		require.Equal(t, 1, held)
		e := r.plain()
		e.gets("k")
		r.Refused("k", &d.Holder)
		f := r.plain().waits("k", time.Minute)
		f.waiting()
		r.Refused("k", &e.Holder)
		require.Equal(t, rights.Granted, f.answered().outcome)
		r.Refused("k", &f.Holder)
		held, _ = r.Sizes()
		require.Zero(t, held)
	})
}

func TestStragglersAreForgotten(t *testing.T) {
	in(t, func(t *testing.T, r rig) {
		r.plain().gets("k")
		r.Void("k", 0)
		r.Void("k", 0)
		r.Refused("other", new(rights.Holder))
		held, _ := r.Sizes()
		require.Equal(t, 1, held)
		r.Refused("k", new(rights.Holder))
		held, _ = r.Sizes()
		require.Zero(t, held)

		r.plain().gets("k")
		r.Void("k", 0)
		time.Sleep(term)
		r.reader().gets("other")
		held, _ = r.Sizes()
		require.Equal(t, 1, held, "a SET that never comes is waited for as long as a right")
	})
}

// A refused SET says nothing of a load that will come by a fill.
func TestRefusedSetBesideAFill(t *testing.T) {
	in(t, func(t *testing.T, r rig) {
		n := r.reader().gets("k")
		r.Refused("k", new(rights.Holder))
		require.True(t, r.Release("k", n))
	})
}
