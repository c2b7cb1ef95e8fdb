package cache_test

import (
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/l2"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// shared is some pods with a shared tier, each with an origin of its own to count
// what it is asked. Events are applied where the test says.
type shared struct {
	t      *testing.T
	stream *membus.Stream
	change func(*policy.Namespace)
	pods   []*pod
}

type pod struct {
	*loading
	bus *membus.Bus
}

func withTier(t *testing.T, change func(*policy.Namespace), test func(*testing.T, *shared)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &shared{t: t, stream: sidecartest.NewStream(t), change: func(n *policy.Namespace) {
			n.L2 = &policy.L2{}
			if change != nil {
				change(n)
			}
		}}
		s.start()
		s.start()
		test(t, s)
	})
}

func (s *shared) start() *pod {
	p := &pod{bus: s.stream.Attach(membus.Options{})}
	tiers := l2.NewSet(p.bus, "default", hclog.NewNullLogger())
	s.t.Cleanup(func() { require.NoError(s.t, p.bus.Close()) })
	s.t.Cleanup(func() { require.NoError(s.t, tiers.Close()) })
	p.loading = newLoading(s.t, s.change, func(set *policy.Set) cache.Tiers {
		require.NoError(s.t, tiers.Apply(set))
		return cache.TiersOf(tiers)
	})
	tiers.Of(bus.DefaultNamespace) // which opens it
	synctest.Wait()
	p.origin.answers(value("v", 1), nil)
	s.pods = append(s.pods, p)
	return p
}

// all has something happen in every pod.
func (s *shared) all(happens func(*loading)) {
	for _, p := range s.pods {
		happens(p.loading)
	}
}

// fetches loads and reads again, waits until what is to be shared is, and returns how
// often its origin was asked.
func (p *pod) fetches(want string) (asked int) {
	p.t.Helper()
	require.NoError(p.t, p.Load(p.t.Context(), "k", 0))
	synctest.Wait()
	require.Equal(p.t, want, p.get("k"))
	return len(p.origin.requests())
}

// What one pod has loaded the others find: one load for the fleet.
func TestOneLoadForTheFleet(t *testing.T) {
	withTier(t, nil, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		require.Equal(t, 1, a.fetches("v"))
		require.Equal(t, 0, b.fetches("v"))
		require.EqualValues(t, 1, count(t, b.metrics.Shared.WithLabelValues("stored")))
		s.all(func(l *loading) { l.changed("k", 2); l.origin.answers(value("new", 2), nil) })
		release := a.origin.holds()
		first, second := a.starts("k"), b.starts("k")
		require.Empty(t, b.origin.requests(), "it waits for the other one")
		release()
		require.NoError(t, <-first)
		require.NoError(t, <-second)
		require.Equal(t, "new", a.get("k"))
		require.Equal(t, "new", b.get("k"))
		require.Len(t, a.origin.requests(), 1)
		require.Empty(t, b.origin.requests())
	})
}

// Of those who wait for a load that fails, one loads next, and the others wait for it.
func TestLoadOfAnotherOneFails(t *testing.T) {
	withTier(t, nil, func(t *testing.T, s *shared) {
		s.start()
		a, b, c := s.pods[0], s.pods[1], s.pods[2]
		a.origin.answers(loader.Result{}, errDown)
		release, releaseB, releaseC := a.origin.holds(), b.origin.holds(), c.origin.holds()
		first, second, third := a.starts("k"), b.starts("k"), c.starts("k")
		release()
		require.Error(t, <-first)
		synctest.Wait()
		require.Equal(t, 1, len(b.origin.requests())+len(c.origin.requests()))
		releaseB()
		releaseC()
		require.NoError(t, <-second)
		require.NoError(t, <-third)
		require.Equal(t, "v", b.get("k"))
		require.Equal(t, "v", c.get("k"))
		require.Zero(t, len(b.origin.requests())+len(c.origin.requests()))
	})
}

// However many may load, no more do when a fleet misses together.
func TestNoMoreLoadThanMay(t *testing.T) {
	for _, loaders := range []int{1, 2, 5} {
		t.Run(strconv.Itoa(loaders), func(t *testing.T) {
			withTier(t, func(n *policy.Namespace) { n.L2.Loaders = loaders }, func(t *testing.T, s *shared) {
				for len(s.pods) < 20 {
					s.start()
				}
				for _, p := range s.pods {
					p.bus.DelayBuckets(time.Millisecond)
				}
				require.LessOrEqual(t, s.herd(100*time.Millisecond, nil), loaders)
				for version := uint64(2); version < 4; version++ {
					s.all(func(l *loading) { l.changed("k", version); l.origin.answers(value("new", version), nil) })
					require.LessOrEqual(t, s.herd(100*time.Millisecond, nil), loaders)
				}
			})
		})
	}
}

// herd has all pods miss at once, with an origin that takes so long, and returns how
// often it was asked. after is told when each pod was done.
func (s *shared) herd(takes time.Duration, after func(time.Duration)) (asked int) {
	began := time.Now()
	var loads []<-chan error
	var all sync.WaitGroup
	for _, p := range s.pods {
		loads = append(loads, p.startsSlow("k", takes))
	}
	for _, l := range loads {
		all.Go(func() {
			<-l
			if after != nil {
				after(time.Since(began))
			}
		})
	}
	all.Wait()
	synctest.Wait()
	for _, p := range s.pods {
		asked += len(p.origin.requests())
	}
	return asked
}

// What cannot be shared costs nobody more than one other load.
func TestWaitForWhatCannotBeShared(t *testing.T) {
	for name, r := range map[string]loader.Result{"unversioned": value("v", 0), "absent": {Negative: true}} {
		t.Run(name, func(t *testing.T) {
			withTier(t, nil, func(t *testing.T, s *shared) {
				for len(s.pods) < 8 {
					s.start()
				}
				s.all(func(l *loading) { l.origin.answers(r, nil) })
				require.Equal(t, 8, s.herd(300*time.Millisecond, func(d time.Duration) { require.LessOrEqual(t, d, 610*time.Millisecond) }))
				s.all(func(l *loading) { l.changed("k", 0) })
				require.Equal(t, 8, s.herd(300*time.Millisecond, func(d time.Duration) { require.LessOrEqual(t, d, 310*time.Millisecond) }), "nor that soon again")
			})
		})
	}
}

// What was loaded before a fork nobody can judge after it: it does not keep out what
// is loaded since, with a lower version after a RESET.
func TestSharedEntryOfBeforeAFork(t *testing.T) {
	withTier(t, nil, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		a.origin.answers(value("old", 100), nil)
		require.Equal(t, 1, a.fetches("old"))
		s.all(func(l *loading) {
			l.fork = l.seq + 1
			l.applies(bus.Event{Op: bus.OpFork})
			l.applies(bus.Event{Op: bus.OpFlush, Reset: true})
			l.origin.answers(value("new", 1), nil)
		})
		require.Equal(t, 1, b.fetches("new"))
		require.Equal(t, 0, a.fetches("new"))
	})
}

// What is in the shared tier is judged by rule C2 under the lease of its load.
func TestSharedEntryOlderThanAnEvent(t *testing.T) {
	for name, happens := range map[string]func(*loading){
		"event":   func(l *loading) { l.changed("k", 0) },
		"version": func(l *loading) { l.changed("k", 2) },
		"tag":     func(l *loading) { l.applies(bus.Event{Tags: []string{"t"}}) },
		"flush":   func(l *loading) { l.applies(bus.Event{Op: bus.OpFlush}) },
	} {
		t.Run(name, func(t *testing.T) {
			withTier(t, nil, func(t *testing.T, s *shared) {
				a, b := s.pods[0], s.pods[1]
				a.origin.answers(loader.Result{Value: []byte("v"), Version: 1, Tags: []string{"t"}}, nil)
				require.Equal(t, 1, a.fetches("v"))
				happens(b.loading)
				b.origin.answers(value("new", 2), nil)
				require.Equal(t, 1, b.fetches("new"))
				require.Equal(t, "v", a.get("k"), "which has not applied it yet")
				happens(a.loading)
				require.Equal(t, 0, a.fetches("new"))
			})
		})
	}
}

// After a RESET versions begin anew: an entry of before does not keep them out.
func TestSharedEntryOfBeforeAReset(t *testing.T) {
	withTier(t, nil, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		a.origin.answers(value("old", 100), nil)
		require.Equal(t, 1, a.fetches("old"))
		s.all(func(l *loading) {
			l.applies(bus.Event{Op: bus.OpFlush, Reset: true})
			l.origin.answers(value("new", 1), nil)
		})
		release := a.origin.holds() // for as long as it takes to drop that entry
		ended := a.starts("k")
		release()
		require.NoError(t, <-ended)
		synctest.Wait()
		require.Equal(t, 0, b.fetches("new"))
	})
}

// A pod that starts later takes what is in the tier as far as its history reaches
// back, and beyond that what another one has vouched for.
func TestLaterPodTakesWhatItCanJudge(t *testing.T) {
	withTier(t, nil, func(t *testing.T, s *shared) {
		a := s.pods[0]
		require.Equal(t, 1, a.fetches("v"))
		later := func(from uint64) *pod {
			p := s.start()
			p.seq = a.seq
			p.resumes(from)
			return p
		}
		s.all(func(l *loading) {
			for range 30 {
				l.passes(time.Second)
			}
		})
		require.Equal(t, 0, later(11).fetches("v"))
		require.Equal(t, 1, later(12).fetches("v"), "it does not know what came between")
	})
	withTier(t, nil, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		require.Equal(t, 1, a.fetches("v"))
		s.all(func(l *loading) {
			for range 30 {
				l.passes(time.Second)
			}
		})
		require.Equal(t, 0, b.fetches("v"), "which vouches for it")
		p := s.start()
		p.seq = a.seq
		p.resumes(p.seq)
		require.Equal(t, 0, p.fetches("v"))
		p.changed("k", 2)
		p.origin.answers(value("new", 2), nil)
		require.Equal(t, 1, p.fetches("new"))
	})
}

// Who vouches for an entry knows of no event against it; that does not make it a later
// load than what a pod has served since, without a version to tell them apart (I2).
func TestVouchedEntryIsNoLaterLoad(t *testing.T) {
	withTier(t, nil, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		require.Equal(t, 1, a.fetches("v"))
		c := s.start()
		s.all(func(l *loading) {
			for range 30 {
				l.passes(time.Second)
			}
		})
		c.origin.answers(value("served", 0), nil)
		lease := c.Lease("k", false)
		require.Equal(t, "stored", c.Fill("k", []byte("served"), cache.FillOptions{Lease: lease}).String())
		require.True(t, c.Expire("k", cache.TTL{Asked: true, For: time.Second}))
		s.all(func(l *loading) {
			for range 3 {
				l.passes(time.Second)
			}
		})
		require.Equal(t, 0, b.fetches("v"), "which vouches for it")
		require.Equal(t, 1, c.fetches("served"))
		require.EqualValues(t, 1, count(t, c.metrics.Shared.WithLabelValues("superseded")))
	})
}

// What the origin has confirmed is shared as if it had been loaded anew, but for values
// with tags, whose names are not kept.
func TestConfirmedEntryIsShared(t *testing.T) {
	for _, tags := range [][]string{nil, {"t"}} {
		withTier(t, soft, func(t *testing.T, s *shared) {
			a, b := s.pods[0], s.pods[1]
			a.origin.answers(loader.Result{Value: []byte("v"), Version: 1, ETag: `"1"`, Tags: tags}, nil)
			require.Equal(t, 1, a.fetches("v"))
			require.Equal(t, 0, b.fetches("v"))
			time.Sleep(15 * time.Second) // past its soft TTL
			s.all(func(l *loading) { l.passes(15 * time.Second) })
			s.all(func(l *loading) { l.origin.answers(loader.Result{NotModified: true}, nil) })
			require.Equal(t, 1, a.fetches("v"))
			require.Equal(t, len(tags), b.fetches("v"))
		})
	}
}

// The version that a reader knows of is asked for, and not found in the tier below it.
func TestLoadOfAVersionAtLeast(t *testing.T) {
	withTier(t, nil, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		require.Equal(t, 1, a.fetches("v"))
		b.origin.answers(value("new", 5), nil)
		require.NoError(t, b.Load(t.Context(), "k", 5))
		asked := b.origin.requests()
		require.Len(t, asked, 1)
		require.EqualValues(t, 5, asked[0].AtLeast)
		require.Equal(t, "new", b.get("k"))
	})
}

// What cannot be judged elsewhere is not shared.
func TestNotShared(t *testing.T) {
	for name, r := range map[string]loader.Result{
		"unversioned": {Value: []byte("v")},
		"dependent":   {Value: []byte("v"), Version: 1, Depends: []string{"j"}},
	} {
		t.Run(name, func(t *testing.T) {
			withTier(t, nil, func(t *testing.T, s *shared) {
				s.all(func(l *loading) { l.origin.answers(r, nil) })
				require.Equal(t, 1, s.pods[0].fetches("v"))
				require.Equal(t, 1, s.pods[1].fetches("v"))
			})
		})
	}
	t.Run("negative", func(t *testing.T) {
		withTier(t, func(n *policy.Namespace) { n.NegativeTTL = time.Minute }, func(t *testing.T, s *shared) {
			s.all(func(l *loading) { l.origin.answers(loader.Result{Negative: true, Version: 3}, nil) })
			require.Equal(t, 1, s.pods[0].fetches(""))
			require.Equal(t, 1, s.pods[1].fetches(""))
		})
	})
}

// A tier that gives no answer costs a reader its timeout once, and then nothing.
func TestTierAway(t *testing.T) {
	withTier(t, func(n *policy.Namespace) { n.L2.Timeout = 40 * time.Millisecond }, func(t *testing.T, s *shared) {
		a := s.pods[0]
		a.bus.MuteBuckets(true)
		for i := range 8 {
			began := time.Now()
			a.changed("k", 0)
			require.Equal(t, 1, a.fetches("v"))
			require.LessOrEqual(t, time.Since(began), 40*time.Millisecond)
			if i >= 5 {
				require.Zero(t, time.Since(began))
			}
		}
	})
}

// The age of what is in the tier counts: nobody takes it for a load of now (C10). What
// is past its soft TTL is for when the origin fails.
func TestSharedEntryPastItsSoftTTL(t *testing.T) {
	withTier(t, soft, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		require.Equal(t, 1, a.fetches("v"))
		wait := func(d time.Duration) {
			time.Sleep(d)
			s.all(func(l *loading) { l.passes(d) })
		}
		wait(6 * time.Second)
		require.Equal(t, 0, b.fetches("v"))
		wait(4 * time.Second)
		_, found := b.Read("k", nil, b.Now())
		require.Equal(t, cache.Old, found, "10 s after the load, not after it was taken")
		synctest.Wait()
		require.Len(t, b.origin.requests(), 1)
		require.Equal(t, 0, a.fetches("v"), "what the other one has loaded anew")

		wait(12 * time.Second)
		c := s.start()
		c.seq = a.seq
		c.resumes(11)
		c.origin.answers(loader.Result{}, errDown)
		require.ErrorIs(t, c.Load(t.Context(), "k", 0), loader.ErrUnavailable)
		_, found = c.ReadStale("k", nil, c.Now())
		require.Equal(t, cache.Old, found)
	})
}

// A holder that waited for the right loads under a lease of then, not of before.
func TestEventWhileWaitingForTheRight(t *testing.T) {
	withTier(t, nil, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		release := a.origin.holds()
		first := a.starts("k")
		second := b.starts("k")
		b.changed("k", 5)
		b.origin.answers(value("new", 5), nil)
		time.Sleep(1100 * time.Millisecond) // more than l2.wait
		synctest.Wait()
		asked := b.origin.requests()
		require.Len(t, asked, 1)
		require.EqualValues(t, 5, asked[0].AtLeast)
		<-second // it went on at the soft timeout
		require.Equal(t, "new", b.get("k"))
		release()
		<-first
	})
}

// Who is behind the pod that loaded waits for the events that that one had applied, for
// no longer than a read waits for the tier.
func TestSharedEntryOfAPodThatIsAhead(t *testing.T) {
	withTier(t, func(n *policy.Namespace) { n.L2.Timeout = 40 * time.Millisecond }, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		a.changed("j", 1)
		require.Equal(t, 1, a.fetches("v"))
		began := time.Now()
		loaded := b.starts("k")
		require.Empty(t, b.origin.requests())
		b.changed("j", 1)
		require.NoError(t, <-loaded)
		require.Zero(t, time.Since(began))
		require.Equal(t, "v", b.get("k"))
		require.Empty(t, b.origin.requests())

		a.changed("k", 2)
		a.origin.answers(value("new", 2), nil)
		require.Equal(t, 1, a.fetches("new"))
		c := s.start()
		began = time.Now()
		require.Equal(t, 1, c.fetches("v"))
		require.Equal(t, 40*time.Millisecond, time.Since(began))
	})
}

// After a rollback of which nobody is left to tell, an entry of before bears a seq that
// is that of another message: it is not taken, and goes (I1).
func TestSharedEntryOfALostLog(t *testing.T) {
	withTier(t, nil, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		a.seq++
		a.Apply(bus.Delivery{Position: at(a.seq), Digest: 5, Event: bus.Event{Op: bus.OpPulse}}) // which is lost
		require.Equal(t, 1, a.fetches("v"))
		b.changed("k", 0)
		b.origin.answers(value("new", 1), nil)
		require.Equal(t, 1, b.fetches("new"))
		require.EqualValues(t, 1, count(t, b.metrics.Shared.WithLabelValues("other-log")))
	})
}

// The pod that publishes takes what another one has loaded after its write, and
// nothing that was loaded before it, whatever the version (C8).
func TestPublisherTakesWhatOthersLoadAfterItsWrite(t *testing.T) {
	withTier(t, nil, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		write := func(w cache.Write) {
			b.published = func() bus.Position { b.changed("k", 0); return at(b.seq) }
			_, err := b.Invalidate(t.Context(), w)
			require.NoError(t, err)
		}
		keys := []bus.KeyVersion{{Key: "k"}}
		require.Equal(t, 1, a.fetches("v"))
		write(cache.Write{Keys: keys})
		require.Equal(t, 1, b.fetches("v"), "it was loaded before the write")
		write(cache.Write{Keys: keys})
		s.all(func(l *loading) { l.origin.answers(value("new", 2), nil) })
		a.changed("k", 0)
		a.changed("k", 0)
		require.Equal(t, 1, a.fetches("new"))
		require.Equal(t, 0, b.fetches("new"))

		write(cache.Write{Keys: keys, ID: "id"})
		a.changed("k", 0)
		require.Equal(t, 1, a.fetches("new"))
		require.Equal(t, 1, b.fetches("new"), "the event may be one that was published before")
	})
}

// Close waits for what goes on in the background, vouching too, and ends it.
func TestCloseEndsVouching(t *testing.T) {
	withTier(t, nil, func(t *testing.T, s *shared) {
		a, b := s.pods[0], s.pods[1]
		require.Equal(t, 1, a.fetches("v"))
		s.all(func(l *loading) {
			for range 30 {
				l.passes(time.Second)
			}
		})
		b.bus.DelayBuckets(20 * time.Millisecond) // within the timeout of reads
		require.NoError(t, b.Load(t.Context(), "k", 0))
		require.NoError(t, b.Close())
	})
}
