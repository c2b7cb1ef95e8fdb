package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// web is the origin as the sidecars' loaders reach it, each under a path of its own.
type web struct {
	origin *origin
	judge  *judge
	counts *counts
	server http.Server
	addr   string
	ended  chan struct{} // closed when it serves no more
	all    sync.WaitGroup

	mu  sync.Mutex
	rng *rand.Rand

	// What faults set: nothing is answered, to nobody or to one pod; each answer takes up
	// to so many nanoseconds; half of the answers are errors.
	down   atomic.Pointer[outage]
	slow   atomic.Int64
	errors atomic.Bool
	hurt   atomic.Int64 // requests that a fault was met by
}

// outage is how the origin is down.
type outage struct {
	pod   string // that it is down for; empty: all
	hangs bool   // it does not even refuse
}

func newWeb(o *origin, j *judge, c *counts, seed uint64) (*web, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the origin's listener: %w", err)
	}
	w := &web{
		origin: o, judge: j, counts: c, addr: l.Addr().String(), ended: make(chan struct{}),
		rng: rand.New(rand.NewPCG(seed, uint64(lanes))),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{pod}/{key}", w.answer)
	w.server.Handler = mux
	go func() {
		defer close(w.ended)
		if err := w.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			j.broken("processes", "the origin: %v", err)
		}
	}()
	return w, nil
}

// url is a pod's own way to it.
func (w *web) url(pod string) string { return "http://" + w.addr + "/" + pod }

func (w *web) close() error {
	err := w.server.Close()
	<-w.ended
	w.all.Wait()
	return err
}

// chance is true once in n times.
func (w *web) chance(n int) bool { return w.span(time.Duration(n)) == 0 }

// span returns a duration below d.
func (w *web) span(d time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.rng.Int64N(int64(d)))
}

// answer is one try of a load.
func (w *web) answer(rw http.ResponseWriter, r *http.Request) {
	w.all.Add(1)
	defer w.all.Done()
	pod, key := r.PathValue("pod"), r.PathValue("key")
	s := spaceOf(key)
	if s == nil {
		http.Error(rw, "no such key", http.StatusBadRequest)
		return
	}
	w.fail(r.Context(), pod)
	if w.errors.Load() && w.chance(2) {
		w.hurt.Add(1)
		w.counts.add("origin: 503", 1)
		rw.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.linger(r.Context())
	f, refused := w.read(key, r.Header.Get("X-Nearside-At-Least"))
	status := http.StatusOK
	if f.absent {
		status = http.StatusNotFound
	}
	if serial, same := confirmed(r.Header.Get("If-None-Match"), f); same && !refused {
		status, f.serial = http.StatusNotModified, serial
	}
	w.linger(r.Context()) // on its way back: the worst time for events to come
	if w.chance(8) {
		w.overtake(r.Context(), f)
	}
	if r.Context().Err() != nil {
		w.counts.add("origin: nobody waits for the answer any more", 1)
		return
	}
	if refused {
		w.judge.refused(f, life{})
		w.counts.add(olderAnswers, 1)
	} else {
		w.counts.add("origin: "+strconv.Itoa(status), 1)
		w.judge.given(f, pod)
		defer w.judge.given(f, pod) // it is known at the latest when it is written
	}
	w.write(rw, s, status, f)
}

// fail does what an origin does that is down.
func (w *web) fail(ctx context.Context, pod string) {
	down := w.down.Load()
	if down == nil || down.pod != "" && down.pod != pod {
		return
	}
	w.hurt.Add(1)
	w.counts.add("origin: down", 1)
	if down.hangs {
		wait(longestFault, ctx.Done())
	}
	panic(http.ErrAbortHandler)
}

// linger is a part of the time that an answer takes.
func (w *web) linger(ctx context.Context) {
	d := 2 * time.Millisecond
	if slow := time.Duration(w.slow.Load()); slow > 0 {
		d = slow
		w.hurt.Add(1)
	} else if w.chance(40) {
		d = 200 * time.Millisecond
	}
	wait(w.span(d), ctx.Done())
}

// overtake lets an answer be on its way back until there is a newer version and its event
// may have passed it, if that does not take long.
func (w *web) overtake(ctx context.Context, f found) {
	const step, longest = 2 * time.Millisecond, 150 * time.Millisecond
	for began := time.Now(); time.Since(began) < longest; {
		if newer, _ := w.origin.absent(f.key, f.version+1); newer {
			wait(w.span(20*time.Millisecond), ctx.Done())
			return
		}
		if !wait(step, ctx.Done()) {
			return
		}
	}
}

// read reads the newest version, or now and then, for a loader that knows of a newer
// one, as a replica that lags: that must not be kept, nor told to anybody.
func (w *web) read(key, atLeast string) (f found, refused bool) {
	if least, err := strconv.ParseUint(atLeast, 10, 64); err == nil && w.chance(8) && spaceOf(key).absences {
		if f, ok := w.origin.readOlder(key, least); ok {
			return f, true
		}
	}
	return w.origin.read(key), false
}

// confirmed returns the serial of the value that an ETag stands for, and whether it is
// what the origin has still.
func confirmed(etag string, f found) (serial uint64, same bool) {
	var version uint64
	_, err := fmt.Sscanf(etag, "\"%d.%d\"", &version, &serial)
	return serial, err == nil && !f.absent && version == f.version
}

func (w *web) write(rw http.ResponseWriter, s *space, status int, f found) {
	h := rw.Header()
	if s.versioned && (!f.absent || s.absences) {
		h.Set(versionHeader, formatUint(f.version))
	}
	if s.tagged {
		h.Set(tagsHeader, tagOf(f.key))
	}
	if !f.absent {
		h.Set("ETag", fmt.Sprintf("\"%d.%d\"", f.version, f.serial))
	}
	rw.WriteHeader(status)
	if status == http.StatusOK {
		_, _ = rw.Write([]byte(valueOf(f))) // the loader may be gone
	}
	_ = http.NewResponseController(rw).Flush()
}
