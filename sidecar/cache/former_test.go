package cache_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

func (s stub) Barrier(ctx context.Context) (bus.Position, error) {
	return s.publish(ctx, "", bus.Event{})
}

// A token of another stream is kept only once a pulse has proven that the other one
// is over, whichever was created later by the broker's clock (I4, ADR 0009).
func TestTokenOfAnotherStream(t *testing.T) {
	var answer func() (bus.Position, error)
	c := byHand(t, nil, func(context.Context) (bus.Position, error) { return answer() })
	require.Equal(t, coherence.Stored, c.set("k", "v"))
	for _, created := range []int64{epoch.Created - 1, epoch.Created + 1} {
		other := bus.Position{Epoch: bus.Epoch{Created: created}, Seq: 3}
		m := cache.Mode{Kind: cache.AtLeast, AtLeast: cache.Token{Position: other}}
		read := func() cache.Outcome {
			_, a := c.Near("k", m, false, false, nil)
			return a.Status
		}
		require.Equal(t, cache.Behind, read())
		answer = func() (bus.Position, error) { return bus.Position{}, bus.ErrNotAcknowledged }
		require.ErrorIs(t, c.Catch(t.Context(), m, "k"), bus.ErrNotAcknowledged, "cut off")
		require.Equal(t, cache.Behind, read())
		answer = func() (bus.Position, error) { return at(10), nil }
		require.NoError(t, c.Catch(t.Context(), m, "k"))
		require.Equal(t, cache.Hit, read(), "and from now on for whoever has a token of it")
	}
}

// The stream that was followed before is over.
func TestTokenOfTheFormerStream(t *testing.T) {
	c := byHand(t, nil, nil)
	token := cache.Token{Position: at(99)}
	c.Doubt(bus.ReasonRecreated)
	c.Resume(bus.Resume{Position: bus.Position{Epoch: bus.Epoch{Created: epoch.Created - 1}, Seq: 5}})
	_, a := c.Near("k", cache.Mode{Kind: cache.AtLeast, AtLeast: token}, false, false, nil)
	require.Equal(t, cache.Miss, a.Status)
	require.NoError(t, c.Await(t.Context(), at(99)))
}
