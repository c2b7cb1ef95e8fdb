package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
)

// observed is one sidecar of a Lag.
type observed struct {
	target     Target
	reader     *resp.Client
	watcher    *resp.Client
	applied    chan arrival
	push, read Histogram
	stale      uint64 // old values after the push
}

// arrival is a push about a key of this run.
type arrival struct {
	key string
	at  time.Time
}

func (o *observed) named(err error) error { return fmt.Errorf("%s: %w", o.target.Address, err) }

// open connects the reader and the watcher.
func (o *observed) open(ctx context.Context) (err error) {
	if o.reader, err = o.target.Client(ctx, nil); err != nil {
		return err
	}
	if o.watcher, err = o.target.Client(ctx, nil); err != nil {
		return err
	}
	_, err = o.watcher.Do(ctx, "NEAR.WATCH")
	return err
}

// watch passes on what is pushed about keys with the prefix, until ctx ends.
func (o *observed) watch(ctx context.Context, prefix string) error {
	for ctx.Err() == nil {
		push, err := o.watcher.WaitPush(ctx)
		at := time.Now()
		if err != nil && ctx.Err() == nil {
			return o.named(err)
		}
		key, ok := pushedKey(push)
		if !ok || !strings.HasPrefix(key, prefix) {
			continue
		}
		select {
		case o.applied <- arrival{key, at}:
		case <-ctx.Done():
		}
	}
	return nil
}

// pushedKey returns the key of an event about one.
func pushedKey(push resp.Reply) (string, bool) {
	if len(push.Elems) != 2 || push.Elems[0].Str != "near.event" {
		return "", false
	}
	var event struct {
		Keys []struct {
			Key string `json:"key"`
		} `json:"keys"`
	}
	if json.Unmarshal([]byte(push.Elems[1].Str), &event) != nil || len(event.Keys) != 1 {
		return "", false
	}
	return event.Keys[0].Key, true
}

// ErrLag says that the sidecars of a Lag are not as it needs them.
var ErrLag = errors.New("the lag cannot be measured")

var (
	errNoPush   = fmt.Errorf("%w: no push came of an event that was acknowledged: are all sockets of one domain, and is the keys' namespace not sensitive?", ErrLag)
	errNotHeld  = fmt.Errorf("%w: it does not hold what SET offers it: see nearside explain for a key, and choose a --prefix whose policy keeps a SET", ErrLag)
	errStillOld = fmt.Errorf("%w: it still serves the old value of a key: are all sockets of one domain?", ErrLag)
)

// holdPause is how long hold pauses between two tries.
const holdPause = 10 * time.Millisecond

// hold makes the sidecar hold the value. A sidecar that has just started may
// drop a SET, so it is offered until ctx ends.
func (o *observed) hold(ctx context.Context, key, value string) error {
	for {
		replies, err := o.reader.Pipeline(ctx, []string{"SET", key, value, "EX", "60"}, []string{"GET", key})
		if err != nil {
			return waited(ctx, err, errNotHeld)
		}
		for _, r := range replies {
			if err := r.Err(); err != nil {
				return err
			}
		}
		if replies[1].Str == value {
			return nil
		}
		if err := sleep(ctx, holdPause); err != nil {
			return waited(ctx, err, errNotHeld)
		}
	}
}

// waited returns why if err comes from a round's having taken too long.
func waited(ctx context.Context, err, why error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return why
	}
	return err
}

// await waits for the push about the key, and records when it came unless begin
// is zero.
func (o *observed) await(ctx context.Context, key string, begin time.Time) error {
	for {
		select {
		case a := <-o.applied:
			if a.key != key {
				continue // of a round that was given up
			}
			if !begin.IsZero() {
				o.push.Record(a.at.Sub(begin))
			}
			return nil
		case <-ctx.Done():
			return waited(ctx, ctx.Err(), errNoPush)
		}
	}
}

// untilOther reads the key until the answer is not old, and returns when that
// answer came. begun is called once, when the first answer is there or failed.
func (o *observed) untilOther(ctx context.Context, key, old string, begun func()) (time.Time, error) {
	for {
		value, err := o.reader.Do(ctx, "GET", key)
		at := time.Now()
		if begun != nil {
			begun()
			begun = nil
		}
		if err != nil {
			return at, o.named(waited(ctx, err, errStillOld))
		}
		if value.Str != old {
			return at, nil
		}
	}
}
