package session_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// origin has a value for each key, "v of" it, but for those in results.
type origin struct {
	mu      sync.Mutex
	asked   map[string]int
	results map[string]loader.Result
	err     error
}

// Load implements cache.Origins.
func (o *origin) Load(_ context.Context, _ string, r loader.Request) (loader.Result, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked[r.Key]++
	if o.err != nil {
		return loader.Result{}, o.err
	}
	if result, ok := o.results[r.Key]; ok {
		return result, nil
	}
	return loader.Result{Value: []byte("v-" + r.Key), Version: 1}, nil
}

func (o *origin) requests(key string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[key]
}

func (o *origin) fails(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
}

// loadingRig is a rig with a loader.
func loadingRig(t *testing.T, change func(*policy.Namespace)) (*rig, *origin) {
	o := &origin{asked: map[string]int{}, results: map[string]loader.Result{}}
	r := newRig(t, func(c *cache.Config) {
		c.Origins = o
		n := &c.Policies.Default
		n.Loader, n.TTL = &policy.Loader{URL: "http://origin/{key}"}, time.Hour
		if change != nil {
			change(n)
		}
	})
	return r, o
}

// What a plain command needs the value for is loaded before it is answered; what only
// asks what is held here, or writes, loads nothing.
func TestCommandsThatLoad(t *testing.T) {
	for command, want := range map[string]string{
		"GET k":        "$3|v-k|",
		"MGET k j k":   "*3|$3|v-k|$3|v-j|$3|v-k|",
		"GETEX k EX 9": "$3|v-k|",
		"STRLEN k":     ":3|",
		"EXISTS k k":   ":2|",
	} {
		r, o := loadingRig(t, nil)
		p := r.dial(t)
		require.Equal(t, want, p.do(command))
		require.Equal(t, want, p.do(command))
		require.Equal(t, 1, o.requests("k"))
	}
	r, o := loadingRig(t, nil)
	p := r.dial(t)
	for _, command := range []string{"TTL k", "TYPE k", "EXPIRE k 5", "SCAN 0", "GETDEL k", "DEL k", "SET k x XX", "NEAR.EXPLAIN k", "NEAR.GET k WAIT 0"} {
		p.do(command)
		require.Zero(t, o.requests("k"), command)
	}
}

// Commands of a pipeline and of a MULTI keep their order around loads.
func TestLoadsInAPipeline(t *testing.T) {
	r, _ := loadingRig(t, nil)
	p := r.dial(t)
	require.Equal(t, "$3|v-a|:1|$3|v-a|+PONG|*2|$3|v-b|$3|v-c|", p.pipeline("GET a", "DEL a", "GET a", "PING", "MGET b c"))
	require.Equal(t, "+OK|+QUEUED|+QUEUED|+QUEUED|*3|$3|v-x|*2|$3|v-x|$3|v-y|+PONG|+PONG|",
		p.pipeline("MULTI", "GET x", "MGET x y", "PING", "EXEC", "PING"))
	require.Equal(t, "+OK|$3|v-n|", p.pipeline("CLIENT REPLY SKIP", "GET m", "CLIENT REPLY ON", "GET n"))
}

func TestNearGetLoads(t *testing.T) {
	r, o := loadingRig(t, func(n *policy.Namespace) { n.NegativeTTL = time.Minute })
	p := r.dial(t)
	hit := p.near(t, "NEAR.GET k")
	require.Equal(t, []string{"HIT", "v-k", "1"}, []string{hit["status"], hit["value"], hit["version"]})
	require.Equal(t, "HIT", p.near(t, "NEAR.GET s STRONG")["status"])
	o.results["gone"] = loader.Result{Negative: true}
	for range 2 {
		absent := p.near(t, "NEAR.GET gone")
		require.Equal(t, "NEGATIVE", absent["status"])
		require.NotContains(t, absent, "value")
		require.NotContains(t, absent, "lease")
		require.Equal(t, "$-1|", p.do("GET gone"))
	}
	require.Equal(t, 1, o.requests("gone"))
	r.Event(t, key("gone"))
	delete(o.results, "gone")
	require.Equal(t, "$6|v-gone|", p.do("GET gone"))
}

// Where the origin is away a plain read is answered as if nothing were held, and a
// NEAR.GET with a lease: the client may know how to load.
func TestOriginAway(t *testing.T) {
	r, o := loadingRig(t, nil)
	p := r.dial(t)
	o.fails(loader.ErrFailed)
	require.Equal(t, "$-1|", p.do("GET k"))
	require.Equal(t, "*2|$-1|$-1|", p.do("MGET k j"))
	require.Equal(t, 2, o.requests("k"), "once for each reader")
	miss := p.near(t, "NEAR.GET k")
	require.Equal(t, "MISS", miss["status"])
	require.Equal(t, "1", miss["right"])
	require.Equal(t, "+STORED|", p.do("NEAR.FILL k "+miss["lease"]+" VERSION 3 mine"))
	require.Equal(t, "$4|mine|", p.do("GET k"))
	require.Equal(t, "+OK|", p.do("SET j theirs"))
	require.Equal(t, "$6|theirs|", p.do("GET j"), "its miss was noted (C3)")
}

// Where absences are not kept, one is an answer all the same: nothing is asked twice.
func TestAbsenceThatIsNotKept(t *testing.T) {
	r, o := loadingRig(t, nil)
	p := r.dial(t)
	o.results["k"] = loader.Result{Negative: true}
	for i, command := range []string{"GET k", "MGET k j", "NEAR.GET k"} {
		p.do(command)
		require.Equal(t, i+1, o.requests("k"))
	}
}

// Stale-if-error, for each command, and not beyond the bound.
func TestStaleIfErrorOfCommands(t *testing.T) {
	r, o := loadingRig(t, func(n *policy.Namespace) { n.SoftTTL, n.StaleIfError = 10*time.Second, time.Minute })
	p := r.dial(t)
	var keys []string
	big := strings.Repeat("x", 4000)
	for i := range 40 { // more than one flush of answers
		keys = append(keys, fmt.Sprintf("big%d", i))
		o.results[keys[i]] = loader.Result{Value: []byte(big), Version: 1}
	}
	mget := "MGET " + strings.Join(keys, " ")
	require.Equal(t, "$3|v-k|", p.do("GET k"))
	whole := p.do(mget)
	o.fails(loader.ErrFailed)
	r.Clock.Advance(30 * time.Second)
	require.Equal(t, "$3|v-k|", p.do("GET k"))
	require.Equal(t, "STALE", p.near(t, "NEAR.GET k")["status"])
	require.Equal(t, "MISS", p.near(t, "NEAR.GET k MAXSTALE 10000")["status"])
	require.Equal(t, "MISS", p.near(t, "NEAR.GET k STRONG")["status"])
	require.Equal(t, "*2|$3|v-k|$-1|", p.do("MGET k other"))
	require.Equal(t, whole, p.do(mget), "to the last key")
	require.Equal(t, ":3|", p.do("STRLEN k"))
	require.Equal(t, ":1|", p.do("EXISTS k other"))
	r.Clock.Advance(time.Minute)
	require.Equal(t, "$-1|", p.do("GET k"))
	require.Equal(t, "MISS", p.near(t, "NEAR.GET k ANY")["status"])
	o.fails(nil)
	require.Equal(t, "$3|v-k|", p.do("GET k"))
}

// A reader that waited for a load is answered by reading again, not from the flight:
// what an event made stale between the two is not served (C2), but loaded again.
func TestWaiterReadsAgain(t *testing.T) {
	for _, command := range []string{"GET k", "MGET k", "NEAR.GET k"} {
		t.Run(command, func(t *testing.T) {
			r, o := loadingRig(t, nil)
			p := r.dial(t)
			_, _, next := p.s.Serve(resp.AppendCommand(nil, strings.Fields(command)...), nil)
			require.Equal(t, session.Run, next)
			p.s.Waiting().Run(t.Context())
			o.results["k"] = loader.Result{Value: []byte("new"), Version: 2}
			r.Event(t, bus.KeyVersion{Key: "k", Version: 2})
			answer := string(p.s.Finish(nil)) + p.feed(nil)
			require.NotContains(t, answer, "v-k")
			require.Contains(t, answer, "new")
			require.Equal(t, 2, o.requests("k"))
		})
	}
}

// In a critical namespace, what was loaded is not told before it is known everywhere;
// when that cannot be done, it is not told at all (C12).
func TestCriticalLoads(t *testing.T) {
	r, _ := loadingRig(t, func(n *policy.Namespace) { n.Class = policy.Critical })
	p := r.dial(t)
	w := r.Watch()
	defer w.Close()
	require.Equal(t, "$3|v-k|", p.do("GET k"))
	e := <-w.Events
	require.Equal(t, []bus.KeyVersion{{Key: "k", Version: 1}}, e.Event.Keys)
	for command, absent := range map[string]string{"GET j": "$-1|", "MGET k i": "*2|$-1|$-1|", "STRLEN h": ":0|"} {
		_, _, next := p.s.Serve(resp.AppendCommand(nil, strings.Fields(command)...), nil)
		require.Equal(t, session.Run, next)
		p.s.Waiting().Run(t.Context()) // it has caught up
		require.Empty(t, p.s.Finish(nil))
		_, _, next = p.s.Serve(nil, nil)
		require.Equal(t, session.Run, next)
		r.Bus.FailPublishes(1 << 30)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		p.s.Waiting().Run(ctx)
		cancel()
		r.Bus.FailPublishes(0)
		require.Equal(t, absent, shown(string(p.s.Finish(nil))), command)
	}
}

// What is filled between a critical reader's catching up and its look at the entry has a
// version that nobody else may know of, and is not told before it is known (C12, I6).
func TestCriticalReadOfWhatCameMeanwhile(t *testing.T) {
	for command, answers := range map[string]struct{ untold, told string }{
		"GET k": {"$-1|", "$3|two|"}, "MGET k": {"*1|$-1|", "*1|$3|two|"}, "STRLEN k": {":0|", ":3|"}, "EXISTS k": {":0|", ":1|"},
	} {
		criticalReadOfWhatCameMeanwhile(t, command, answers.untold, answers.told)
	}
}

// Commands that do not catch up tell nothing of such a version, not even that it is
// there (C12).
func TestUntoldVersionIsNotShown(t *testing.T) {
	r := newRig(t, func(c *cache.Config) { c.Policies.Default.Class = policy.Critical })
	p := r.dial(t)
	lease := p.near(t, "NEAR.GET k ANY WAIT 0")["lease"]
	require.Equal(t, "+STORED|", p.do("NEAR.FILL k "+lease+" VERSION 1 one"))
	for command, answer := range map[string]string{
		"SCAN 0": "*2|$1|0|*0|", "TTL k": ":-2|", "TYPE k": "+none|", "EXPIRE k 100": ":0|", "PERSIST k": ":0|",
	} {
		require.Equal(t, answer, p.do(command), command)
	}
	require.Equal(t, "$3|one|", p.do("GET k"))
	for _, c := range [][2]string{{"EXPIRE k 100", ":1|"}, {"TYPE k", "+string|"}, {"PERSIST k", ":1|"}, {"TTL k", ":-1|"}, {"SCAN 0", "*2|$1|0|*1|$1|k|"}} {
		require.Equal(t, c[1], p.do(c[0]), c[0])
	}
}

// An invalidation of a critical key asks what is held under the lock that telling what
// is known elsewhere takes, too.
func TestInvalidateOfACriticalKey(t *testing.T) {
	r := newRig(t, func(c *cache.Config) { c.Policies.Default.Class = policy.Critical })
	p := r.dial(t)
	lease := p.near(t, "NEAR.GET k ANY WAIT 0")["lease"]
	require.Equal(t, "+STORED|", p.do("NEAR.FILL k "+lease+" VERSION 1 one"))
	require.Equal(t, ":1|", p.do("DEL k"))
}

func criticalReadOfWhatCameMeanwhile(t *testing.T, command, untold, told string) {
	r := newRig(t, func(c *cache.Config) { c.Policies.Default.Class = policy.Critical })
	p, other := r.dial(t), r.dial(t)
	first, second := other.near(t, "NEAR.GET k ANY WAIT 0")["lease"], other.near(t, "NEAR.GET k ANY WAIT 0")["lease"]
	require.Equal(t, "+STORED|", other.do("NEAR.FILL k "+first+" VERSION 1 one"))
	_, _, next := p.s.Serve(resp.AppendCommand(nil, strings.Fields(command)...), nil)
	require.Equal(t, session.Run, next)
	p.s.Waiting().Run(t.Context()) // it has caught up, and version 1 is known everywhere
	require.Equal(t, "+STORED|", other.do("NEAR.FILL k "+second+" VERSION 2 two"))
	require.Equal(t, untold, shown(string(p.s.Finish(nil))), command)
	before := r.Counts().Publishes
	require.Equal(t, told, p.do(command))
	require.Equal(t, before+1, r.Counts().Publishes)
}

// A hundred clients that miss one key cost one load.
func TestOneLoadForAllClients(t *testing.T) {
	t.Run("together", oneLoadForAllClients)
	t.Run("one after the other", func(t *testing.T) {
		r, o := loadingRig(t, nil)
		var waiting []*peer
		for _, command := range []string{"GET k", "MGET k j k", "NEAR.GET k"} {
			p := r.dial(t)
			_, _, next := p.s.Serve(resp.AppendCommand(nil, strings.Fields(command)...), nil)
			require.Equal(t, session.Run, next)
			waiting = append(waiting, p)
		}
		for _, p := range waiting {
			p.s.Waiting().Run(t.Context())
			require.Contains(t, string(p.s.Finish(nil)), "v-k")
		}
		require.Equal(t, 1, o.requests("k"))
	})
}

func oneLoadForAllClients(t *testing.T) {
	r, o := loadingRig(t, nil)
	var clients sync.WaitGroup
	for i := range 100 {
		p := r.dial(t)
		command := []string{"GET k", "MGET k", "NEAR.GET k STRONG", "NEAR.GET k"}[i%4]
		clients.Go(func() {
			if answer := p.do(command); !strings.Contains(answer, "v-k") {
				t.Errorf("%s: %s", command, answer)
			}
		})
	}
	clients.Wait()
	require.Equal(t, 1, o.requests("k"))
}

// Compressed values are for clients as they were.
func TestCompressedValues(t *testing.T) {
	r, _ := loadingRig(t, func(n *policy.Namespace) { n.Loader, n.CompressOver = nil, 100 })
	p := r.dial(t)
	long := strings.Repeat("words", 200)
	bulk := "$1000|" + long + "|"
	p.do("SET a " + long)
	require.Equal(t, ":1000|", p.do("STRLEN a"))
	require.Equal(t, "*2|"+bulk+"$-1|", p.do("MGET a b"))
	require.Equal(t, bulk, p.do("GETEX a EX 100"))
	require.Equal(t, ":1|", p.do("EXPIRE a 50"))
	require.Equal(t, ":50|", p.do("TTL a"))
	require.Equal(t, ":1000|", p.do("STRLEN a"))
	require.Equal(t, bulk, p.do("GET a"))
	require.Equal(t, "*2|$1|0|*1|$1|a|", p.do("SCAN 0 COUNT 1000"))
	require.Equal(t, bulk, p.do("GETDEL a"))
}

// Without a loader, one reader of a value past its soft TTL is told to load it anew;
// the others are given it meanwhile.
func TestStaleWithoutALoader(t *testing.T) {
	r, _ := loadingRig(t, func(n *policy.Namespace) {
		n.Loader, n.Lease.Get = nil, true
		n.SoftTTL, n.StaleWhileRevalidate = 10*time.Second, 5*time.Second
	})
	for _, get := range []string{"GET ", "NEAR.GET "} {
		name := strings.ReplaceAll(get, " ", "")
		a, b := r.dial(t), r.dial(t)
		require.Equal(t, "+OK|", a.do("SET "+name+" v"))
		r.Clock.Advance(11 * time.Second)
		first := a.do(get + name)
		require.NotContains(t, first, "|v|")
		require.Contains(t, b.do(get+name), "|v|")
		require.Contains(t, b.do(get+name), "|v|")
		a.s.Close()
		require.NotContains(t, b.do(get+name), "|v|", "now it is told")
	}
}
