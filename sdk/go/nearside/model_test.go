package nearside_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sdk/go/nearside"
)

var (
	modelSeed  = flag.Uint64("model.seed", 0, "run TestL0Model with this seed only")
	modelSeeds = flag.Int("model.seeds", 12, "how many seeds TestL0Model runs")
	modelSteps = flag.Int("model.steps", 2500, "how many steps TestL0Model makes with a seed")
)

const modelL0Bound = 4 * time.Second

var modelKeys = []string{"a:1", "a:2", "a:x:1", "a:x:2", "b:1", "b:link", "plain"}

// bounds is how stale a plain read of a key may be.
func bounds(key string) time.Duration {
	switch key {
	case "plain":
		return 0 // class critical
	case "a:2":
		return time.Second
	}
	return 3 * time.Second
}

// model is a world around one client with an L0: a source whose versions only grow, a
// stream of events, and a sidecar that keeps what docs/protocol.md says that it owes,
// and delays, reorders and breaks what that allows. It knows what each read may return.
type model struct {
	t *testing.T
	r *rand.Rand
	f *fake
	c *nearside.Client

	mu     sync.Mutex
	p      *peer     // the open connection
	inbox  []request // that the sidecar has not looked at
	out    [][]byte  // frames that are on their way to the client, in their order
	awaits []request // own writes whose event is not applied
	source map[string]uint64
	log    []modelEvent // acknowledged; the seq is the index plus 1

	applied int // events, by the sidecar
	held    map[string]uint64
	tracked map[string]bool
	linked  bool // the sidecar has told of the connection's tracking: L0 may serve

	seen map[string]uint64 // what finished reads have returned
	own  map[string]uint64 // what finished writes have written

	hits, answers, writes, cuts int
}

type request struct {
	h   near.Header
	m   near.Message
	seq int
}

type modelEvent struct {
	versions map[string]uint64
	push     near.Invalidated
	acked    time.Duration
}

// Whatever a sidecar that keeps its word sends, and however it comes: no hit of L0
// returns less than the read asked for (I5, I8), less than this client has seen (I2) or
// written (I4), or less than what it was told (I1).
func TestL0Model(t *testing.T) {
	seeds := make([]uint64, *modelSeeds)
	for i := range seeds {
		seeds[i] = rand.Uint64()
	}
	if *modelSeed != 0 {
		seeds = []uint64{*modelSeed}
	}
	hits, cuts := 0, 0
	for _, seed := range seeds {
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t, seed)
				for range *modelSteps {
					m.step()
				}
				m.finish()
				hits, cuts = hits+m.hits, cuts+m.cuts
			})
		})
		if !ok {
			t.Logf("again: go test ./sdk/go/nearside -run TestL0Model -model.seed %d", seed)
			return
		}
	}
	t.Logf("%d hits of L0, %d broken connections", hits, cuts)
	require.Greater(t, hits, 50*len(seeds))
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), f: newFake(), source: map[string]uint64{}, held: map[string]uint64{},
		tracked: map[string]bool{}, seen: map[string]uint64{}, own: map[string]uint64{},
	}
	m.f.hooked(func(p *peer, h near.Header, r near.Message) bool {
		if _, hello := r.(*near.Hello); hello {
			return false
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if p != m.p {
			m.p, m.inbox, m.out, m.awaits, m.tracked = p, nil, nil, nil, map[string]bool{}
		}
		m.inbox = append(m.inbox, request{h: h, m: r})
		return true
	})
	m.c = m.f.open(t, nearside.Options{
		Timeout: 24 * time.Hour, WriteTimeout: 24 * time.Hour, L0: &nearside.L0Options{Bound: modelL0Bound, MaxEntries: 100},
	})
	for _, k := range modelKeys {
		m.source[k] = 1
	}
	return m
}

// step does one of the things that may happen next, and lets the client take it in.
func (m *model) step() {
	m.mu.Lock()
	var act func()
	switch n := m.r.IntN(100); {
	case n < 40:
		act = m.read()
	case n < 55:
		m.look()
	case n < 70:
		act = m.deliver(1 + m.r.IntN(4))
	case n < 76:
		m.publish()
	case n < 84:
		m.apply()
	case n < 90:
		m.fresh()
	case n < 92:
		act = m.write()
	case n < 94:
		m.disturb()
	case n < 95 && m.r.IntN(4) == 0:
		act = m.cut()
	default:
		d := time.Duration(m.r.IntN(300)) * time.Millisecond
		act = func() { time.Sleep(d) }
	}
	m.mu.Unlock()
	if act != nil {
		act()
	}
	synctest.Wait()
}

// finish lets everything end that is under way.
func (m *model) finish() {
	for range 10_000 {
		m.mu.Lock()
		m.look()
		m.apply()
		act := m.deliver(len(m.out))
		done := len(m.inbox)+len(m.awaits) == 0
		m.mu.Unlock()
		act()
		synctest.Wait()
		if done {
			break
		}
	}
	require.NoError(m.t, m.c.Close())
	synctest.Wait()
}

func (m *model) key() string { return modelKeys[m.r.IntN(len(modelKeys))] }

// asOf is the moment before which everything that was acknowledged is applied.
func (m *model) asOf() time.Duration {
	if m.applied < len(m.log) {
		return m.log[m.applied].acked
	}
	return elapsed()
}

func (m *model) token() string { return fmt.Sprintf("1-0-%x", m.applied) }

func (m *model) send(k near.Kind, id uint32, msg near.Message) {
	if m.p != nil {
		m.out = append(m.out, near.Append(nil, k, id, msg))
	}
}

// publish commits new versions and acknowledges their event, in one or many keys.
func (m *model) publish() {
	e := modelEvent{versions: map[string]uint64{}, acked: elapsed()}
	name := ""
	switch m.r.IntN(8) {
	case 0:
		name, e.push.Scope = "a:x:", near.Prefix
	case 1:
		name, e.push.Scope = "a", near.Namespace
	case 2:
		name, e.push.Scope = "default", near.Namespace
	case 3:
		e.push.Scope = near.Linked
	default:
		name, e.push.Scope = m.key(), near.Keys
	}
	if name != "" {
		e.push.Names = [][]byte{[]byte(name)}
	}
	for _, k := range modelKeys {
		in := e.push.Scope == near.Keys && k == name || e.push.Scope == near.Prefix && strings.HasPrefix(k, name) ||
			e.push.Scope == near.Namespace && near.NamespaceOf(k) == name || e.push.Scope == near.Linked && strings.HasSuffix(k, "link")
		if in {
			m.source[k]++
			e.versions[k] = m.source[k]
		}
	}
	m.log = append(m.log, e)
}

// apply has the sidecar apply the next event (O2), and answer the write that waits for
// it (O4).
func (m *model) apply() {
	if m.applied == len(m.log) {
		return
	}
	e := m.log[m.applied]
	m.applied++
	told := e.push.Scope != near.Keys && len(m.tracked) > 0
	for k, version := range e.versions {
		if m.held[k] < version {
			delete(m.held, k)
		}
		if e.push.Scope == near.Keys && m.tracked[k] {
			delete(m.tracked, k)
			told = true
		}
	}
	if told {
		m.send(near.KindInvalidated, 0, &e.push)
	}
	var left []request
	for _, w := range m.awaits {
		if w.seq > m.applied {
			left = append(left, w)
			continue
		}
		m.send(w.h.Kind.Answer(), w.h.ID, &near.Written{Token: m.token()})
	}
	m.awaits = left
}

// fresh tells up to where everything has been told (O3).
func (m *model) fresh() {
	if m.linked {
		m.send(near.KindFresh, 0, &near.Fresh{AsOf: m.asOf(), Applied: m.token()})
	}
}

// look has the sidecar take up a request, any of those that came.
func (m *model) look() {
	if len(m.inbox) == 0 {
		return
	}
	i := m.r.IntN(len(m.inbox))
	q := m.inbox[i]
	m.inbox = append(m.inbox[:i:i], m.inbox[i+1:]...)
	switch r := q.m.(type) {
	case *near.Track:
		m.linked = true
		m.send(q.h.Kind.Answer(), q.h.ID, &near.Fresh{AsOf: m.asOf(), Applied: m.token()})
	case *near.Get:
		m.answers++
		v := m.value(string(r.Key))
		m.send(q.h.Kind.Answer(), q.h.ID, &v)
	case *near.Gets:
		var all near.Values
		for _, k := range r.Keys {
			all.Items = append(all.Items, m.value(string(k)))
		}
		m.send(q.h.Kind.Answer(), q.h.ID, &all)
	case *near.Invalidate:
		k, version := string(r.Keys[0].Key), r.Keys[0].Version
		m.replaced(k, near.ByWrite)
		delete(m.held, k)
		m.log = append(m.log, modelEvent{
			versions: map[string]uint64{k: version}, acked: elapsed(),
			push: near.Invalidated{Scope: near.Keys, Names: [][]byte{[]byte(k)}},
		})
		q.seq = len(m.log)
		m.awaits = append(m.awaits, q)
	}
}

// value is what the sidecar answers about a key; one that it does not hold it loads.
func (m *model) value(key string) near.Value {
	if m.held[key] == 0 {
		m.held[key] = m.source[key]
	}
	v := near.Value{Status: near.Hit, Version: m.held[key], AsOf: m.asOf(), Bound: bounds(key)}
	v.Value = fmt.Appendf(nil, "%s@%d", key, v.Version)
	delete(m.tracked, key)
	if m.linked && m.r.IntN(10) > 0 {
		v.Flags |= near.Cacheable
		m.tracked[key] = true
	}
	if strings.HasSuffix(key, "link") {
		v.Flags |= near.Links
	}
	if m.r.IntN(4) == 0 {
		v.Until = elapsed() + time.Duration(1+m.r.IntN(1000))*time.Millisecond
	}
	return v
}

// replaced tells that a tracked key has another value now.
func (m *model) replaced(key string, why near.Reason) {
	if m.tracked[key] {
		delete(m.tracked, key)
		m.send(near.KindInvalidated, 0, &near.Invalidated{Scope: near.Keys, Reason: why, Names: [][]byte{[]byte(key)}})
	}
}

// disturb does what has no event: another value takes a key's place, the table of
// tracked keys overflows, the sidecar is in doubt, it says something new.
func (m *model) disturb() {
	key := m.key()
	switch m.r.IntN(4) {
	case 0:
		m.source[key]++ // committed, and not published yet
		m.held[key] = m.source[key]
		m.replaced(key, near.Replaced)
	case 1:
		m.replaced(key, near.Untracked)
	case 2:
		m.held, m.tracked = map[string]uint64{}, map[string]bool{}
		m.send(near.KindInvalidated, 0, &near.Invalidated{Scope: near.Everything, Reason: near.ByDoubt})
	case 3:
		m.send(0x9f, 0, &near.None{})
	}
}

// deliver brings the next frames to the client.
func (m *model) deliver(n int) func() {
	n = min(n, len(m.out))
	p, frames := m.p, m.out[:n]
	m.out = m.out[n:]
	return func() {
		for _, b := range frames {
			p.raw(b)
		}
	}
}

// cut breaks the connection, within a frame perhaps.
func (m *model) cut() func() {
	p := m.p
	if p == nil {
		return nil
	}
	var part []byte
	if len(m.out) > 0 {
		part = m.out[0][:m.r.IntN(len(m.out[0]))]
	}
	m.p, m.inbox, m.out, m.awaits, m.tracked, m.linked = nil, nil, nil, nil, map[string]bool{}, false
	m.cuts++
	return func() {
		p.raw(part)
		p.nc.Close()
	}
}

// write commits a version and has the client publish it.
func (m *model) write() func() {
	key := m.key()
	m.source[key]++
	version := m.source[key]
	m.writes++
	return func() {
		go func() {
			if _, err := m.c.Invalidate(m.t.Context(), nearside.Key(key, version)); err == nil {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.own[key] = max(m.own[key], version)
			}
		}()
	}
}

// read begins a read, of one key or two, and says what it must return at least.
func (m *model) read() func() {
	keys := []string{m.key(), m.key()}[:1+m.r.IntN(8)/7]
	option, stale, seq, l0 := nearside.Wait(0), time.Duration(-1), 0, true
	switch m.r.IntN(6) {
	case 0:
		option, stale = nearside.Any(), modelL0Bound
	case 1:
		stale = time.Duration(m.r.IntN(2000)) * time.Millisecond
		option = nearside.MaxStale(stale)
	case 2:
		option, l0 = nearside.Strong(), false
	case 3:
		seq = m.r.IntN(len(m.log) + 1)
		option = nearside.AtLeast(nearside.Token(fmt.Sprintf("1-0-%x", seq)))
	}
	l0 = l0 && m.linked
	floors, least := map[string]uint64{}, map[string]uint64{}
	for _, k := range keys {
		bound := stale
		if bound < 0 {
			bound = bounds(k)
		}
		least[k] = max(m.seen[k], m.own[k])
		for i, e := range m.log {
			if e.acked < elapsed()-min(bound, modelL0Bound) || i < seq {
				floors[k] = max(floors[k], e.versions[k])
			}
		}
	}
	return func() {
		go func() {
			ctx, cancel := context.WithTimeout(m.t.Context(), time.Hour)
			defer cancel()
			answers := make([]nearside.Answer, 1)
			var err error
			if len(keys) == 1 {
				answers[0], err = m.c.Get(ctx, keys[0], option)
			} else {
				answers, err = m.c.GetMany(ctx, keys, option)
			}
			if err != nil {
				return
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			for i, k := range keys {
				m.judge(k, answers[i], least[k], floors[k], l0)
			}
		}()
	}
}

func (m *model) judge(key string, a nearside.Answer, least, floor uint64, l0 bool) {
	assert.Equal(m.t, fmt.Sprintf("%s@%d", key, a.Version), string(a.Value))
	assert.GreaterOrEqual(m.t, a.Version, least, "I2, I4: %s goes back", key)
	if a.FromL0 {
		m.hits++
		assert.True(m.t, l0, "I8: %s from an L0 without a connection, or for STRONG", key)
		assert.GreaterOrEqual(m.t, a.Version, floor, "I5: %s", key)
		assert.LessOrEqual(m.t, a.Age, modelL0Bound)
	}
	m.seen[key] = max(m.seen[key], a.Version)
}
