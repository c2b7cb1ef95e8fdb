package nearside_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sdk/go/nearside"
)

// source is a loader that counts, and takes its time.
type source struct {
	mu      sync.Mutex
	value   string
	version uint64
	err     error
	loads   atomic.Int64
	now     atomic.Int64 // under way
	most    atomic.Int64
	takes   time.Duration
	during  func(n int64) // called while a load is under way, after it has read
}

func (s *source) set(value string, version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.version = value, version
}

func (s *source) load(ctx context.Context, _ string) (nearside.Loaded[string], error) {
	n := s.loads.Add(1)
	s.most.Store(max(s.most.Load(), s.now.Add(1)))
	defer s.now.Add(-1)
	s.mu.Lock()
	l, err := nearside.Loaded[string]{Value: s.value, Version: s.version, Absent: s.value == ""}, s.err
	s.mu.Unlock()
	if s.during != nil {
		s.during(n)
	}
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return l, ctx.Err()
	}
	return l, err
}

func (s *source) from() nearside.Source[string] {
	return nearside.Source[string]{Load: s.load, Codec: nearside.Text{}}
}

func TestGetOrLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(), &source{value: "v1", version: 1}
		c := f.open(t, nearside.Options{})
		r, err := nearside.Load(t.Context(), c, "k", s.from())
		require.NoError(t, err)
		require.Equal(t, nearside.Result[string]{Value: "v1", Version: 1, Status: nearside.Miss, Loaded: true, Stored: true}, r)
		r, err = nearside.Load(t.Context(), c, "k", s.from())
		require.NoError(t, err)
		require.Equal(t, nearside.Result[string]{Value: "v1", Version: 1, Status: nearside.Hit, Stored: true}, r)

		s.set("", 0)
		for range 2 {
			_, err = nearside.GetOrLoad(t.Context(), c, "absent", s.from())
			require.ErrorIs(t, err, nearside.ErrAbsent)
		}
		require.Equal(t, int64(2), s.loads.Load(), "that there is no value is kept, too")
		st := c.Stats()
		require.Equal(t, uint64(2), st.Loads)
		require.Equal(t, uint64(2), st.Stored)
		require.Zero(t, st.FellThrough)
	})
}

// One load of a key at a time, and everybody gets its value.
func TestOneLoadForManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(), &source{value: "v", takes: time.Second}
		c := f.open(t, nearside.Options{})
		var all sync.WaitGroup
		for range 500 {
			all.Go(func() {
				v, err := nearside.GetOrLoad(t.Context(), c, "k", s.from())
				require.NoError(t, err)
				require.Equal(t, "v", v)
			})
		}
		all.Wait()
		require.Equal(t, int64(1), s.loads.Load())
	})
}

// Without a sidecar a caller is answered by a load that began after it had come, and
// there is still one at a time (I4, I13).
func TestLoadsAreSharedWithoutASidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(), &source{value: "v1", takes: time.Second}
		f.leave()
		c := f.open(t, nearside.Options{})
		var first, others sync.WaitGroup
		first.Go(func() {
			v, err := nearside.GetOrLoad(t.Context(), c, "k", s.from())
			require.NoError(t, err)
			require.Equal(t, "v1", v)
		})
		time.Sleep(500 * time.Millisecond)
		s.set("v2", 0) // committed, and the callers to come know of it
		for range 100 {
			others.Go(func() {
				v, err := nearside.GetOrLoad(t.Context(), c, "k", s.from())
				require.NoError(t, err)
				require.Equal(t, "v2", v)
			})
		}
		first.Wait()
		others.Wait()
		require.Equal(t, int64(2), s.loads.Load())
		require.Equal(t, int64(1), s.most.Load())
		st := c.Stats()
		require.Equal(t, uint64(99), st.SharedLoads)
		require.Equal(t, uint64(2), st.FellThrough)
		require.Equal(t, uint64(2), st.NotKept)
	})
}

// A write ends what was loading for those who come after it, whether it was published
// or not.
func TestWritesPartLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, target := range []nearside.Target{nearside.Key("k", 2), nearside.Tag("t")} {
			f, s := newFake(), &source{value: "v1", takes: time.Second}
			f.leave()
			c := f.open(t, nearside.Options{WriteTimeout: time.Millisecond})
			go nearside.GetOrLoad(t.Context(), c, "k", s.from())
			synctest.Wait()
			s.set("v2", 2)
			_, err := c.Invalidate(t.Context(), target)
			require.ErrorIs(t, err, nearside.ErrNotPublished)
			before := time.Now()
			v, err := nearside.GetOrLoad(t.Context(), c, "k", s.from())
			require.NoError(t, err)
			require.Equal(t, "v2", v)
			require.Equal(t, time.Second, time.Since(before), "it did not wait for the former load")
			time.Sleep(time.Second)
		}
	})
}

// What an event overtakes is loaded again, three times in all, and then returned with
// its verdict; a Strong read is told.
func TestOvertakenLoads(t *testing.T) {
	for overtaken := range int64(4) {
		synctest.Test(t, func(t *testing.T) {
			f, s := newFake(), &source{value: "v0"}
			c := f.open(t, nearside.Options{})
			s.during = func(n int64) {
				if n <= overtaken {
					s.set("v"+strconv.Itoa(int(n)), 0)
					_, err := c.Invalidate(t.Context(), nearside.Key("k", 0))
					require.NoError(t, err)
				}
			}
			r, err := nearside.Load(t.Context(), c, "k", s.from())
			require.NoError(t, err)
			require.Equal(t, min(overtaken+1, 3), s.loads.Load())
			require.Equal(t, uint64(min(overtaken, 3)), c.Stats().Rejected)
			require.Equal(t, overtaken < 3, r.Stored)
			require.Equal(t, "v"+strconv.Itoa(int(min(overtaken, 2))), r.Value)
			if overtaken == 3 {
				require.Equal(t, "event", r.Verdict)
				s.loads.Store(0)
				r, err = nearside.Load(t.Context(), c, "k", s.from(), nearside.Strong())
				require.ErrorIs(t, err, nearside.ErrUnproven)
				require.NotEmpty(t, r.Value, "and the value is there for who wants it")
			}
		})
	}
}

func TestUnprovenWithoutASidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(), &source{value: "v7", version: 7}
		f.leave()
		c := f.open(t, nearside.Options{})
		get := func(o nearside.ReadOption) error {
			v, err := nearside.GetOrLoad(t.Context(), c, "k", s.from(), o)
			require.Equal(t, "v7", v)
			return err
		}
		require.ErrorIs(t, get(nearside.Strong()), nearside.ErrUnproven)
		require.ErrorIs(t, get(nearside.AtLeast("1-0-1-8")), nearside.ErrUnproven)
		require.NoError(t, get(nearside.AtLeast("1-0-1-7")))
		require.NoError(t, get(nearside.AtLeast("1-0-1")))
		require.NoError(t, get(nearside.MaxStale(0)))
	})
}

func TestLoadersThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(), &source{err: errors.New("no database"), value: "v", takes: time.Second}
		released := 0
		f.hooked(func(_ *peer, _ near.Header, m near.Message) bool {
			if _, ok := m.(*near.Release); ok {
				released++
			}
			return false
		})
		c := f.open(t, nearside.Options{})
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				_, err := nearside.GetOrLoad(t.Context(), c, "k", s.from())
				require.ErrorIs(t, err, s.err)
			})
		}
		all.Wait()
		synctest.Wait()
		require.LessOrEqual(t, s.loads.Load(), int64(2))
		require.Equal(t, int64(released), s.loads.Load(), "the right to load goes to somebody else")

		// A caller that gives up takes nobody with it.
		s.err = nil
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			time.Sleep(500 * time.Millisecond)
			cancel()
		}()
		all.Go(func() {
			_, err := nearside.GetOrLoad(ctx, c, "k", s.from())
			require.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		v, err := nearside.GetOrLoad(t.Context(), c, "k", s.from())
		require.NoError(t, err)
		require.Equal(t, "v", v)
		all.Wait()

		from := s.from()
		from.Timeout = time.Millisecond
		_, err = nearside.GetOrLoad(t.Context(), c, "other", from)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		from.Load = func(context.Context, string) (nearside.Loaded[string], error) { panic("loader") }
		require.PanicsWithValue(t, "loader", func() { nearside.GetOrLoad(t.Context(), c, "other", from) })
		v, err = nearside.GetOrLoad(t.Context(), c, "other", s.from())
		require.NoError(t, err)
		require.Equal(t, "v", v)
	})
}

// A sidecar that hangs costs a caller half of its time at most, and the next ones
// nothing (I14).
func TestSilentSidecarIsPassedBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(), &source{value: "v"}
		c := f.open(t, nearside.Options{})
		_, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		f.hooked(func(*peer, near.Header, near.Message) bool { return true })
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		before := time.Now()
		v, err := nearside.GetOrLoad(ctx, c, "k", s.from())
		require.NoError(t, err)
		require.Equal(t, "v", v)
		require.Equal(t, 100*time.Millisecond, time.Since(before))
		time.Sleep(2 * time.Second)
		_, err = nearside.GetOrLoad(t.Context(), c, "k", s.from())
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		before = time.Now()
		_, err = nearside.GetOrLoad(t.Context(), c, "k", s.from())
		require.NoError(t, err)
		require.Zero(t, time.Since(before))
	})
}

// Where the sidecar cannot prove anything, or refuses, the source is asked.
func TestBypassIsLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(), &source{value: "v"}
		var answer near.Message
		f.hooked(func(p *peer, h near.Header, m near.Message) bool {
			if _, ok := m.(*near.Get); !ok {
				return false
			}
			kind := h.Kind.Answer()
			if _, ok := answer.(*near.Error); ok {
				kind = near.KindError
			}
			p.send(kind, h.ID, answer)
			return true
		})
		c := f.open(t, nearside.Options{})
		for _, answer = range []near.Message{
			&near.Value{Status: near.Bypass}, &near.Value{Status: near.Behind}, &near.Error{Code: near.Busy}, &near.Value{Status: 77, Value: []byte("x"), Lease: "l"},
		} {
			r, err := nearside.Load(t.Context(), c, "k", s.from())
			require.NoError(t, err)
			require.Equal(t, "v", r.Value)
			require.True(t, r.Loaded)
			require.False(t, r.Stored)
		}
		require.Equal(t, uint64(1), c.Stats().Bypasses)
		require.Equal(t, uint64(4), c.Stats().NotKept)
	})
}

type doc struct{ A, B string }

// What another version of the app has kept, and this one cannot read, is loaded.
func TestCodecs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := f.open(t, nearside.Options{L0: &nearside.L0Options{}})
		from := nearside.Source[doc]{Load: func(context.Context, string) (nearside.Loaded[doc], error) {
			return nearside.Loaded[doc]{Value: doc{"a", "b"}}, nil
		}}
		for range 3 {
			v, err := nearside.GetOrLoad(t.Context(), c, "k", from)
			require.NoError(t, err)
			require.Equal(t, doc{"a", "b"}, v)
		}
		f.set("old", "<xml>", 0)
		_, err := c.Get(t.Context(), "old")
		require.NoError(t, err)
		v, err := nearside.GetOrLoad(t.Context(), c, "old", from)
		require.NoError(t, err)
		require.Equal(t, doc{"a", "b"}, v)
		require.Equal(t, uint64(1), c.Stats().CodecErrors)

		bad := nearside.Source[func()]{Load: func(context.Context, string) (nearside.Loaded[func()], error) {
			return nearside.Loaded[func()]{Value: func() {}}, nil
		}}
		r, err := nearside.Load(t.Context(), c, "func", bad)
		require.NoError(t, err)
		require.NotNil(t, r.Value)
		require.Contains(t, r.Verdict, "json")
		raw := nearside.Source[[]byte]{Codec: nearside.Raw{}, Load: func(context.Context, string) (nearside.Loaded[[]byte], error) {
			return nearside.Loaded[[]byte]{Value: []byte{1, 2}}, nil
		}}
		for range 2 {
			b, err := nearside.GetOrLoad(t.Context(), c, "raw", raw)
			require.NoError(t, err)
			require.Equal(t, []byte{1, 2}, b)
		}
	})
}

// With Shared, what L0 holds is decoded once.
func TestSharedValuesAreDecodedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.set("k", `{"A":"a"}`, 1)
		c := f.open(t, nearside.Options{L0: &nearside.L0Options{}})
		from := nearside.Source[*doc]{Shared: true}
		get := func() *doc {
			v, err := nearside.GetOrLoad(t.Context(), c, "k", from)
			require.NoError(t, err)
			return v
		}
		get()
		require.Same(t, get(), get())
		s := &source{value: "v"}
		_, err := nearside.GetOrLoad(t.Context(), c, "k", nearside.Source[int]{Shared: true, Load: func(context.Context, string) (nearside.Loaded[int], error) {
			return nearside.Loaded[int]{Value: 7}, s.err
		}})
		require.NoError(t, err, "another type does not get it")
		from.Shared = false
		require.NotSame(t, get(), get())
	})
}
