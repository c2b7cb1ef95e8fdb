package nemesis

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Fault is one kind of harm. Faults of different lanes overlap, those of one
// lane follow one another.
type Fault struct {
	Name string
	// About says what is done and which invariants it attacks.
	About string

	lane lane
	kind kind
	// do harms until it is done with it or ctx ends, and leaves everything whole.
	do func(ctx context.Context, w *worker) error
}

// kind says how many servers a fault needs.
type kind int

const (
	anywhere  kind = iota
	clustered      // more than one
	alone          // only one: others would repair what it does
)

type lane int

const (
	servers lane = iota // NATS
	pods                // sidecars and their ways to NATS
	load                // what clients do
	lanes               // how many there are
)

// Faults returns all there are.
func Faults() []Fault { return slices.Concat(serverFaults, podFaults, loadFaults) }

// choose returns the faults with these names, separated by commas; "" and "all"
// are all that so many servers can have, "none" is none.
func choose(names string, servers int) ([]Fault, error) {
	all := slices.DeleteFunc(Faults(), func(f Fault) bool {
		return f.kind == clustered && servers == 1 || f.kind == alone && servers > 1
	})
	switch names {
	case "", "all":
		return all, nil
	case "none":
		return nil, nil
	}
	var chosen []Fault
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(all, func(f Fault) bool { return f.Name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no fault %q on %d servers: want %s", name, servers, describeFaults(all))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func describeFaults(all []Fault) string {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "\n  %-16s %s", f.Name, f.About)
	}
	return b.String()
}

// harm does the faults of one lane, one after the other, until ctx ends.
func (w *worker) harm(ctx context.Context, faults []Fault) error {
	if len(faults) == 0 {
		return nil
	}
	for wait(200*time.Millisecond+w.span(time.Second), ctx.Done()) {
		f := faults[w.rng.IntN(len(faults))]
		w.counts.add("fault "+f.Name, 1)
		w.now.add(f.Name)
		err := f.do(ctx, w)
		w.now.remove(f.Name)
		if err != nil {
			return fmt.Errorf("fault %s: %w", f.Name, err)
		}
	}
	return nil
}

// last waits as long as a fault shall last.
func (w *worker) last(ctx context.Context) {
	wait(w.longest/10+w.span(w.longest), ctx.Done())
}

func (w *worker) pod() *sidecar { return w.sidecars[w.rng.IntN(len(w.sidecars))] }

var podFaults = []Fault{
	{"kill-sidecar", "kill -9 of a sidecar, which comes back (I1 I2 I4; C3, C9)", pods, anywhere, func(ctx context.Context, w *worker) error {
		s := w.pod()
		s.end(syscall.SIGKILL)
		if w.chance(2) {
			w.last(ctx)
		}
		err := s.start()
		w.settled(ctx, s)
		return err
	}},
	{"stop-sidecar", "SIGSTOP of a sidecar, then SIGCONT (I1 I5 I6; B5)", pods, anywhere, func(ctx context.Context, w *worker) error {
		s := w.pod()
		s.signal(syscall.SIGSTOP)
		w.last(ctx)
		s.signal(syscall.SIGCONT)
		return nil
	}},
	{"roll-sidecars", "SIGTERM and start of one sidecar after the other (I2 I4; C9)", pods, anywhere, func(ctx context.Context, w *worker) error {
		for _, s := range w.sidecars {
			s.end(syscall.SIGTERM)
			if err := s.start(); err != nil {
				return err
			}
			w.settled(ctx, s)
		}
		return nil
	}},
	{"cold-start", "kill -9 of all sidecars at once, which come back (I1 I3 I6; C9)", pods, anywhere, func(ctx context.Context, w *worker) error {
		for _, s := range w.sidecars {
			s.end(syscall.SIGKILL)
		}
		for _, s := range w.sidecars {
			if err := s.start(); err != nil {
				return err
			}
		}
		w.settled(ctx, w.sidecars...)
		return nil
	}},
	{"partition", "a sidecar and NATS hear nothing of each other (I5 I6 I8; B4, B6)", pods, anywhere, cutting(true, true)},
	{"deaf", "a sidecar is heard by NATS and hears nothing (I5 I6; B4)", pods, anywhere, cutting(false, true)},
	{"mute", "a sidecar hears NATS and is not heard (I4 I6; B8)", pods, anywhere, cutting(true, false)},
	{"delay", "what a sidecar and NATS say to each other takes long (I5 I6; B5)", pods, anywhere, func(ctx context.Context, w *worker) error {
		s := w.pod()
		s.slow(time.Millisecond + w.span(400*time.Millisecond))
		w.last(ctx)
		s.slow(0)
		return nil
	}},
	{"sever", "a sidecar's connections to NATS break, again and again (I1 I7; B2, B3)", pods, anywhere, func(ctx context.Context, w *worker) error {
		s := w.pod()
		for range 1 + w.rng.IntN(8) {
			for _, p := range s.ways {
				p.sever()
			}
			wait(w.span(w.longest/4), ctx.Done())
		}
		return nil
	}},
}

// cutting makes a sidecar unable to send, to receive, or both.
func cutting(up, down bool) func(context.Context, *worker) error {
	return func(ctx context.Context, w *worker) error {
		s := w.pod()
		s.cut(up, down)
		w.last(ctx)
		if w.chance(2) { // as when what lies between has forgotten the connection
			for _, p := range s.ways {
				p.sever()
			}
		}
		s.cut(false, false)
		return nil
	}
}

// settled waits until the sidecars are ready again, but not for ever: NATS may
// be away.
func (w *worker) settled(ctx context.Context, all ...*sidecar) {
	ctx, cancel := context.WithTimeout(ctx, w.longest)
	defer cancel()
	for _, s := range all {
		_ = s.ready(ctx) // the end of the run waits, and complains
	}
}

var serverFaults = []Fault{
	{"kill-server", "kill -9 of a NATS server, which comes back (I5 I6; B2, B3)", servers, anywhere, harming((*worker).anyServer, syscall.SIGKILL)},
	{"stop-server", "SIGSTOP of a NATS server, then SIGCONT (I5 I6; B3, B4)", servers, anywhere, harming((*worker).anyServer, syscall.SIGSTOP)},
	{"kill-leader", "kill -9 of the stream's leader (I4 I5 I6; B1, B3, B8)", servers, clustered, harming((*worker).leader, syscall.SIGKILL)},
	{"stop-leader", "SIGSTOP of the stream's leader, then SIGCONT (I5 I6; B3, B6)", servers, clustered, harming((*worker).leader, syscall.SIGSTOP)},
	{"roll-servers", "SIGTERM and start of one NATS server after the other (I3; B2, B8)", servers, clustered, func(ctx context.Context, w *worker) error {
		for _, s := range w.cluster.servers {
			s.end(syscall.SIGTERM)
			if err := s.start(); err != nil {
				return err
			}
			w.inSync(ctx)
		}
		return nil
	}},
	{"no-quorum", "SIGSTOP of all NATS servers but one, then SIGCONT (I5 I6 I8; B4, B6)", servers, clustered, func(ctx context.Context, w *worker) error {
		spared := w.rng.IntN(len(w.cluster.servers))
		each := func(s syscall.Signal) {
			for i, srv := range w.cluster.servers {
				if i != spared {
					srv.signal(s)
				}
			}
		}
		each(syscall.SIGSTOP)
		w.last(ctx)
		each(syscall.SIGCONT)
		w.inSync(ctx)
		return nil
	}},
	{"isolate-server", "a NATS server hears nothing of the others, and its sidecars stay (I5 I6; B2, B6)", servers, clustered, func(ctx context.Context, w *worker) error {
		w.cluster.isolate(w.rng.IntN(len(w.cluster.servers)))
		w.last(ctx)
		err := w.cluster.heal()
		w.inSync(ctx)
		return err
	}},
	{"recreate-stream", "the stream is deleted; a sidecar makes it anew (I1 I5 I6 I9; B3)", servers, anywhere, recreate},
	{"rollback", "the server comes back with an older copy of its disk (I1 I3 I7 I9; B3, B3a)", servers, alone, rollback},
}

func (w *worker) anyServer(context.Context) *server {
	return w.cluster.servers[w.rng.IntN(len(w.cluster.servers))]
}

func (w *worker) leader(ctx context.Context) *server {
	if s := w.cluster.leader(ctx); s != nil {
		return s
	}
	return w.anyServer(ctx)
}

// harming kills or pauses a server for a while.
func harming(victim func(*worker, context.Context) *server, s syscall.Signal) func(context.Context, *worker) error {
	return func(ctx context.Context, w *worker) error {
		srv := victim(w, ctx)
		if s == syscall.SIGKILL {
			srv.end(s)
		} else {
			srv.signal(s)
		}
		w.last(ctx)
		srv.signal(syscall.SIGCONT)
		err := srv.start()
		w.inSync(ctx)
		return err
	}
}

// recreate deletes the stream, which DenyPurge does not forbid.
func recreate(ctx context.Context, w *worker) error {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := w.cluster.broker.DeleteStream(limit, w.cluster.urls()); err != nil {
		w.counts.add("fault recreate-stream in vain", 1) // no leader just now
	}
	w.inSync(ctx)
	return nil
}

// rollback makes the stream forget its end, which clients were told is in it.
func rollback(ctx context.Context, w *worker) error {
	srv := w.cluster.servers[0]
	store, backup := srv.spec.Store, srv.spec.Store+"-older"
	srv.end(syscall.SIGTERM)
	if err := os.CopyFS(backup, os.DirFS(store)); err != nil {
		return fmt.Errorf("copy the store: %w", err)
	}
	if err := srv.start(); err != nil {
		return err
	}
	w.last(ctx)
	srv.end(syscall.SIGKILL)
	if err := errors.Join(os.RemoveAll(store), os.Rename(backup, store)); err != nil {
		return fmt.Errorf("put the older store back: %w", err)
	}
	err := srv.start()
	w.inSync(ctx)
	return err
}

const syncTime = 15 * time.Second

// inSync waits until all servers hold the stream, so that the next fault does
// not find it on fewer than are needed. It does not wait for ever.
func (w *worker) inSync(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	for {
		n, err := w.cluster.broker.Replicas(ctx, w.cluster.urls())
		if err == nil && n == len(w.cluster.servers) || !wait(2*pause, ctx.Done()) {
			return
		}
	}
}
