package l2_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/embedded"
	"github.com/nearside-cache/nearside/bus/natsbus"
	"github.com/nearside-cache/nearside/sidecar/l2"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

const patience = 20 * time.Second

// onNATS runs pods on a real JetStream in this process.
func onNATS(t *testing.T, pods int, p policy.L2) []*l2.Tier {
	srv, err := embedded.Start(embedded.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Close()) })
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	p.Timeout = 5 * time.Second // machines that run tests are slow
	tiers := make([]*l2.Tier, pods)
	for i := range tiers {
		b, err := natsbus.Open(t.Context(), natsbus.Config{InProcess: srv, Stream: natsbus.StreamConfig{Subjects: subjects}})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, b.Close()) })
		tier, err := l2.New(b, l2.Config{Domain: "test", Namespace: "product", Policy: p})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, tier.Close()) })
		require.Eventually(t, func() bool { return tier.Stats().Up }, patience, time.Millisecond)
		tiers[i] = tier
	}
	return tiers
}

// Two pods store entries of the same keys, the one upwards, the other downwards:
// what stays is the newest.
func TestRaceOfPuts(t *testing.T) {
	pods := onNATS(t, 2, policy.L2{})
	const keys, versions = 4, 25
	var group sync.WaitGroup
	for i, p := range pods {
		group.Go(func() {
			for v := range versions {
				version := uint64(v + 1)
				if i == 1 {
					version = versions - uint64(v)
				}
				for k := range keys {
					if err := p.Put(fmt.Sprint("k", k), entry(1, version, version)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	require.Eventually(t, func() bool {
		done := uint64(0)
		for _, p := range pods {
			s := p.Stats()
			done += s.Stored + s.NotNewer + s.Dropped
		}
		return done == 2*keys*versions
	}, patience, time.Millisecond)
	for k := range keys {
		e, found, err := pods[0].Latest(t.Context(), fmt.Sprint("k", k))
		require.NoError(t, err)
		require.True(t, found)
		require.EqualValues(t, versions, e.Version)
	}
}

// Pods miss together, again and again: one loads, the others find what it stored.
func TestRaceOfLoads(t *testing.T) {
	pods := onNATS(t, 4, policy.L2{Wait: 10 * time.Second})
	const rounds = 10
	var mu sync.Mutex
	loads := map[int]int{}
	var group sync.WaitGroup
	for _, p := range pods {
		group.Go(func() {
			for round := range rounds {
				n, err := loadOnNATS(t, p, fmt.Sprint("k", round))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				loads[round] += n
				mu.Unlock()
			}
		})
	}
	group.Wait()
	for round := range rounds {
		require.Equal(t, 1, loads[round])
	}
}

func loadOnNATS(t *testing.T, p *l2.Tier, key string) (loads int, err error) {
	e, found, err := p.Get(t.Context(), key)
	for !found && err == nil {
		r, held, err := p.Acquire(t.Context(), key, e)
		if err != nil {
			return 0, err
		}
		if held {
			return 1, r.Put(entry(1, 1, 1))
		}
		if e, found, err = r.Wait(t.Context()); err != nil {
			return 0, err
		}
	}
	return 0, err
}

// Who outlives its right on a real server replaces no newer entry and frees no
// other's lock.
func TestPausedHolderOnNATS(t *testing.T) {
	pods := onNATS(t, 2, policy.L2{LockExpiry: time.Second, Wait: patience})
	taken := time.Now()
	paused, held, err := pods[0].Acquire(t.Context(), key, l2.Entry{})
	require.NoError(t, err)
	require.True(t, held)
	waiting, held, err := pods[1].Acquire(t.Context(), key, l2.Entry{})
	require.NoError(t, err)
	require.False(t, held)
	begun := time.Now()
	_, found, err := waiting.Wait(t.Context())
	require.NoError(t, err)
	require.False(t, found)
	require.Less(t, time.Since(begun), patience, "the lock has expired")
	require.GreaterOrEqual(t, time.Since(taken), time.Second, "and not too early")

	next, held, err := pods[1].Acquire(t.Context(), key, l2.Entry{})
	require.NoError(t, err)
	require.True(t, held)
	require.Greater(t, next.At(), paused.At())
	require.NoError(t, pods[1].Put(key, entry(1, 2, 20)))
	require.Eventually(t, func() bool { return pods[1].Stats().Stored == 1 }, patience, time.Millisecond)
	require.NoError(t, paused.Put(entry(1, 1, 10)))
	require.Eventually(t, func() bool { return pods[0].Stats().NotNewer == 1 }, patience, time.Millisecond)
	e, found, err := pods[0].Latest(t.Context(), key)
	require.NoError(t, err)
	require.True(t, found)
	require.EqualValues(t, 2, e.Version)
}
