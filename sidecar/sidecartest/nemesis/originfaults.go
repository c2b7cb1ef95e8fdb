package nemesis

import (
	"context"
	"time"
)

// Faults of this lane leave servers, sidecars and what is between them alone.
var originFaults = []Fault{
	{"origin-down", "the origin refuses or hangs, for all sidecars or for one (I5 I12; C6, C10)", origins, anywhere, func(ctx context.Context, w *worker) error {
		down := &outage{hangs: w.chance(3)}
		if w.chance(3) {
			down.pod = w.pod().name
		}
		before := w.web.hurt.Load()
		w.web.down.Store(down)
		w.last(ctx)
		w.web.down.Store(nil)
		w.bite("origin-down", int(w.web.hurt.Load()-before))
		return nil
	}},
	{"origin-slow", "answers of the origin take up to 3 s, and events pass them (I1 I2 I6; C2, C12)", origins, anywhere, func(ctx context.Context, w *worker) error {
		before := w.web.hurt.Load()
		w.web.slow.Store(int64(20*time.Millisecond + w.span(3*time.Second/2)))
		w.last(ctx)
		w.web.slow.Store(0)
		w.bite("origin-slow", int(w.web.hurt.Load()-before))
		return nil
	}},
	{"origin-errors", "half of the origin's answers are 5xx (I5 I12; C6, C10)", origins, anywhere, func(ctx context.Context, w *worker) error {
		before := w.web.hurt.Load()
		w.web.errors.Store(true)
		w.last(ctx)
		w.web.errors.Store(false)
		w.bite("origin-errors", int(w.web.hurt.Load()-before))
		return nil
	}},
	{"l2-lost", "the shared tier is deleted; the sidecars make it anew (I1 I6; C2)", origins, anywhere, func(ctx context.Context, w *worker) error {
		w.bite("l2-lost", w.tier(ctx, "l2-lost", w.cluster.broker.DeleteBuckets))
		return nil
	}},
	{"l2-full", "the shared tier is filled until all that was in it gives way, locks too (I1 I13; C2)", origins, anywhere, func(ctx context.Context, w *worker) error {
		w.bite("l2-full", w.tier(ctx, "l2-full", w.cluster.broker.FillBuckets))
		return nil
	}},
	{"l2-rolled-back", "what was in the shared tier a while ago comes back, over what is newer (I1 I2 I6 I11; C2)", origins, anywhere, func(ctx context.Context, w *worker) error {
		var restore func(context.Context, string) (int, error)
		n := w.tier(ctx, "l2-rolled-back", func(ctx context.Context, urls string) (n int, err error) {
			n, restore, err = w.cluster.broker.CopyBuckets(ctx, urls)
			return n, err
		})
		if n > 0 {
			w.last(ctx)
			n = w.tier(ctx, "l2-rolled-back", restore)
		}
		w.bite("l2-rolled-back", n)
		return nil
	}},
}

// tier does something to the shared tier as soon as it can be done, and returns how much
// it did. The tier may be away just now, or not be there yet.
func (w *worker) tier(ctx context.Context, fault string, do func(context.Context, string) (int, error)) int {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		n, err := do(ctx, w.cluster.urls())
		if err == nil && n > 0 {
			return n
		}
		if !wait(pause, ctx.Done()) {
			w.counts.add("fault "+fault+": in vain", 1)
			return 0
		}
	}
}
