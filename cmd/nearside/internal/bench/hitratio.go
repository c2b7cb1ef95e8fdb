package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/api/resp"
)

// HitRatio replays a trace as cache-aside code would: GET each key, and SET it
// after a miss. One connection does it, so that the order is the trace's.
type HitRatio struct {
	Prefix   string // of the keys
	Size     int    // bytes of each value
	Pipeline int    // keys read at once; one that comes twice among them can miss twice
	Requests uint64 // reads, at most; 0: to the trace's end
}

// Replayed is what a replay has seen, beside what it recorded.
type Replayed struct {
	Span
	// Distinct is how many keys there were: so many misses a cache cannot avoid.
	// Counting them takes some 40 bytes for each.
	Distinct uint64
}

// replay is one run of a HitRatio.
type replay struct {
	HitRatio
	c     *conn
	trace Trace
	rec   *Recorder
	value Value
	seen  map[uint64]struct{} // hashes of keys

	out   []byte
	keys  [][]byte // of the batch
	sent  time.Time
	reads uint64
}

// Run replays until the trace or its requests end, or ctx does.
func (h HitRatio) Run(ctx context.Context, t Target, trace Trace, rec *Recorder) (_ Replayed, err error) {
	c, err := t.connect(ctx)
	if err != nil {
		return Replayed{}, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	defer context.AfterFunc(ctx, c.interrupt)()
	r := &replay{HitRatio: h, c: c, trace: trace, rec: rec, value: NewValue(h.Size), seen: map[uint64]struct{}{}}
	begin, used := time.Now(), cpuTime()
	for more := true; more && err == nil; {
		more, err = r.batch()
	}
	done := Replayed{Span: Span{Took: time.Since(begin)}, Distinct: uint64(len(r.seen))}
	done.Cores = (cpuTime() - used).Seconds() / max(done.Took, 1).Seconds()
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		done.Interrupted, err = true, nil
	}
	return done, err
}

// batch replays the next keys, and reports whether there are more.
func (r *replay) batch() (more bool, err error) {
	more, err = r.take()
	if err != nil || len(r.keys) == 0 {
		return false, err
	}
	r.out = r.out[:0]
	for _, key := range r.keys {
		r.out = appendGet(r.out, func(dst []byte) []byte { return resp.AppendBulk(dst, key) })
	}
	var sets []byte
	missed := 0
	r.sent = time.Now()
	err = r.c.exchange(r.out, len(r.keys), func(i int, a reply) error {
		if r.note(Get, a) == miss {
			sets = r.value.appendSet(sets, func(dst []byte) []byte { return resp.AppendBulk(dst, r.keys[i]) })
			missed++
		}
		return nil
	})
	if err != nil || missed == 0 {
		return more, err
	}
	r.sent = time.Now()
	return more, r.c.exchange(sets, missed, func(_ int, a reply) error {
		r.note(Set, a)
		return nil
	})
}

func (r *replay) note(o Op, a reply) outcome {
	what, err := judge(o, a, r.Size)
	if err != nil {
		r.rec.fail(err)
	}
	r.rec.served(0, o)
	r.rec.record(0, sample{op: o, outcome: what, latency: a.at.Sub(r.sent)})
	return what
}

// take takes the keys of the next batch from the trace.
func (r *replay) take() (more bool, err error) {
	r.keys = r.keys[:0]
	for len(r.keys) < r.Pipeline {
		if r.Requests > 0 && r.reads == r.Requests {
			return false, nil
		}
		key, err := r.trace.Next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if n := len(r.Prefix) + len(key); n > api.MaxKey {
			return false, fmt.Errorf("%w: with its prefix a key has %d bytes, the longest has %d", ErrTrace, n, api.MaxKey)
		}
		r.reads++
		r.seen[xxhash.Sum64(key)] = struct{}{}
		r.keys = append(r.keys, append([]byte(r.Prefix), key...))
	}
	return true, nil
}
