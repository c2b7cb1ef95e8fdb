package native_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// origin answers "X" to every request, once it is open.
type origin struct {
	open  chan struct{}
	asked atomic.Int64
}

// Load implements cache.Origins.
func (o *origin) Load(ctx context.Context, _ string, _ loader.Request) (loader.Result, error) {
	o.asked.Add(1)
	select {
	case <-o.open:
		return loader.Result{Value: []byte("X"), Version: 1}, nil
	case <-ctx.Done():
		return loader.Result{}, context.Cause(ctx)
	}
}

// loadingRig is a rig that loads the keys of namespace l.
func loadingRig(t *testing.T) (*rig, *origin) {
	o := &origin{open: make(chan struct{})}
	return newRig(t, func(c *cache.Config) {
		c.Origins = o
		c.Policies.Namespaces = map[string]policy.Namespace{
			"l": {TTL: time.Hour, Loader: &policy.Loader{URL: "http://origin/{key}", SoftTimeout: time.Hour, HardTimeout: time.Hour}},
		}
	}), o
}

func gets(wait time.Duration, keys ...string) *near.Gets {
	m := &near.Gets{Read: near.Read{Wait: wait}}
	for _, key := range keys {
		m.Keys = append(m.Keys, []byte(key))
	}
	return m
}

func TestGets(t *testing.T) {
	r, o := loadingRig(t)
	p := r.greet(t)
	p.store("n:a", "A", 1, nil)
	p.store("n:b", "B", 2, nil)
	all := p.ask(near.KindGets, gets(-1, "n:a", "n:x", "n:b")).(*near.Values).Items
	require.Len(t, all, 3)
	require.Equal(t, []byte("A"), all[0].Value)
	require.Equal(t, near.Miss, all[1].Status)
	require.Equal(t, []byte("B"), all[2].Value)
	require.Equal(t, &near.Filled{Stored: true}, p.ask(near.KindFill, &near.Fill{Key: []byte("n:x"), Lease: all[1].Lease, Value: []byte("x")}))

	waits := p.send(near.KindGets, gets(time.Minute, "n:a", "l:x", "n:b"))
	require.Equal(t, near.Hit, p.get("n:a").Status, "beside it")
	close(o.open)
	items := p.answerTo(waits).m.(*near.Values).Items
	require.Equal(t, []byte("X"), items[1].Value)
	require.Equal(t, []byte("A"), items[0].Value)
	require.Empty(t, p.ask(near.KindGets, &near.Gets{}).(*near.Values).Items)
}

// What a Gets has no room for is to be asked for again.
func TestGetsIsBounded(t *testing.T) {
	r := newRig(t, nil)
	p := r.greet(t)
	keys := []string{"n:1", "n:2", "n:3", "n:4", "n:5"}
	for _, key := range keys {
		p.store(key, strings.Repeat("v", 400_000), 1, nil)
	}
	all := p.ask(near.KindGets, gets(-1, keys...)).(*near.Values).Items
	for i, want := range []near.Status{near.Hit, near.Hit, near.Hit, near.Unread, near.Unread} {
		require.Equal(t, want, all[i].Status, i)
	}
}

// A Gets waits for nobody who has the right to load, and nobody waits for it: two that
// named the same keys would hold each other up, and one that is refused would keep what
// it was granted.
func TestGetsTakesNoRights(t *testing.T) {
	r := newRig(t, nil)
	p, q := r.greet(t), r.greet(t)
	require.Equal(t, near.Right, p.get("n:held").Flags)
	from := len(q.seen)
	q.send(near.KindGets, gets(time.Hour, "n:held", "n:free"))
	require.Len(t, q.seen, from+1, "at once")
	for _, v := range q.seen[from].m.(*near.Values).Items {
		require.Equal(t, near.Miss, v.Status)
		require.NotEmpty(t, v.Lease)
		require.Zero(t, v.Flags)
	}
	g := get("n:free")
	g.Wait = time.Hour
	require.Equal(t, near.Right, p.ask(near.KindGet, g).(*near.Value).Flags)
}

// However many keys must wait, a Gets waits no longer than it said; and nothing is
// loaded any more for a client that waits no longer.
func TestGetsWaitsOnce(t *testing.T) {
	r, o := loadingRig(t)
	var keys []string
	for i := range 10_000 { // 157 times as many as wait at once
		keys = append(keys, fmt.Sprint("l:", i))
	}
	began := time.Now()
	all := r.greet(t).ask(near.KindGets, gets(100*time.Millisecond, keys...)).(*near.Values).Items
	require.Less(t, time.Since(began), 5*time.Second)
	require.Len(t, all, len(keys))
	require.Equal(t, near.Miss, all[9_999].Status)
	require.Less(t, o.asked.Load(), int64(1000))
}
