package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
)

// writer changes records: it commits to the origin, then invalidates with a
// plain DEL on its sidecar's socket. Every second time it takes a record that is
// on a slow load, if there is one: the worst moment for a cache.
type writer struct {
	pod    *pod
	load   *load
	client *resp.Client
	index  int // of the writer: its rows are those whose rank leaves it as the remainder
	zipf   *rand.Zipf
	count  int
}

func newWriter(ctx context.Context, l *load, index int) (*writer, error) {
	p := l.fleet.pods[index]
	client, err := resp.Dial(ctx, p.socket, resp.ClientConfig{})
	if err != nil {
		return nil, fmt.Errorf("writer on %s: %w", p.name, err)
	}
	return &writer{pod: p, load: l, client: client, index: index, zipf: newZipf(len(l.origin.rows) / len(l.fleet.pods))}, nil
}

// run writes at every tick until ctx ends.
func (w *writer) run(ctx context.Context, every time.Duration) (err error) {
	defer func() { err = errors.Join(err, w.client.Close()) }()
	return tick(ctx, every, func() error {
		r := w.choose()
		r.commit()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), operation)
		defer cancel()
		if _, err := w.client.Do(limit, "DEL", r.key); err != nil {
			return fmt.Errorf("writer on %s: DEL %s: %w", w.pod.name, r.key, err)
		}
		w.load.writes.Add(1)
		return nil
	})
}

// choose returns a row of the writer's own: nobody else commits to it, as a
// database would have its writers wait for each other.
func (w *writer) choose() *row {
	w.count++
	if w.count%2 == 0 {
		if r := w.load.slow[w.index].Swap(nil); r != nil {
			return r
		}
	}
	return w.load.origin.rows[int(w.zipf.Uint64())*len(w.load.fleet.pods)+w.index]
}
