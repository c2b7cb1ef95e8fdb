package refresh_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/refresh"
)

// model is what must hold of a Queue, whatever is added and however long loads take.
type model struct {
	*bench
	t       *testing.T
	rnd     *rand.Rand
	limits  map[string]int
	workers int
	due     map[string]time.Duration // the earliest due of what is queued
	loading map[string]int           // by namespace
	busy    map[string]bool          // by key
	refused int                      // Adds that returned false
}

const mostQueued = 6

func (m *model) add() {
	keys := []string{"a:1", "a:2", "a:3", "a:4", "b:1", "b:2", "c:1", "d", "e"}
	key := keys[m.rnd.IntN(len(keys))]
	due := m.now() + time.Duration(m.rnd.IntN(8)-2)*time.Second
	synctest.Wait() // what was begun is known as begun
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.Add(key, due, float64(m.rnd.IntN(4))) {
		m.refused++
		return
	}
	if old, queued := m.due[key]; queued {
		due = min(due, old)
	}
	m.due[key] = due
}

// load checks a load that begins, and what else is under way.
func (m *model) load(_ context.Context, key string) error {
	ns := bus.NamespaceOf(key)
	m.mu.Lock()
	due, known := m.due[key]
	delete(m.due, key)
	m.loading[ns]++
	m.must(known, "%s was loaded, and not queued", key)
	m.must(m.now() >= due, "%s was loaded before it was due", key)
	m.must(!m.busy[key], "%s was loaded twice at the same time", key)
	m.must(m.loading[ns] <= min(m.limits[ns], m.workers-1), "%d loads of %s at once", m.loading[ns], ns)
	m.busy[key] = true
	m.must(len(m.busy) <= m.workers, "%d loads at once", len(m.busy))
	m.mu.Unlock()
	time.Sleep(time.Duration(len(key)+int(key[0])%3) * 700 * time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loading[ns]--
	delete(m.busy, key)
	return nil
}

// must fails the test, on any goroutine.
func (m *model) must(ok bool, format string, args ...any) {
	if !ok {
		m.t.Errorf(format, args...)
	}
}

func TestQueueKeepsItsPromises(t *testing.T) {
	base := rand.Uint64()
	for seed := base; seed < base+300 && !t.Failed(); seed++ {
		synctest.Test(t, func(t *testing.T) {
			walk(t, rand.New(rand.NewPCG(seed, 0)))
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
	}
}

// walk does things at random.
func walk(t *testing.T, rnd *rand.Rand) {
	m := &model{
		t: t, rnd: rnd, workers: 2 + rnd.IntN(4), limits: map[string]int{"a": 2, "b": 1, "c": 9, bus.DefaultNamespace: 1},
		due: map[string]time.Duration{}, loading: map[string]int{}, busy: map[string]bool{},
	}
	m.bench = newBench(refresh.Config{Memory: mostQueued * (512 + 2*3), Workers: m.workers, Limit: func(ns string) int { return m.limits[ns] }})
	m.run(m.load)
	defer m.stop()
	for range 1 + rnd.IntN(60) {
		if rnd.IntN(3) > 0 {
			m.add()
		} else {
			time.Sleep(time.Duration(1+rnd.IntN(3000)) * time.Millisecond)
		}
		m.must(m.Len() <= mostQueued, "%d keys are queued", m.Len())
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	m.atRest()
}

// atRest checks that nothing was forgotten and everything counted.
func (m *model) atRest() {
	queued, started := count(m.metrics.Queued), count(m.metrics.Started)
	displaced := count(m.metrics.Dropped) - float64(m.refused)
	m.must(m.Len() == 0 && len(m.busy) == 0, "%d keys are queued still, %d under way", m.Len(), len(m.busy))
	m.must(refresh.Lanes(m.Queue) == 0, "namespaces are kept that have nothing to do")
	m.must(queued == started+displaced, "%v queued, %v started, %v dropped", queued, started, displaced)
}
