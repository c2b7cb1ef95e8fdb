package native_test

import "sync/atomic"

// reserver bounds what is held by a limit.
func reserver(held, limit *int64) func(int64) bool {
	return func(delta int64) bool {
		if now := atomic.AddInt64(held, delta); delta > 0 && now > load(limit) {
			atomic.AddInt64(held, -delta)
			return false
		}
		return true
	}
}

func load(v *int64) int64     { return atomic.LoadInt64(v) }
func store(v *int64, n int64) { atomic.StoreInt64(v, n) }
