package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// fillBatch is how many requests, or bytes of values, a batch of Fill has.
const (
	fillBatch      = 128
	fillBatchBytes = 1 << 20
)

// Fill stores a value of size bytes under each of the first n keys. filled
// counts them meanwhile. The first answer that is an error ends it.
func Fill(ctx context.Context, t Target, prefix string, n uint64, size int, filled *atomic.Uint64) (err error) {
	c, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	defer context.AfterFunc(ctx, c.interrupt)()
	batch := uint64(max(min(fillBatch, fillBatchBytes/(size+1)), 1))
	value := NewValue(size)
	var out []byte
	for from := uint64(0); from < n; from += batch {
		count := min(batch, n-from)
		out = out[:0]
		for k := from; k < from+count; k++ {
			out = value.appendSet(out, func(dst []byte) []byte { return appendKey(dst, prefix, k) })
		}
		err := c.exchange(out, int(count), func(i int, r reply) error {
			if _, err := judge(Set, r, size); err != nil {
				return fmt.Errorf("set %s: %w", Key(prefix, from+uint64(i)), err)
			}
			return nil
		})
		if err != nil {
			return errors.Join(ctx.Err(), err)
		}
		filled.Add(count)
	}
	return nil
}
