package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
)

const (
	batch     = 16               // GETs that a reader sends at once
	ttl       = 5 * time.Minute  // of what it SETs
	maxLoads  = 32               // that one reader has on the way
	operation = 10 * time.Second // longest that a sidecar may take to answer
)

// reader is cache-aside code as any Redis client would write it: GET; on a miss
// load from the origin and SET. Several of its requests are under way at once,
// so a load that takes long does not hold up the others.
type reader struct {
	pod    *pod
	load   *load
	client *resp.Client
	zipf   *rand.Zipf

	loads sync.WaitGroup
	slots chan struct{} // one for each load that is on its way

	mu    sync.Mutex
	fills []fill // loaded, to be SET with the next batch
}

// fill is a loaded record on its way into the cache.
type fill struct {
	row  *row
	city city
}

func newReader(ctx context.Context, l *load, p *pod) (*reader, error) {
	client, err := resp.Dial(ctx, p.socket, resp.ClientConfig{})
	if err != nil {
		return nil, fmt.Errorf("reader of %s: %w", p.name, err)
	}
	return &reader{
		pod: p, load: l, client: client, zipf: newZipf(len(l.origin.rows)),
		slots: make(chan struct{}, maxLoads),
	}, nil
}

// run reads a batch at every tick until ctx ends.
func (r *reader) run(ctx context.Context, every time.Duration) (err error) {
	defer func() { err = errors.Join(err, r.client.Close()) }()
	defer r.loads.Wait()
	return tick(ctx, every, func() error {
		fills := r.loaded()
		rows := r.outdated(fills) // read first, right behind their SETs
		old := len(rows)
		for len(rows) < old+batch {
			rows = append(rows, r.load.origin.rows[r.zipf.Uint64()])
		}
		return r.exchange(ctx, fills, rows, old)
	})
}

// loaded takes the fills that have come by now.
func (r *reader) loaded() []fill {
	r.mu.Lock()
	defer r.mu.Unlock()
	fills := r.fills
	r.fills = nil
	return fills
}

// outdated returns the rows of those fills that come after their own
// invalidation.
func (r *reader) outdated(fills []fill) (rows []*row) {
	applied := r.pod.sidecar.Applied()
	for _, f := range fills {
		if r.load.oracle.outdated(f.row.key, f.city.Version, applied) {
			rows = append(rows, f.row)
		}
	}
	return rows
}

// exchange sends the fills and the reads in one pipeline and judges what comes
// back. The first old rows are those of outdated fills.
func (r *reader) exchange(ctx context.Context, fills []fill, rows []*row, old int) error {
	commands := make([][]string, 0, len(fills)+len(rows))
	for _, f := range fills {
		value, err := json.Marshal(f.city)
		if err != nil {
			return fmt.Errorf("reader of %s: %w", r.pod.name, err)
		}
		commands = append(commands, []string{"SET", f.row.key, string(value), "EX", strconv.Itoa(int(ttl.Seconds()))})
	}
	for _, row := range rows {
		commands = append(commands, []string{"GET", row.key})
	}
	applied, sent := r.pod.sidecar.Applied(), time.Now() // in this order: see oracle
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), operation)
	defer cancel()
	replies, err := r.client.Pipeline(limit, commands...)
	if err != nil {
		return fmt.Errorf("reader of %s: %w", r.pod.name, err)
	}
	for i, reply := range replies {
		if err := reply.Err(); err != nil {
			return fmt.Errorf("reader of %s: %s: %w", r.pod.name, commands[i][0], err)
		}
	}
	tally := r.load.tallies[r.pod]
	tally.reads.Add(uint64(len(rows)))
	for i, reply := range replies[len(fills):] {
		version := uint64(0)
		if reply.IsNull() {
			r.missed(ctx, rows[i])
		} else {
			tally.hits.Add(1)
			version = r.load.judge(r.pod, rows[i], reply.Str, applied, sent)
		}
		if i < old {
			r.load.offered(version != 0 && r.load.oracle.outdated(rows[i].key, version, applied))
		}
	}
	return nil
}

// missed loads the row for a later SET.
func (r *reader) missed(ctx context.Context, row *row) {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	r.loads.Go(func() {
		defer func() { <-r.slots }()
		c, err := r.load.fetch(ctx, row)
		if err != nil {
			return // the load is over
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.fills = append(r.fills, fill{row, c})
	})
}

// tick calls do every so often until ctx ends, which is no error and interrupts
// nothing: what was begun is finished.
func tick(ctx context.Context, every time.Duration, do func() error) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
		if err := do(); err != nil {
			return err
		}
	}
}
