package refresh_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/hot"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/refresh"
)

// schedule is a bench whose keys come from policies.
type schedule struct {
	*bench
	set     atomic.Pointer[policy.Set]
	hottest []hot.Key
}

// of makes a schedule of policies by namespace, that of defaults by the empty name.
func of(t *testing.T, policies map[string]policy.Refresh, hottest ...hot.Key) *schedule {
	s := &schedule{bench: newBench(refresh.Config{Workers: 8}), hottest: hottest}
	s.set.Store(setOf(t, policies))
	s.run(instant)
	ctx, cancel := context.WithCancel(context.Background())
	s.ended.Go(func() {
		refresh.Scheduled{
			Queue: s.Queue, Policies: s.set.Load, Clock: s.now, Seed: 7,
			Hottest: func() []hot.Key { return s.hottest },
		}.Run(ctx)
	})
	end := s.end
	s.end = func() { cancel(); end() }
	return s
}

func setOf(t *testing.T, policies map[string]policy.Refresh) *policy.Set {
	set := policy.DefaultSet()
	set.Namespaces = map[string]policy.Namespace{}
	for name, r := range policies {
		if name == "" {
			set.Default.Refresh = r
			continue
		}
		n := policy.DefaultNamespace()
		n.Refresh = r
		set.Namespaces[name] = n
	}
	require.NoError(t, set.Validate())
	return set
}

// sorted is what was loaded since the last time, in the order of names.
func (s *schedule) sorted() []string {
	h := s.history()
	slices.Sort(h)
	return h
}

func TestNamedKeysAreLoadedInEveryPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keys []string
		for i := range 100 {
			keys = append(keys, fmt.Sprintf("a:%02d", i))
		}
		s := of(t, map[string]policy.Refresh{"a": {Every: 5 * time.Minute, Keys: keys, Window: 2 * time.Second}})
		defer s.stop()
		time.Sleep(time.Second)
		require.InDelta(t, 50, len(s.history()), 20, "spread over the window")
		time.Sleep(time.Second)
		s.history()
		for _, key := range keys {
			require.Len(t, s.when(key), 1, "and warm after it")
		}
		time.Sleep(298 * time.Second)
		require.Empty(t, s.history())
		for range 3 {
			time.Sleep(150 * time.Second)
			half := s.history()
			require.InDelta(t, 50, len(half), 20, "spread over the period")
			time.Sleep(150 * time.Second)
			all := append(half, s.history()...)
			slices.Sort(all)
			require.Equal(t, keys, all)
		}
		at := s.when("a:07")
		require.Len(t, at, 4)
		require.Equal(t, 5*time.Minute, at[3]-at[2], "each at its own moment of the period")
	})
}

// The hottest of each policy's own namespaces, named keys before them.
func TestTopOfEachPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := of(t, map[string]policy.Refresh{
			"":    {Every: time.Minute, Top: 2},
			"a":   {Every: time.Minute, Top: 1, Keys: []string{"a:named"}},
			"off": {},
		}, hot.Key{Key: "a:1", Rate: 9}, hot.Key{Key: "off:1", Rate: 8}, hot.Key{Key: "x:1", Rate: 7}, hot.Key{Key: "a:2", Rate: 6},
			hot.Key{Key: "y", Rate: 5}, hot.Key{Key: "z", Rate: 4})
		defer s.stop()
		time.Sleep(59 * time.Second)
		require.Equal(t, []string{"a:1", "a:named", "x:1", "y"}, s.sorted())
		time.Sleep(time.Minute)
		require.Equal(t, []string{"a:1", "a:named", "x:1", "y"}, s.sorted())
	})
}

func TestAScheduleFollowsItsPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := policy.Refresh{Every: time.Hour, Keys: []string{"a:1"}}, policy.Refresh{Every: time.Hour, Keys: []string{"b:1"}}
		s := of(t, map[string]policy.Refresh{"a": a})
		defer s.stop()
		loads := func(why string, policies map[string]policy.Refresh, keys ...string) {
			s.set.Store(setOf(t, policies))
			time.Sleep(10 * time.Second)
			require.Equal(t, keys, s.sorted(), why)
		}
		loads("begins at once", map[string]policy.Refresh{"a": a}, "a:1")
		loads("and nothing of what stays", map[string]policy.Refresh{"a": a, "b": b}, "b:1")
		loads("switched off, removed", map[string]policy.Refresh{"a": {}})
		loads("begins anew", map[string]policy.Refresh{"a": a, "b": b}, "a:1", "b:1")
		a.Every = time.Minute
		loads("another period", map[string]policy.Refresh{"a": a, "b": b}, "a:1")
		loads("none", nil)
		time.Sleep(2 * time.Hour)
		require.Empty(t, s.history())
	})
}

// Periods that a suspended machine slept through are not made up for.
func TestAScheduleAfterSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keys []string
		for i := range 200 {
			keys = append(keys, fmt.Sprintf("a:%03d", i))
		}
		s := of(t, map[string]policy.Refresh{"a": {Every: time.Hour, Keys: keys}})
		defer s.stop()
		time.Sleep(time.Minute)
		require.Equal(t, keys, s.sorted())
		s.skipped.Store(int64(100 * time.Hour))
		time.Sleep(time.Hour)
		require.Equal(t, keys, s.sorted())
	})
}

// What is named is not dropped for what is hot.
func TestNamedKeysComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(refresh.Config{Memory: 2 * (512 + 2*3)})
		set := setOf(t, map[string]policy.Refresh{"a": {Every: time.Hour, Keys: []string{"a:n"}, Top: 2, Window: 1}})
		ctx, cancel := context.WithCancel(context.Background())
		b.ended.Go(func() {
			refresh.Scheduled{
				Queue: b.Queue, Policies: func() *policy.Set { return set }, Clock: b.now,
				Hottest: func() []hot.Key { return []hot.Key{{Key: "a:1", Rate: 8}, {Key: "a:2", Rate: 9}} },
			}.Run(ctx)
		})
		synctest.Wait()
		b.run(instant)
		time.Sleep(time.Second)
		require.Equal(t, []string{"a:n", "a:2"}, b.history())
		cancel()
		b.stop()
	})
}
