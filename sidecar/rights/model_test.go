package rights_test

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nearside-cache/nearside/sidecar/rights"
)

// TestModel runs random histories of a small table. It checks after every step:
// at most one live holder per key; nobody who waits is forgotten, nor passed over;
// whoever has a right lost it only for a reason; memory is bounded.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"take":      m.take,
			"join":      m.join,
			"join ":     m.join,
			"join  ":    m.join,
			"give up":   m.giveUp,
			"release":   m.release,
			"filled":    m.filled,
			"unfit":     m.unfit,
			"refused":   m.refused,
			"brings":    m.brings,
			"void":      m.void,
			"purge":     m.purge,
			"doubt":     m.doubt,
			"leave":     m.leave,
			"pass time": m.passTime,
			"":          m.check,
		})
		m.close(rt)
	})
}

const (
	modelRights  = 2
	modelWaiting = 6
)

var modelKeys = []string{"p:a", "p:b", "q:a"}

type model struct {
	table   *rights.Table
	metrics *rights.Metrics
	now     time.Duration
	holders []*rights.Holder
	live    map[string]grant // who has the right, as far as readers were told
	queue   []place          // who waits, in the order of coming

	// Of the present step: the keys whose right has ended, and may have.
	ended, may map[string]bool
}

type grant struct {
	number, brings uint64
	holder         *rights.Holder
	end            time.Duration
	plain          bool
}

type place struct {
	*rights.Waiter
	key   string
	claim rights.Claim
}

func newModel(*rapid.T) *model {
	m := &model{metrics: rights.NewMetrics(prometheus.NewRegistry()), live: make(map[string]grant)}
	m.table = rights.New(rights.Config{
		Max: modelRights, Waiting: modelWaiting, Metrics: m.metrics, Clock: func() time.Duration { return m.now },
	})
	for range 4 {
		m.holders = append(m.holders, new(rights.Holder))
	}
	m.step()
	return m
}

func (m *model) step() { m.ended, m.may = make(map[string]bool), make(map[string]bool) }

func (m *model) key(t *rapid.T) string { return rapid.SampledFrom(modelKeys).Draw(t, "key") }

func (m *model) holder(t *rapid.T) *rights.Holder {
	return m.holders[rapid.IntRange(0, len(m.holders)-1).Draw(t, "holder")]
}

func (m *model) claim(t *rapid.T) rights.Claim {
	return rights.Claim{
		Holder: m.holder(t), Plain: rapid.Bool().Draw(t, "plain"),
		For: time.Duration(rapid.IntRange(1, 5).Draw(t, "for")) * time.Second,
	}
}

// granted is told of every grant that a reader learns of.
func (m *model) granted(t *rapid.T, key string, n uint64, c rights.Claim) {
	old, held := m.live[key]
	if held && old.number == n {
		require.Same(t, old.holder, c.Holder)
		return
	}
	if held && old.end > m.now {
		require.True(t, m.ended[key] || m.may[key], "%s was taken from its holder", key)
	}
	m.live[key] = grant{number: n, holder: c.Holder, end: m.now + c.For, plain: c.Plain}
	delete(m.ended, key)
}

func (m *model) take(t *rapid.T) {
	key, c := m.key(t), m.claim(t)
	n, o := m.table.Take(key, c)
	m.taken(t, key, c, n, o)
}

func (m *model) taken(t *rapid.T, key string, c rights.Claim, n uint64, o rights.Outcome) {
	m.wake(t) // of rights whose time was over
	g, held := m.live[key]
	switch o {
	case rights.Granted:
		m.granted(t, key, n, c)
	case rights.Busy:
		require.True(t, held && g.end > m.now && g.holder != c.Holder, "who has it?")
	default:
		require.Equal(t, rights.Alone, o)
	}
}

func (m *model) join(t *rapid.T) {
	key, c := m.key(t), m.claim(t)
	w, n, o := m.table.Join(key, c)
	m.taken(t, key, c, n, o)
	if w != nil {
		m.queue = append(m.queue, place{w, key, c})
	}
}

func (m *model) giveUp(t *rapid.T) {
	if len(m.queue) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.queue)-1).Draw(t, "waiter")
	_, o := m.table.GiveUp(m.queue[i].Waiter)
	require.Equal(t, rights.Alone, o)
	m.queue = slices.Delete(m.queue, i, i+1)
}

func (m *model) release(t *rapid.T) {
	key := m.key(t)
	n := m.live[key].number
	if rapid.IntRange(0, 3).Draw(t, "stale") == 0 {
		n++
	}
	if m.table.Release(key, n) {
		require.Equal(t, m.live[key].number, n)
		m.ended[key] = true
	}
}

func (m *model) all(t *rapid.T, key string, want rights.Outcome) {
	m.ended[key] = true
	m.queue = slices.DeleteFunc(m.queue, func(p place) bool {
		if p.key != key {
			return false
		}
		_, o, ok := p.Woken()
		require.True(t, ok && o == want, "%v %v", o, ok)
		return true
	})
}

func (m *model) filled(t *rapid.T) {
	key := m.key(t)
	m.table.Filled(key)
	m.all(t, key, rights.Again)
}

func (m *model) unfit(t *rapid.T) {
	key := m.key(t)
	m.table.Unfit(key)
	m.all(t, key, rights.Alone)
}

func (m *model) refused(t *rapid.T) {
	key, h := m.key(t), m.holder(t)
	m.table.Refused(key, h)
	m.ended[key] = m.live[key].holder == h
	m.may[key] = m.live[key].plain
}

func (m *model) brings(t *rapid.T) {
	key := m.key(t)
	g, held := m.live[key]
	if held {
		g.brings = rapid.Uint64Range(1, 3).Draw(t, "version")
		m.table.Brings(key, g.number, g.brings)
		m.live[key] = g
	}
}

func (m *model) void(t *rapid.T) {
	key, v := m.key(t), rapid.Uint64Range(0, 3).Draw(t, "version")
	m.table.Void(key, v)
	m.ended[key] = v == 0 || v > m.live[key].brings
}

func (m *model) purge(t *rapid.T) {
	wide := rapid.Bool().Draw(t, "domain")
	if wide {
		m.table.VoidAll()
	} else {
		m.table.VoidNamespace("p")
	}
	for _, key := range modelKeys {
		m.ended[key] = wide || key[0] == 'p'
	}
}

func (m *model) doubt(t *rapid.T) {
	m.table.Doubt()
	for _, key := range modelKeys {
		m.all(t, key, rights.Alone)
	}
}

// leave ends a holder, and another connection takes its place.
func (m *model) leave(t *rapid.T) {
	i := rapid.IntRange(0, len(m.holders)-1).Draw(t, "holder")
	gone := m.holders[i]
	m.holders[i] = new(rights.Holder)
	m.queue = slices.DeleteFunc(m.queue, func(p place) bool { // one ends after its waiting
		if p.claim.Holder == gone {
			m.table.GiveUp(p.Waiter)
		}
		return p.claim.Holder == gone
	})
	m.table.Leave(gone)
	for key, g := range m.live {
		m.ended[key] = g.holder == gone
	}
}

func (m *model) passTime(t *rapid.T) {
	m.now += time.Duration(rapid.IntRange(1, 3).Draw(t, "seconds")) * time.Second
	for _, p := range slices.Clone(m.queue) { // their timers fire
		m.table.Watch(p.Waiter)
	}
}

// wake takes those who were granted a right out of the queue, in its order.
func (m *model) wake(t *rapid.T) {
	first := make(map[string]bool)
	m.queue = slices.DeleteFunc(m.queue, func(p place) bool {
		n, o, ok := p.Woken()
		if ok {
			require.Equal(t, rights.Granted, o)
			require.False(t, first[p.key], "%s: one that came earlier was passed over, or two were granted it", p.key)
			m.granted(t, p.key, n, p.claim)
		}
		first[p.key] = true
		return ok
	})
}

func (m *model) check(t *rapid.T) {
	m.wake(t)
	for key, over := range m.ended {
		if over {
			delete(m.live, key)
		}
	}
	for key := range m.may {
		if g, held := m.live[key]; held && !m.has(key, g) {
			delete(m.live, key)
		}
	}
	for _, p := range m.queue {
		g, held := m.live[p.key]
		require.True(t, held && g.end > m.now, "%s: forgotten in the queue", p.key)
	}
	held, waiting := m.table.Sizes()
	require.LessOrEqual(t, held, modelRights)
	require.LessOrEqual(t, waiting, modelWaiting)
	require.Equal(t, len(m.queue), waiting)
	require.Equal(t, float64(waiting), value(m.metrics.Waiting))
	m.step()
}

// has asks the table whether a right is held still, without a change: its holder
// asks for what it has.
func (m *model) has(key string, g grant) bool {
	_, waiting := m.table.Sizes()
	if waiting > 0 && slices.ContainsFunc(m.queue, func(p place) bool { return p.key == key }) {
		return true // they wait for it
	}
	n, o := m.table.Take(key, rights.Claim{Holder: g.holder, For: time.Second})
	if o == rights.Granted && n != g.number {
		m.table.Release(key, n)
	}
	return n == g.number
}

func (m *model) close(t *rapid.T) {
	m.table.Close()
	held, waiting := m.table.Sizes()
	require.Zero(t, held)
	require.Zero(t, waiting)
	require.Zero(t, value(m.metrics.Held))
	for _, p := range m.queue {
		_, o, ok := p.Woken()
		require.True(t, ok && o == rights.Alone)
	}
}
