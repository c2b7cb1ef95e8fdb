package nemesis

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

var serverFaults = []Fault{
	{"kill-server", "kill -9 of a NATS server, which comes back (I5 I6; B2, B3)", servers, anywhere, harming((*worker).anyServer, syscall.SIGKILL)},
	{"stop-server", "SIGSTOP of a NATS server for up to 30 s, then SIGCONT (I5 I6; B3, B4)", servers, anywhere, harming((*worker).anyServer, syscall.SIGSTOP)},
	{"kill-leader", "kill -9 of the stream's leader (I4 I5 I6; B1, B3, B8)", servers, clustered, harming((*worker).leader, syscall.SIGKILL)},
	{"stop-leader", "SIGSTOP of the stream's leader for up to 30 s, then SIGCONT (I5 I6; B3, B6)", servers, clustered, harming((*worker).leader, syscall.SIGSTOP)},
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
	{"no-quorum", "SIGSTOP of all NATS servers but one for up to 30 s, then SIGCONT (I5 I6 I8; B4, B6)", servers, clustered, func(ctx context.Context, w *worker) error {
		spared := w.rng.IntN(len(w.cluster.servers))
		each := func(s syscall.Signal) {
			for i, srv := range w.cluster.servers {
				if i != spared {
					srv.signal(s)
				}
			}
		}
		each(syscall.SIGSTOP)
		w.pause(ctx, w.long())
		each(syscall.SIGCONT)
		w.inSync(ctx)
		return nil
	}},
	{"isolate-server", "a NATS server and the others hear nothing of each other, and its sidecars stay (I5 I6; B2, B6)", servers, clustered, isolating("isolate-server", true, true)},
	{"deaf-server", "a NATS server is heard by the others and hears nothing of them (I5 I6; B2, B6)", servers, clustered, isolating("deaf-server", false, true)},
	{"mute-server", "a NATS server hears the others and is not heard by them (I5 I6; B2, B6)", servers, clustered, isolating("mute-server", true, false)},
	{"slow-routes", "what NATS servers say to each other takes long (I4 I5 I6; B2, B6)", servers, clustered, func(ctx context.Context, w *worker) error {
		before := w.cluster.held()
		w.cluster.slow(time.Millisecond + w.span(300*time.Millisecond))
		w.last(ctx)
		w.cluster.open()
		w.bite("slow-routes", int(w.cluster.held()-before))
		w.inSync(ctx)
		return nil
	}},
	{"jump-server", "the wall clock of a NATS server jumps by minutes to hours, forward or back (I1 I3 I5; B3, B5, C3)", servers, anywhere, jumpServer},
	{"disk-full", "the disk of a NATS server, or of all, takes no more; then it does, and they start anew (I4 I5 I6 I8; B3, B8)", servers, anywhere, diskFull},
	{"store-full", "JetStream holds as much as it may and takes no more, then it does (I4 I5 I8; B4, B8)", servers, anywhere, storeFull},
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
			w.last(ctx)
		} else {
			srv.signal(s)
			w.pause(ctx, w.long())
		}
		srv.signal(syscall.SIGCONT)
		err := srv.start()
		w.inSync(ctx)
		return err
	}
}

// isolating cuts what a server says to the others, what it hears of them, or both.
func isolating(name string, says, hears bool) func(context.Context, *worker) error {
	return func(ctx context.Context, w *worker) error {
		before := w.cluster.held()
		w.cluster.isolate(w.rng.IntN(len(w.cluster.servers)), says, hears)
		w.last(ctx)
		w.cluster.open()
		w.bite(name, int(w.cluster.held()-before))
		w.inSync(ctx)
		return nil
	}
}

// jumpServer prefers the leader, whose clock stamps the messages.
func jumpServer(ctx context.Context, w *worker) error {
	srv := w.anyServer(ctx)
	if w.chance(2) {
		srv = w.leader(ctx)
	}
	if w.jumpClock(ctx, srv.machine) {
		w.bite("jump-server", 1)
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if newest, err := w.cluster.broker.Newest(limit, w.cluster.urls()); err == nil && time.Until(newest).Abs() > 30*time.Second {
		w.counts.add("fault jump-server: messages stamped with a wrong time at its end", 1)
	}
	return nil
}

// diskFull ends with a restart, for a server whose disk was full has stopped its
// JetStream for good.
func diskFull(ctx context.Context, w *worker) error {
	victims := []*server{w.anyServer(ctx)}
	if w.chance(4) {
		victims = w.cluster.servers
	}
	began := make([]int64, len(victims))
	for i, s := range victims {
		began[i] = s.logged()
		s.machine.setFull(true)
	}
	w.last(ctx)
	var err error
	for i, s := range victims {
		s.machine.setFull(false)
		w.bite("disk-full", s.said(began[i], "no space left on device", "will be DISABLED"))
		s.end(syscall.SIGTERM)
		err = errors.Join(err, s.start())
	}
	w.inSync(ctx)
	return err
}

const fillTime = 10 * time.Second // for the filling of the store, at most

// storeFull reaches the limit that the servers were given.
func storeFull(ctx context.Context, w *worker) error {
	limit, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	full, err := w.cluster.broker.Fill(limit, w.cluster.urls())
	if full {
		w.bite("store-full", 1)
		w.last(ctx)
	} else if err != nil {
		w.counts.add("fault store-full in vain", 1) // no leader just now
	}
	// Not of ctx: what was filled must be emptied.
	for i := 0; ; i++ {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		err := w.cluster.broker.Empty(limit, w.cluster.urls())
		cancel()
		if err == nil || i == 10 {
			return err
		}
		wait(pause, nil)
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
	for !w.whole(ctx) {
		if !wait(2*pause, ctx.Done()) {
			return
		}
	}
}

// whole reports whether all servers hold the stream.
func (w *worker) whole(ctx context.Context) bool {
	n, err := w.cluster.broker.Replicas(ctx, w.cluster.urls())
	return err == nil && n == len(w.cluster.servers)
}
