package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// answers are what an origin says, one after the other.
type answers struct {
	list  []loader.Result
	asked []loader.Request
}

func (a *answers) Load(_ context.Context, _ string, r loader.Request) (loader.Result, error) {
	a.asked = append(a.asked, r)
	next := a.list[0]
	a.list = a.list[1:]
	return next, nil
}

// absent is a cache of whose origin the answers are, and which keeps absences for so
// long.
func absent(t *testing.T, negative time.Duration, list ...loader.Result) (by, *answers) {
	origin := &answers{list: list}
	return byHand(t, func(cfg *cache.Config) {
		cfg.Origins = origin
		cfg.Policies.Default.Loader, cfg.Policies.Default.NegativeTTL = &policy.Loader{}, negative
	}, nil), origin
}

// loadNow loads key, whatever is held of it.
func (c by) loadNow(key string) error {
	l, err := c.BeginLoad(key)
	require.NoError(c.t, err)
	<-l.Done()
	return l.Err()
}

// What stood for an absence cannot be confirmed into an empty value (I10).
func TestAbsenceIsNotRevalidated(t *testing.T) {
	c, origin := absent(t, time.Minute,
		loader.Result{Negative: true, ETag: `"e"`}, loader.Result{Value: []byte("v")})
	require.NoError(t, c.loadNow("k"))
	_, found := c.Read("k", nil, c.Now())
	require.Equal(t, cache.Absence, found)
	require.NoError(t, c.loadNow("k"))
	require.Empty(t, origin.asked[1].ETag)
	require.Equal(t, "v", c.get("k"))
}

// An update brings a value and not what it hangs on: an absence, which hangs on
// nothing, gives way to nothing (C10, I11).
func TestUpdateDropsAnAbsence(t *testing.T) {
	c, _ := absent(t, time.Minute, loader.Result{Negative: true, Version: 1})
	require.NoError(t, c.loadNow("k"))
	c.Apply(bus.Delivery{Position: bus.Position{Seq: 11}, Namespace: "default", Event: bus.Event{
		Op: bus.OpUpdate, Keys: []bus.KeyVersion{{Key: "k", Version: 2}}, Value: []byte("v"),
	}})
	_, found := c.Read("k", nil, c.Now())
	require.Equal(t, cache.Nothing, found)
}

// A client that was told of an absence may SET with KEEPTTL: to it there was no entry.
func TestSetOverAnAbsenceKeepsNothingOfIt(t *testing.T) {
	c, _ := absent(t, time.Second, loader.Result{Negative: true})
	require.NoError(t, c.loadNow("k"))
	c.Missed("k", c.Now())
	require.Equal(t, coherence.Stored, c.Set("k", []byte("v"), cache.TTL{Keep: true}))
	require.Equal(t, "v", c.get("k"))
	c.clock.Advance(time.Minute)
	require.Equal(t, "v", c.get("k"), "its TTL is the policy's")
}

// A value that a client has SET is not the one that the origin's ETag stands for.
func TestSetKeepsNoETag(t *testing.T) {
	c, origin := absent(t, 0, loader.Result{Value: []byte("v1"), ETag: `"1"`}, loader.Result{Value: []byte("v3")})
	require.NoError(t, c.loadNow("k"))
	c.Missed("k", c.Now())
	require.Equal(t, coherence.Stored, c.Set("k", []byte("v2"), cache.TTL{Keep: true}))
	require.NoError(t, c.loadNow("k"))
	require.Empty(t, origin.asked[1].ETag)
}

// An absence that the policy does not keep is no reason to ask again.
func TestAbsenceThatIsNotKeptIsLoadedOnce(t *testing.T) {
	c, origin := absent(t, 0, loader.Result{Negative: true})
	require.Error(t, c.loadNow("k"))
	require.Len(t, origin.asked, 1)
}
