package l2_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar/l2"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

var (
	modelSeed  = flag.Uint64("l2.seed", 0, "replay this seed of the random model alone")
	modelSeeds = flag.Uint64("l2.seeds", 150, "how many seeds the random model runs")
)

// Pods put, vouch for, and acquire the right to load a few keys, while calls are
// late, lost or unanswered and replicas lag. An entry is never replaced by an older
// one, no more than so many hold the right to load a key, and nobody takes a right
// from another one but by storing an entry.
func TestRandomPods(t *testing.T) {
	first, last := uint64(1), *modelSeeds
	if *modelSeed != 0 {
		first, last = *modelSeed, *modelSeed
	}
	writes, rights := 0, 0
	for seed := first; seed <= last && !t.Failed(); seed++ {
		ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r := newModel(t, seed).run()
				writes, rights = writes+w, rights+r
			})
		})
		if !ok {
			t.Logf("replay with -l2.seed=%d", seed)
		}
	}
	if *modelSeed == 0 {
		require.Greater(t, writes, 1000, "entries were replaced")
		require.Greater(t, rights, 1000, "rights were given")
	}
}

const modelExpiry = 2 * time.Second

type model struct {
	t       *testing.T
	loaders int
	audit   *audit
	pods    []*modelPod

	mu     sync.Mutex
	rights map[string][]*l2.Right // by key
	given  int
}

type modelPod struct {
	*l2.Tier
	way    *faulty
	random *rand.Rand
}

func newModel(t *testing.T, seed uint64) *model {
	stream, err := membus.NewStream("default")
	require.NoError(t, err)
	b := stream.Attach(membus.Options{})
	shelf, err := b.Bucket(t.Context(), "shelf", bus.BucketConfig{})
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(seed, 0))
	m := &model{
		t: t, loaders: 1 + random.IntN(5), audit: &audit{t: t, shelf: shelf, released: map[uint64]bool{}}, rights: map[string][]*l2.Right{},
	}
	m.audit.loaders = m.loaders
	for i := range uint64(3) {
		p := &modelPod{way: newFaulty(shelf, m.audit, seed*10+i), random: rand.New(rand.NewPCG(seed, 2+i))}
		p.Tier, err = l2.New(only{p.way}, l2.Config{Policy: policy.L2{
			Bucket: "shelf", Loaders: m.loaders, LockExpiry: modelExpiry, TTL: 20 * time.Second, Timeout: 40 * time.Millisecond,
		}})
		require.NoError(t, err)
		m.pods = append(m.pods, p)
	}
	t.Cleanup(func() {
		for _, p := range m.pods {
			require.NoError(t, p.Close())
		}
		require.NoError(t, b.Close())
	})
	return m
}

// run returns how often an entry was replaced and a right given.
func (m *model) run() (writes, rights int) {
	time.Sleep(time.Second)
	var group sync.WaitGroup
	for _, p := range m.pods {
		group.Go(func() {
			for range 60 {
				p.way.set(p.random.IntN(3) > 0)
				m.step(p)
				time.Sleep(time.Duration(p.random.ExpFloat64() * float64(20*time.Millisecond)))
			}
		})
	}
	group.Wait()
	m.heal()
	m.audit.mu.Lock()
	defer m.audit.mu.Unlock()
	return m.audit.writes, m.given
}

func (m *model) step(p *modelPod) {
	ctx, key := m.t.Context(), "k"+string(rune('0'+p.random.IntN(2)))
	switch p.random.IntN(8) {
	case 0, 1, 2:
		_ = p.Put(key, p.entry())
	case 3:
		if e, found, _ := p.Get(ctx, key); found {
			up := e.Position
			up.Seq += 1 + p.random.Uint64N(3)
			_ = p.Vouch(ctx, key, e, up, p.random.Uint64())
		}
	case 4, 5:
		m.acquire(p, key)
	case 6:
		m.finish(p, key)
	case 7:
		time.Sleep(time.Duration(p.random.Int64N(int64(modelExpiry))))
	}
}

func (p *modelPod) entry() l2.Entry {
	n := p.random.Uint64N
	e := entry(1+int64(n(2)), 1+n(4), 1+n(5))
	e.Position.Epoch.Fork = n(2)
	if n(10) == 0 {
		e.TTL = time.Second
	}
	return e
}

func (m *model) acquire(p *modelPod, key string) {
	ctx := m.t.Context()
	e, _, err := p.Get(ctx, key)
	if err != nil {
		return
	}
	r, held, err := p.Acquire(ctx, key, e)
	if err != nil {
		return
	}
	if !held {
		_, _, _ = r.Wait(ctx)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.given++
	m.rights[key] = append(m.rights[key], r)
}

// finish ends some right of key, also one that has expired.
func (m *model) finish(p *modelPod, key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.rights[key]) == 0 {
		return
	}
	r := m.rights[key][p.random.IntN(len(m.rights[key]))]
	m.audit.releases(r.ID())
	switch p.random.IntN(4) {
	case 0:
		r.Barren()
	case 1:
		r.Release()
	default:
		_ = r.Put(p.entry())
	}
}

// heal ends all faults: then everybody gets on, sees the newest entry, and rights
// can be had.
func (m *model) heal() {
	for _, p := range m.pods {
		p.way.set(false)
	}
	time.Sleep(time.Minute)
	newest := entry(9, 9, 9)
	for i, p := range m.pods {
		e := newest
		e.Position.Seq = uint64(9 - i)
		require.NoError(m.t, p.Put("k0", e))
	}
	time.Sleep(time.Second)
	for _, p := range m.pods {
		e, found, err := p.Latest(m.t.Context(), "k0")
		require.NoError(m.t, err)
		require.True(m.t, found)
		require.Equal(m.t, newest.Position, e.Position)
		e, _, err = p.Get(m.t.Context(), "k0")
		require.NoError(m.t, err)
		r, held, err := p.Acquire(m.t.Context(), "k0", e)
		require.NoError(m.t, err)
		require.True(m.t, held)
		m.audit.releases(r.ID())
		r.Release()
		time.Sleep(time.Second)
	}
}
