package nemesis

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// After healing a sidecar is live within two pulses and one repair, once it has a
// connection to NATS again.
const (
	reconnectTime = 2300 * time.Millisecond // a dial under way gives up, a pause, the next one
	repairTime    = 1500 * time.Millisecond // the longest pause before a repair is tried again
	liveWithin    = reconnectTime + 2*bus.DefaultPulseInterval + repairTime
	// busy is how much longer all of this may take on a machine with other work.
	busy = 3
)

// alone does a fault while no other one harms servers or sidecars, and measures
// how long it takes from its end until every sidecar is live.
func (w *worker) alone(ctx context.Context, f Fault) error {
	w.peace.Lock()
	defer w.peace.Unlock()
	if err := w.inflict(ctx, f); err != nil {
		return err
	}
	if f.lane == servers && !w.whole(ctx) {
		w.counts.add("fault "+f.Name+": the servers are not in sync in time", 1)
		return nil
	}
	var all sync.WaitGroup
	for _, s := range w.sidecars {
		all.Go(func() { w.awaitLive(ctx, s, f) })
	}
	all.Wait()
	return nil
}

// awaitLive notes how long it takes until a sidecar says that it is live.
func (r *run) awaitLive(ctx context.Context, s *sidecar, f Fault) {
	began := time.Now()
	last := ""
	for {
		state, err := s.state(ctx)
		took := time.Since(began)
		switch {
		case err != nil && strings.Contains(err.Error(), tooMany):
			return // nobody can tell
		case state == "live":
			r.recoveries.add(took)
			return
		case took > busy*liveWithin:
			r.judge.broken("live", "%v is not live %v after the end of %s: state %q (%v)", s.current(), took, f.Name, state, err)
			return
		}
		if last != state && state != "" {
			r.counts.add("state "+state+" at the end of a fault", 1)
		}
		last = state
		if !wait(5*time.Millisecond, ctx.Done()) {
			return
		}
	}
}

// state returns that of namespaces without a policy of their own.
func (s *sidecar) state(ctx context.Context) (string, error) {
	c, err := s.dial(ctx)
	if err != nil {
		return "", err
	}
	defer closed(c)
	st, err := c.status(ctx)
	return st.state, err
}

// durations collects some. The zero value is ready; it is safe for concurrent
// use.
type durations struct {
	mu  sync.Mutex
	all []time.Duration
}

func (d *durations) add(x time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, x)
}

// sorted returns them, the shortest first.
func (d *durations) sorted() []time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.Clone(d.all)
	slices.Sort(all)
	return all
}
