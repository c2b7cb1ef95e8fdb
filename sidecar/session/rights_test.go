package session_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/session"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// sharing is a rig whose plain GETs wait for one another.
func sharing(t *testing.T, change func(*policy.Namespace)) *rig {
	return newRig(t, func(c *cache.Config) {
		c.Policies.Default.Lease = policy.Rights{Get: true, For: time.Minute, Wait: time.Minute}
		if change != nil {
			change(&c.Policies.Default)
		}
	})
}

func (r *rig) gauge(t *testing.T, g prometheus.Metric) float64 {
	var m dto.Metric
	require.NoError(t, g.Write(&m))
	return m.GetGauge().GetValue() + m.GetCounter().GetValue()
}

// later sends commands that wait, in one go, and returns where the answer comes.
func (r *rig) later(t *testing.T, p *peer, commands ...string) <-chan string {
	t.Helper()
	before := r.gauge(t, r.Metrics.Rights.Waiting)
	got := make(chan string, 1)
	go func() { got <- p.pipeline(commands...) }()
	require.Eventually(t, func() bool { return r.gauge(t, r.Metrics.Rights.Waiting) > before }, sidecartest.Wait, time.Millisecond)
	return got
}

// answered is what came of later, before the driver lets a wait end.
func answered(t *testing.T, got <-chan string) string {
	t.Helper()
	select {
	case a := <-got:
		return a
	case <-time.After(sidecartest.Wait / 2):
		t.Fatal("no answer")
		return ""
	}
}

func TestRightsOfNearGet(t *testing.T) {
	r := newRig(t, nil)
	a, b, c := r.dial(t), r.dial(t), r.dial(t)
	miss := a.near(t, "NEAR.GET k")
	require.Equal(t, "1", miss["right"])
	require.Equal(t, "1", a.near(t, "NEAR.GET k")["right"], "nobody waits for itself")
	began := time.Now()
	alone := b.near(t, "NEAR.GET k WAIT 0")
	require.Equal(t, "0", alone["right"])
	require.Less(t, time.Since(began), 400*time.Millisecond)
	alone = b.near(t, "NEAR.GET k WAIT 20")
	require.Equal(t, "MISS", alone["status"])
	require.Equal(t, "0", alone["right"])
	require.NotEmpty(t, alone["lease"], "without a right there is a lease as well")

	got := r.later(t, c, "NEAR.GET k WAIT 20000", "PING")
	require.Equal(t, "+STORED|", a.do("NEAR.FILL k "+miss["lease"]+" VERSION 1 value"))
	require.Regexp(t, `HIT.*value.*\+PONG\|$`, answered(t, got))
	require.Equal(t, "+STORED|", b.do("NEAR.FILL k "+alone["lease"]+" VERSION 1 value"))
}

func TestRelease(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.dial(t), r.dial(t)
	lease := a.near(t, "NEAR.GET k")["lease"]
	got := r.later(t, b, "NEAR.GET k WAIT 20000")
	other := r.dial(t) // a right is a lease's, not a connection's
	require.Equal(t, ":1|", other.do("NEAR.RELEASE k "+lease))
	require.Equal(t, ":0|", other.do("NEAR.RELEASE k "+lease))
	require.Contains(t, answered(t, got), "|$5|right|:1|")
	require.Contains(t, a.do("NEAR.RELEASE k x"), "-ERR cache: malformed lease")
}

func TestRefusedFillPassesTheRightOn(t *testing.T) {
	r := newRig(t, nil)
	a, b, c := r.dial(t), r.dial(t), r.dial(t)
	lease := a.near(t, "NEAR.GET k")["lease"]
	got := r.later(t, b, "NEAR.GET k WAIT 20000")
	r.Publish(t, bus.Event{Tags: []string{"tag"}}) // rights know no tags, fills do
	require.Equal(t, "+REJECTED flushed|", a.do("NEAR.FILL k "+lease+" TAGS 1 tag v"))
	require.Contains(t, answered(t, got), "|$5|right|:1|")
	require.Equal(t, "0", c.near(t, "NEAR.GET k WAIT 0")["right"])
	a.do("NEAR.FILL k " + lease + " TAGS 1 tag v")
	require.Equal(t, "0", c.near(t, "NEAR.GET k WAIT 0")["right"], "a former holder ends nobody's right")
	b.s.Close()
	require.Equal(t, "1", c.near(t, "NEAR.GET k WAIT 0")["right"])
}

// What a STRONG load publishes before its fill makes nobody else load (C12).
func TestStrongLoadIsNotVoidedByItself(t *testing.T) {
	r := newRig(t, nil)
	a, b, c := r.dial(t), r.dial(t), r.dial(t)
	lease := a.near(t, "NEAR.GET k STRONG")["lease"]
	strong := r.later(t, b, "NEAR.GET k STRONG WAIT 20000")
	quick := r.later(t, c, "NEAR.GET k MAXSTALE 100000000 WAIT 20000")
	require.Equal(t, "+STORED|", a.do("NEAR.FILL k "+lease+" VERSION 7 value"))
	require.Contains(t, answered(t, strong), "HIT")
	require.Contains(t, answered(t, quick), "HIT")
	require.Equal(t, 1.0, r.gauge(t, r.Metrics.Rights.Granted))
}

// A STRONG reader that waited for a load with less demands catches up with what
// came of it (C12).
func TestStrongReaderWaitsForAnotherLoad(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.dial(t), r.dial(t)
	lease := a.near(t, "NEAR.GET k")["lease"]
	strong := r.later(t, b, "NEAR.GET k STRONG WAIT 20000")
	before := r.Counts().Publishes
	a.do("NEAR.FILL k " + lease + " VERSION 7 value")
	require.Contains(t, answered(t, strong), "HIT")
	require.Equal(t, before+1, r.Counts().Publishes)
}

// An ATLEAST reader wants more than is held, and waits for who loads it.
func TestAtLeastReaderWaits(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.dial(t), r.dial(t)
	lease := a.near(t, "NEAR.GET k")["lease"]
	a.do("NEAR.FILL k " + lease + " VERSION 1 old")
	token, err := cache.ParseToken(a.near(t, "NEAR.GET k")["token"])
	require.NoError(t, err)
	token.Version = 2
	miss := a.near(t, fmt.Sprintf("NEAR.GET k ATLEAST %v", token))
	require.Equal(t, "1", miss["right"])
	got := r.later(t, b, fmt.Sprintf("NEAR.GET k ATLEAST %v WAIT 20000", token))
	require.Equal(t, "HIT", r.dial(t).near(t, "NEAR.GET k")["status"], "who asks for less waits for nothing")
	require.Equal(t, "+STORED|", a.do("NEAR.FILL k "+miss["lease"]+" VERSION 2 new"))
	require.Regexp(t, "HIT.*new", answered(t, got))
}

func TestPlainGetsShareALoad(t *testing.T) {
	r := sharing(t, nil)
	a, b, c := r.dial(t), r.dial(t), r.dial(t)
	require.Equal(t, "$-1|", a.do("GET k"))
	require.Equal(t, "$-1|", a.do("GET k"), "nobody waits for itself")
	require.Equal(t, "*2|$-1|$-1|", b.do("MGET k j"), "MGET waits for none")
	require.Equal(t, ":0|", b.do("EXISTS k"))
	misses := r.Counts().Misses
	first := r.later(t, b, "PING", "GET k", "PING", "GET other", "GET k")
	second := r.later(t, c, "MULTI", "GET k", "PING", "EXEC")
	require.Equal(t, misses, r.Counts().Misses, "who waits does not know yet")
	require.Equal(t, "+OK|", a.do("SET k value"))
	require.Equal(t, "+PONG|$5|value|+PONG|$-1|$5|value|", answered(t, first))
	require.Equal(t, "+OK|+QUEUED|+QUEUED|*2|$5|value|+PONG|", answered(t, second))
	require.Equal(t, 2.0, r.gauge(t, r.Metrics.Rights.Granted), "of k, and of other")
}

func TestPlainGetsThatDoNotWait(t *testing.T) {
	for name, change := range map[string]func(*policy.Namespace){
		"by default": func(n *policy.Namespace) { n.Lease = policy.Rights{} },
		"off":        func(n *policy.Namespace) { n.Lease.Off = true },
		"impatient":  func(n *policy.Namespace) { n.Lease.Wait = time.Millisecond },
		"bypass":     func(n *policy.Namespace) { n.MaxStale = time.Nanosecond },
	} {
		t.Run(name, func(t *testing.T) {
			r := sharing(t, change)
			if name == "bypass" {
				r.Bus.Disconnect()
				r.Clock.Advance(time.Second)
			}
			a, b := r.dial(t), r.dial(t)
			require.Equal(t, "$-1|", a.do("GET k"))
			require.Equal(t, "$-1|", b.do("GET k"))
			require.Equal(t, uint64(2), r.Counts().Misses)
		})
	}
}

// With rights off there are leases, and nobody waits.
func TestRightsOff(t *testing.T) {
	r := sharing(t, func(n *policy.Namespace) { n.Lease.Off = true })
	a, b := r.dial(t), r.dial(t)
	first, second := a.near(t, "NEAR.GET k WAIT 20000"), b.near(t, "NEAR.GET k WAIT 20000")
	require.Equal(t, "0", first["right"])
	require.Equal(t, "0", second["right"])
	require.Equal(t, "+STORED|", a.do("NEAR.FILL k "+first["lease"]+" v"))
	require.Equal(t, "+REJECTED superseded|", b.do("NEAR.FILL k "+second["lease"]+" v"))
	require.Zero(t, r.gauge(t, r.Metrics.Rights.Waits))
}

// Where nothing is served there is nothing to wait for.
func TestNoRightsInShadow(t *testing.T) {
	for _, mode := range []policy.Mode{policy.Shadow, policy.Off} {
		r := sharing(t, func(n *policy.Namespace) { n.Mode = mode })
		for range 2 {
			require.Equal(t, "0", r.dial(t).near(t, "NEAR.GET k WAIT 20000")["right"])
		}
	}
}

// Who waited in vain has missed (C3).
func TestPlainGetGivesUp(t *testing.T) {
	r := sharing(t, func(n *policy.Namespace) { n.Lease.Wait = 20 * time.Millisecond })
	a, b := r.dial(t), r.dial(t)
	a.do("GET k")
	require.Equal(t, "$-1|", b.do("GET k"))
	r.Event(t, key("k"))
	b.do("SET k old")
	require.Equal(t, "$-1|", b.do("GET k"), "judged by the miss")
}

// A SET that is refused passes the right on, and one that can never be stored lets
// everybody go.
func TestPlainSetEndsTheRight(t *testing.T) {
	r := sharing(t, nil)
	r.env.Limits.MaxBulk = 4 << 20
	a, b, c := r.dial(t), r.dial(t), r.dial(t)
	a.do("GET k")
	waiting := r.later(t, b, "GET k")
	r.Event(t, key("k"))
	require.Equal(t, "$-1|", answered(t, waiting), "the load of a is void")
	waiting = r.later(t, c, "GET k")
	a.do("SET k old") // refused, and strikes out the newest miss
	b.do("SET k new") // refused for that
	require.Equal(t, "$-1|", answered(t, waiting))
	waiting = r.later(t, a, "GET k")
	c.do("SET k new")
	require.Equal(t, "$3|new|", answered(t, waiting), "two loads after an invalidation, and no more")

	a.do("GET large")
	first, second := r.later(t, b, "GET large"), r.later(t, c, "GET large")
	require.Contains(t, a.do("SET large "+strings.Repeat("x", 2<<20)), "-ERR the value has")
	require.Equal(t, "$-1|$-1|", answered(t, first)+answered(t, second))
}

// In a critical namespace what others load is as fresh as what is held (C6).
func TestCriticalPlainGetWaits(t *testing.T) {
	r := sharing(t, func(n *policy.Namespace) { n.Class = policy.Critical })
	a, b, c := r.dial(t), r.dial(t), r.dial(t)
	require.Equal(t, "$-1|", a.do("GET k"))
	waiting := r.later(t, b, "GET k")
	a.do("SET k value")
	require.Equal(t, "$5|value|", answered(t, waiting))

	lease := a.near(t, "NEAR.GET j ANY")["lease"]
	waiting = r.later(t, c, "GET j")
	before := r.Counts().Publishes
	a.do("NEAR.FILL j " + lease + " VERSION 3 value")
	require.Equal(t, "$5|value|", answered(t, waiting))
	require.Equal(t, before+1, r.Counts().Publishes, "its version is known everywhere")
}

// The right of a connection that ended is the next reader's.
func TestClosedSessionPassesOn(t *testing.T) {
	r := sharing(t, nil)
	a, b := r.dial(t), r.dial(t)
	a.do("GET k")
	waiting := r.later(t, b, "GET k")
	a.s.Close()
	require.Equal(t, "$-1|", answered(t, waiting))
	require.Equal(t, 1.0, r.gauge(t, r.Metrics.Rights.PassedOn))
	b.s.Close()
	require.Zero(t, r.gauge(t, r.Metrics.Rights.Held))
}

// A driver may end a session that it never lets wait.
func TestClosedBeforeItWaits(t *testing.T) {
	r := sharing(t, nil)
	a := r.dial(t)
	a.do("GET k")
	s := session.New(r.env, func() {})
	_, _, next := s.Serve([]byte("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), nil)
	require.Equal(t, session.Run, next)
	s.Close()
	a.s.Close()
	require.Zero(t, r.gauge(t, r.Metrics.Rights.Held))
}
