//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nearside-cache/nearside/api/resp"
)

// lateAfter is how long after the acknowledgement of a change a reader may still
// get the value before it, without being counted.
const lateAfter = 50 * time.Millisecond

// warmUp is before each measurement: what is loaded for the first time, and what the
// other arms have pushed out of the processors' caches.
const warmUp = time.Second

// ttl of what readers store themselves, in seconds.
const ttl = "600"

// arm is one way to read the hot key.
type arm struct {
	name    string
	key     string
	sockets []string // readers are spread over them
	// tell is the command that says that the key changed; nil: nobody is told.
	tell func(key string, version uint64) []string

	readers []*resp.Client
	writer  *resp.Client
	loader  loader
}

func nearsideArms(sockets []string) []arm {
	invalidate := func(key string, version uint64) []string {
		return []string{"NEAR.INVALIDATE", "KEYS", "1", key, strconv.FormatUint(version, 10)}
	}
	return []arm{
		{name: "nearside", key: "plain:hot", sockets: sockets, tell: invalidate},
		{name: "nearside, L2", key: "shared:hot", sockets: sockets, tell: invalidate},
		{name: "nearside, soft TTL", key: "soft:hot", sockets: sockets},
	}
}

const redisName = "cache-aside, Redis"

func redisArm(socket string) arm {
	return arm{name: redisName, key: "aside:hot", sockets: []string{socket}, tell: func(key string, _ uint64) []string { return []string{"DEL", key} }}
}

func (a *arm) connect(ctx context.Context, o options, origin *origin) (err error) {
	a.loader = newLoader(origin.socket, o.clients)
	a.readers = make([]*resp.Client, o.clients)
	for i := range a.readers {
		if a.readers[i], err = resp.Dial(ctx, a.sockets[i%len(a.sockets)], resp.ClientConfig{}); err != nil {
			return err
		}
	}
	a.writer, err = resp.Dial(ctx, a.sockets[0], resp.ClientConfig{})
	return err
}

func (a *arm) close() {
	for _, c := range append(a.readers, a.writer) {
		if c != nil {
			_ = c.Close() // nothing is lost with it
		}
	}
	a.loader.client.CloseIdleConnections()
}

// measurement is what came of one stretch of time.
type measurement struct {
	latencies []time.Duration
	origin    []time.Duration // what its answers took
	loads     int64           // at the origin
	changes   int64
	aside     int64 // loads by readers, of the loads
	late      int64 // reads of a value before one acknowledged more than lateAfter ago
}

// measure reads for a while in which nothing changes, and then while the key does.
func (a *arm) measure(ctx context.Context, o options, origin *origin) (result, error) {
	r := result{arm: a.name}
	_, err := a.stretch(ctx, o, origin, warmUp, false)
	if err != nil {
		return r, err
	}
	if r.quiet, err = a.stretch(ctx, o, origin, o.quiet, false); err != nil {
		return r, err
	}
	r.storm, err = a.stretch(ctx, o, origin, o.storm, true)
	return r, err
}

// stretch has all readers read for d.
func (a *arm) stretch(ctx context.Context, o options, origin *origin, d time.Duration, changes bool) (measurement, error) {
	var (
		m     = measurement{latencies: make([]time.Duration, 0, int(float64(o.clients)*o.rate*d.Seconds()*1.1))}
		mu    sync.Mutex
		aside atomic.Int64
		late  atomic.Int64
		told  history
		end   = time.Now().Add(d)
	)
	before := origin.loads.Load()
	origin.taken()
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range a.readers {
		g.Go(func() error {
			r := reader{arm: a, conn: c, told: &told}
			err := r.run(ctx, end, time.Duration(float64(time.Second)/o.rate))
			aside.Add(r.aside)
			late.Add(r.late)
			mu.Lock()
			defer mu.Unlock()
			m.latencies = append(m.latencies, r.latencies...)
			return err
		})
	}
	if changes {
		g.Go(func() (err error) {
			m.changes, err = a.change(ctx, origin, &told, end, o.every)
			return err
		})
	}
	err := g.Wait()
	m.origin = origin.taken()
	m.loads, m.aside, m.late = origin.loads.Load()-before, aside.Load(), late.Load()
	return m, err
}

// change commits a version every so often, and tells.
func (a *arm) change(ctx context.Context, origin *origin, told *history, end time.Time, every time.Duration) (n int64, err error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ; time.Now().Before(end); n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return n, ctx.Err()
		}
		version := origin.commit(a.key)
		if a.tell == nil {
			continue
		}
		if _, err := a.writer.Do(ctx, a.tell(a.key, version)...); err != nil {
			return n, err
		}
		told.add(version)
	}
	return n, nil
}

// history is when which versions were acknowledged. It is safe for concurrent use.
type history struct {
	mu   sync.RWMutex
	acks []ack
}

type ack struct {
	version uint64
	at      time.Time
}

func (h *history) add(version uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acks = append(h.acks, ack{version, time.Now()})
}

// before returns the newest version that was acknowledged before a moment.
func (h *history) before(at time.Time) uint64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for i := len(h.acks) - 1; i >= 0; i-- {
		if h.acks[i].at.Before(at) {
			return h.acks[i].version
		}
	}
	return 0
}

// reader is one client.
type reader struct {
	*arm
	conn *resp.Client
	told *history

	latencies   []time.Duration
	aside, late int64
}

// run reads, and pauses for a random time, every on the average. A latency is from
// sending a GET until there is a value, the reader's own load included.
func (r *reader) run(ctx context.Context, end time.Time, every time.Duration) error {
	pause := time.NewTimer(rand.N(2 * every))
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		began := time.Now()
		if began.After(end) {
			return nil
		}
		value, err := r.read(ctx)
		if err != nil {
			return err
		}
		r.latencies = append(r.latencies, time.Since(began))
		version, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%s is no version: %w", value, err)
		}
		if version < r.told.before(began.Add(-lateAfter)) {
			r.late++
		}
		pause.Reset(rand.N(2 * every))
	}
}

// read is cache-aside.
func (r *reader) read(ctx context.Context) (string, error) {
	reply, err := r.conn.Do(ctx, "GET", r.key)
	if err != nil {
		return "", err
	}
	if !reply.IsNull() {
		return reply.Str, nil
	}
	r.aside++
	value, err := r.loader.load(ctx, r.key)
	if err != nil {
		return "", err
	}
	_, err = r.conn.Do(ctx, "SET", r.key, value, "EX", ttl)
	if refused := (*resp.ServerError)(nil); errors.As(err, &refused) {
		err = nil // a cache may refuse
	}
	return value, err
}
