package bus

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestClockBound(t *testing.T) {
	const asked, answered = 100 * time.Second, 5000 * time.Second
	cases := []struct {
		name      string
		sent, now time.Duration
		want      time.Duration
		kept      bool
	}{
		{"as it answered", answered, asked + time.Second, asked - 1, true},
		{"after it answered", answered + 10*time.Second, asked + 20*time.Second, asked + 10*time.Second - 2*time.Millisecond - 1, true},
		{"before it answered", answered - 10*time.Second, asked + time.Second, asked - 10*time.Second - 2*time.Millisecond - 1, true},
		{"before our clock began", answered - 200*time.Second, asked + time.Second, 0, true},
		{"hours ago", answered - 2*time.Hour, asked + time.Second, 0, true},
		{"at the end of its life", answered + 60*time.Second, asked + 60*time.Second, asked + 60*time.Second - 12*time.Millisecond - 1, true},
		{"after its life", answered + 60*time.Second, asked + 60*time.Second + 1, 0, false},
		{"past the moment of receipt", answered + 10*time.Second, asked + 9*time.Second, 0, false},
		{"far past it", math.MaxInt64, asked + time.Second, 0, false},
		{"negative", -1, asked + time.Second, 0, true},
		{"of the least number", math.MinInt64, asked + time.Second, 0, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var clocks clocks
			clocks.learn("p", asked, answered, asked+time.Millisecond)
			require.Equal(t, c.want, clocks.bound("p", c.sent, c.now))
			require.Zero(t, clocks.bound("q", c.sent, c.now), "another id")
			_, kept := clocks.known["p"]
			require.Equal(t, c.kept, kept)
		})
	}
}

func TestClocksAreAskedAnew(t *testing.T) {
	var c clocks
	due := func() time.Duration { return c.due("p", pingSlow, pingPause, time.Second) }
	require.Zero(t, due(), "unknown: at once")
	c.learn("p", 10*time.Second, 0, 10*time.Second+pingSlow+1)
	require.Equal(t, 10*time.Second+pingPause, due(), "a loose tie is asked for again soon")
	c.learn("p", 11*time.Second, time.Second, 11*time.Second+1)
	require.Equal(t, 42*time.Second, due())
	kept := c.known["p"]
	c.learn("p", 12*time.Second, 2*time.Second, 12*time.Second+2)
	require.Equal(t, kept, c.known["p"], "not replaced by a looser one")
	c.learn("p", 42*time.Second, 32*time.Second, 42*time.Second+2)
	require.NotEqual(t, kept, c.known["p"], "but when it is due")
	c.learn("q", time.Second, -1, time.Second)
	c.learn("q", 2*time.Second, 1, time.Second)
	require.NotContains(t, c.known, "q", "answers that cannot be")
}

func TestClocksAreBounded(t *testing.T) {
	var c clocks
	for i := range 10 * mappingsMax {
		c.learn(string(rune('a'+i)), time.Duration(i), 0, time.Duration(i))
	}
	require.Len(t, c.known, mappingsMax)
	require.NotZero(t, c.bound(string(rune('a'+10*mappingsMax-1)), 100, time.Second), "the newest are kept")
}

// Whatever the clocks' drift within ρ and the delays of question, answer and
// pulse: the bound is never after the true moment of the pulse, and not far
// before it.
func TestClockBoundHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		random := rand.New(rand.NewPCG(seed, seed))
		span := func(most time.Duration) time.Duration { return time.Duration(random.Int64N(int64(most))) }
		drift := (2*random.Float64() - 1) / driftPart
		theirStart := span(1000 * time.Hour)
		theirs := func(ours time.Duration) time.Duration {
			return theirStart + time.Duration(math.Round(float64(ours)/(1+drift)))
		}
		var c clocks
		asked := time.Hour + span(time.Minute)
		read := asked + span(300*time.Millisecond)
		answered := read + span(300*time.Millisecond)
		c.learn("p", asked, theirs(read), answered)
		for range 100 {
			sent := answered - 10*time.Second + span(65*time.Second)
			received := max(sent, answered) + span(time.Second)
			bound := c.bound("p", theirs(sent), received)
			if bound > sent {
				t.Fatalf("bound %s after the moment %s of the pulse", bound, sent)
			}
			if received-asked <= mappingLife && sent-bound > read-asked+30*time.Millisecond {
				t.Fatalf("bound %s before the moment of the pulse, the question took %s", sent-bound, read-asked)
			}
		}
	})
}
