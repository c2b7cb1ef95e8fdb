package coherence_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// TestModel runs random histories of one sidecar against an oracle that knows
// every value's true age. A failure is shrunk to its shortest history and
// printed with the command that replays it.
//
// It checks, after every step and for every key:
//
//	I1, I11  no alive entry is older than the newest version, of its key (I1) or of
//	    what it hangs on (I11), among applied events
//	I2  values served within one life of the sidecar never go back
//	I4  after an own write no alive entry is older than that write
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt)
		rt.Repeat(map[string]func(*rapid.T){
			// Named twice: drawn twice as often.
			"read":      m.read,
			"read ":     m.read,
			"fill":      m.fill,
			"load":      m.load,
			"store":     m.store,
			"store ":    m.store,
			"commit":    m.commit,
			"publish":   m.publish,
			"apply":     m.apply,
			"tell":      m.tell,
			"own write": m.ownWrite,
			"evict":     m.evict,
			"lose":      m.lose,
			"resume":    m.resume,
			"restart":   m.restart,
			"pass time": m.passTime,
			"":          m.check,
		})
	})
}

var (
	modelKeys = []string{"p:a", "q:a"}
	modelTags = []string{"tag"}
)

// truth is the value of a source, a key or a tag: how many commits it has seen.
// Whether a key's loads tell the version is fixed per run.
type truth = uint64

// truths is what a value was made of: its own key, and what it hangs on.
type truths map[string]truth

// merge adds another value's parts; the older one of each counts.
func (t truths) merge(o truths) {
	for src, v := range o {
		if have, ok := t[src]; !ok || v < have {
			t[src] = v
		}
	}
}

// reader is a client between its miss and its fill.
type reader struct {
	key    string
	missed time.Duration
	lease  *coherence.Lease // nil: a plain client
	loaded bool
	value  truths // what it rests on
	own    truth  // of its key, beside what others hold that it depends on
	lag    time.Duration

	tags, depends []string
}

// published is an event in the stream, with what it stands for.
type published struct {
	delivery bus.Delivery
	truth    map[string]truth
	at       time.Duration
}

type shelved struct {
	stamp coherence.Stamp
	value truths
	own   truth
}

type model struct {
	cfg       coherence.Config
	core      *coherence.Core
	shelf     map[string]shelved
	now       time.Duration
	versioned map[string]bool
	lag       time.Duration

	commits map[string][]time.Duration // when each version of a key was committed
	unsent  []published                // committed, not yet in the stream
	stream  []published                // stream[i] has seq i+1
	epoch   bus.Epoch
	inDoubt bool
	readers []*reader

	mustHave map[string]truth // by applied events: I1, I11
	owes     map[string]truth // by own writes: I4
	served   map[string]truth // I2
}

func newModel(rt *rapid.T) *model {
	m := &model{
		cfg:       config(),
		versioned: make(map[string]bool),
		commits:   make(map[string][]time.Duration),
		epoch:     bus.Epoch{Created: 1},
		lag:       rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(rt, "replica lag"),
	}
	m.cfg.MaxFences = rapid.IntRange(1, 4).Draw(rt, "fences")
	m.cfg.MaxMisses = rapid.IntRange(1, 3).Draw(rt, "misses")
	for _, key := range modelKeys {
		m.versioned[key] = rapid.Bool().Draw(rt, "versioned "+key)
		m.commits[key] = []time.Duration{-time.Hour}
	}
	for _, tag := range modelTags {
		m.commits[tag] = []time.Duration{-time.Hour}
	}
	m.begin(true)
	m.resume(rt)
	return m
}

func (m *model) begin(firstLife bool) {
	m.cfg.FirstLife = firstLife
	m.cfg.Incarnation += 1000
	m.shelf = make(map[string]shelved)
	m.served = make(map[string]truth)
	m.mustHave, m.owes = make(map[string]truth), make(map[string]truth)
	m.core = coherence.New(m.cfg, m)
	m.inDoubt = true
}

// Stamp and Drop make the model the core's view of its store.
func (m *model) Stamp(key string) (coherence.Stamp, bool) {
	s, ok := m.shelf[key]
	return s.stamp, ok
}

func (m *model) Drop(key string) { delete(m.shelf, key) }

// Replace is never called: the model's events carry no values.
func (m *model) Replace(string, coherence.Stamp, bus.Event) { panic("an update") }

func key(rt *rapid.T) string { return rapid.SampledFrom(modelKeys).Draw(rt, "key") }

// read is a client's GET that misses; it becomes a reader, with a lease or plain.
func (m *model) read(rt *rapid.T) {
	k := key(rt)
	if s, ok := m.shelf[k]; ok && m.core.Horizon().Alive(k, s.stamp) {
		rt.Skip("a hit")
	}
	r := &reader{key: k, missed: m.now, lag: m.lag}
	if rapid.Bool().Draw(rt, "with lease") {
		l := m.core.Lease(m.now, r.lag)
		r.lease = &l
		if rapid.Bool().Draw(rt, "tagged") {
			r.tags = modelTags
		}
		if rapid.Bool().Draw(rt, "depends") {
			r.depends = slices.DeleteFunc(slices.Clone(modelKeys), func(o string) bool { return o == k })
		}
	} else {
		m.core.Miss(k, m.now, r.lag)
	}
	m.readers = append(m.readers, r)
	if rapid.Bool().Draw(rt, "loads at once") {
		m.loadInto(rt, r)
	}
}

func (m *model) reader(rt *rapid.T, loaded bool) (int, *reader) {
	var those []int
	for i, r := range m.readers {
		if r.loaded == loaded {
			those = append(those, i)
		}
	}
	if len(those) == 0 {
		rt.Skip("no such reader")
	}
	i := rapid.SampledFrom(those).Draw(rt, "reader")
	return i, m.readers[i]
}

// load reads the source of truth: its primary, or a replica that lags.
func (m *model) load(rt *rapid.T) {
	_, r := m.reader(rt, false)
	m.loadInto(rt, r)
}

func (m *model) loadInto(rt *rapid.T, r *reader) {
	r.loaded = true
	r.own = m.source(rt, r, r.key)
	r.value = truths{r.key: r.own}
	for _, tag := range r.tags {
		r.value[tag] = m.source(rt, r, tag)
	}
	for _, dep := range r.depends {
		if s, ok := m.shelf[dep]; ok && m.core.Horizon().Alive(dep, s.stamp) {
			r.value.merge(s.value)
		} else {
			r.value.merge(truths{dep: m.source(rt, r, dep)})
		}
	}
}

// source reads one source at its primary, or at a replica that lags.
func (m *model) source(rt *rapid.T, r *reader, name string) truth {
	commits := m.commits[name]
	newest := truth(len(commits) - 1)
	oldest := newest
	for oldest > 0 && commits[oldest] > m.now-r.lag {
		oldest--
	}
	return rapid.Uint64Range(oldest, newest).Draw(rt, "value of "+name)
}

// store brings a reader's value: a fill with its lease, or a plain SET within
// the window.
func (m *model) store(rt *rapid.T) {
	i, _ := m.reader(rt, true)
	m.storeOf(i)
}

// fill is a read, its load and its store in one go: long histories need quick steps.
func (m *model) fill(rt *rapid.T) {
	m.read(rt)
	if last := m.readers[len(m.readers)-1]; !last.loaded {
		m.loadInto(rt, last)
	}
	m.storeOf(len(m.readers) - 1)
}

// storeOf is store for the reader at i.
func (m *model) storeOf(i int) {
	r := m.readers[i]
	m.readers = slices.Delete(m.readers, i, i+1)
	var (
		stamp   coherence.Stamp
		verdict coherence.Verdict
	)
	switch {
	case r.lease != nil:
		stamp, verdict = m.core.Fill(coherence.Fill{
			Key: r.key, Lease: *r.lease, Version: m.version(r.key, r.own), Tags: r.tags, Depends: r.depends,
		}, m.now)
	case m.now-r.missed <= window:
		stamp, verdict = m.core.PlainSet(r.key, coherence.SetFill, m.now, r.lag)
	default:
		return // later than what C3 assumes
	}
	if verdict == coherence.Stored {
		m.shelf[r.key] = shelved{stamp: stamp, value: r.value, own: r.own}
	}
}

func (m *model) version(k string, v truth) uint64 {
	if m.versioned[k] {
		return v + 1
	}
	return 0
}

// commit changes the source; its event is published later.
func (m *model) commit(rt *rapid.T) {
	src := rapid.SampledFrom(append(slices.Clone(modelKeys), modelTags...)).Draw(rt, "source")
	m.unsent = append(m.unsent, m.write(src, rapid.Bool().Draw(rt, "event with version")))
}

// tell is a commit that is published in one go, and the next event applied.
func (m *model) tell(rt *rapid.T) {
	if m.inDoubt {
		rt.Skip("in doubt") // before anything is done: what skips is not replayed
	}
	m.commit(rt)
	m.publish(rt)
	m.apply(rt)
}

func (m *model) write(src string, withVersion bool) published {
	m.commits[src] = append(m.commits[src], m.now)
	v := truth(len(m.commits[src]) - 1)
	p := published{truth: map[string]truth{src: v}}
	if slices.Contains(modelTags, src) {
		p.delivery = bus.Delivery{Namespace: "p", Event: bus.Event{Tags: []string{src}}}
		return p
	}
	kv := bus.KeyVersion{Key: src}
	if withVersion {
		kv.Version = m.version(src, v)
	}
	p.delivery = bus.Delivery{Namespace: bus.NamespaceOf(src), Event: bus.Event{Keys: []bus.KeyVersion{kv}}}
	return p
}

// publish appends one of the pending events to the stream, in any order, now
// and then as a purge or as something that cannot be decoded.
func (m *model) publish(rt *rapid.T) {
	if len(m.unsent) == 0 {
		rt.Skip("nothing to publish")
	}
	i := rapid.IntRange(0, len(m.unsent)-1).Draw(rt, "event")
	p := m.unsent[i]
	m.unsent = slices.Delete(m.unsent, i, i+1)
	if keys := p.delivery.Event.Keys; len(keys) > 0 {
		switch rapid.IntRange(0, 9).Draw(rt, "kind") {
		case 0:
			p.delivery.Event = bus.Event{Op: bus.OpFlush}
		case 1:
			p.delivery.Event, p.delivery.Err = bus.Event{}, bus.ErrTooLarge
		case 2:
			p.delivery.Event = bus.Event{Prefix: keys[0].Key}
		case 3:
			p.delivery.Event, p.delivery.Namespace = bus.Event{Op: bus.OpFlush}, "" // the domain
		}
	}
	m.append(p)
}

func (m *model) append(p published) {
	p.at = m.now
	p.delivery.Position.Seq = uint64(len(m.stream) + 1)
	m.stream = append(m.stream, p)
}

func (m *model) apply(rt *rapid.T) {
	seq := m.core.Applied().Seq
	if m.inDoubt || seq >= uint64(len(m.stream)) {
		rt.Skip("nothing to apply")
	}
	p := m.stream[seq]
	p.delivery.Position.Epoch = m.epoch
	m.core.Apply(p.delivery, m.now)
	m.learn(p)
}

func (m *model) learn(p published) {
	for k, v := range p.truth {
		m.mustHave[k] = max(m.mustHave[k], v)
	}
}

// ownWrite is a DEL on this sidecar after a commit; publishing it may fail.
func (m *model) ownWrite(rt *rapid.T) {
	k := key(rt)
	p := m.write(k, false)
	m.core.OwnWrite(k, m.now)
	m.owes[k] = max(m.owes[k], p.truth[k])
	if rapid.Bool().Draw(rt, "publish succeeds") {
		m.append(p)
	} else {
		m.unsent = append(m.unsent, p) // another writer's retry, or nobody's
	}
}

func (m *model) evict(rt *rapid.T) {
	k := key(rt)
	s, ok := m.shelf[k]
	if !ok {
		rt.Skip("not resident")
	}
	delete(m.shelf, k)
	if rapid.IntRange(0, 9).Draw(rt, "unknown") == 0 {
		m.core.EvictedUnknown(m.now)
		return
	}
	m.core.Evicted(k, s.stamp, m.now)
}

// lose puts the sidecar in doubt, now and then because the stream was created
// again.
func (m *model) lose(rt *rapid.T) {
	if m.inDoubt {
		rt.Skip("in doubt already")
	}
	m.core.Doubt(m.now)
	m.inDoubt = true
	if rapid.IntRange(0, 3).Draw(rt, "recreated") == 0 {
		m.epoch.Created++
	}
}

// resume continues at the stream's end, after a start pulse.
func (m *model) resume(rt *rapid.T) {
	if !m.inDoubt {
		rt.Skip("not in doubt")
	}
	m.append(published{delivery: bus.Delivery{Event: bus.Event{Op: bus.OpPulse}}})
	r := bus.Resume{Position: bus.Position{Epoch: m.epoch, Seq: uint64(len(m.stream))}}
	r.HistoryFrom = r.Position.Seq
	for i := len(m.stream) - 1; i >= 0 && m.stream[i].at >= m.now-2*window; i-- {
		r.HistoryFrom = uint64(i)
	}
	if rapid.IntRange(0, 3).Draw(rt, "history lost") == 0 {
		r.Blind, r.HistoryFrom = 2*window, r.Position.Seq
	}
	for _, p := range m.stream[r.HistoryFrom:] {
		p.delivery.Position.Epoch = m.epoch
		r.History = append(r.History, p.delivery)
	}
	m.core.Resume(r, m.now)
	m.inDoubt = false
	for _, p := range m.stream {
		m.learn(p)
	}
}

func (m *model) restart(*rapid.T) {
	m.begin(false)
	for _, r := range m.readers {
		if r.lease != nil {
			r.missed -= 2 * window // leases of the earlier life come all the same
		}
	}
}

func (m *model) passTime(rt *rapid.T) {
	m.now += rapid.SampledFrom([]time.Duration{
		time.Millisecond, window / 40, window / 3, window, 3 * window,
	}).Draw(rt, "time")
}

// check takes every alive entry for served: storing counts as serving.
func (m *model) check(rt *rapid.T) {
	for _, k := range modelKeys {
		s, held := m.shelf[k]
		if !held || !m.core.Horizon().Alive(k, s.stamp) {
			continue
		}
		sources := append([]string{k}, slices.Sorted(maps.Keys(s.value))...)
		for i, src := range sources {
			invariant := "I11"
			if i == 0 {
				invariant = "I1"
			}
			require.GreaterOrEqual(rt, s.value[src], m.mustHave[src], "%s: as to %s, %s", invariant, src, m.explain(k))
		}
		for _, src := range sources {
			require.GreaterOrEqual(rt, s.value[src], m.owes[src], "I4: as to %s, %s", src, m.explain(k))
		}
		// Of keys that depend on each other one may rest on an older value of its own.
		require.GreaterOrEqual(rt, s.own, m.served[k], "I2: went back: %s", m.explain(k))
		m.served[k] = s.own
	}
}

func (m *model) explain(k string) string {
	return fmt.Sprintf("%s holds %v, events say %v, own writes %v: %+v", k, m.shelf[k].value, m.mustHave, m.owes, m.core.Explain(k, m.now))
}
