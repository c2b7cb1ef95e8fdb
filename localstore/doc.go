// Package localstore is a sidecar's L1: bounded memory for values and their
// stamps, on top of bigcache v3. Nobody else imports bigcache.
//
// A Store takes no decision about freshness and reads no clock. Get and Head
// return an entry also when it has expired; the caller compares Meta.Expires
// with its own monotonic now. What a stamp means is the coherence core's
// business.
//
// # Concurrency
//
// Get, Head, Len, Stats and Scan may be called from anywhere at any time. Put,
// Delete and Reset belong to one writer (the coherence core, under its lock); a
// second one would be serialised, but it could not tell whose entry it
// replaced.
//
// # Memory
//
// Config.Budget covers everything that a Store keeps: the shards' rings, the
// index, the scratch buffers that bigcache and we copy an entry through, and
// the positions of open scans. It is split once, at Open, for the worst case,
// because bigcache can neither shrink a ring nor bound its index:
//
//   - every entry takes at least 128 bytes of ring (shorter ones are padded) and
//     up to 48 bytes of index (Go's map is between 7/16 and 7/8 full and never
//     shrinks), so 3 bytes go to the index for every 8 bytes of ring: a quarter
//     of the budget;
//   - each shard, and the writer, may come to hold a buffer of the largest entry:
//     up to an eighth of the budget, more only when it is small for MaxValue.
//
// With values of up to 1 MiB, 62 to 72 % of a budget of 64 MiB or more is left
// for entries (three eighths of 8 MiB): keys, values, and per entry 19 to 22
// bytes of bigcache's and 6 to 40 of ours. Stats.Capacity tells the exact
// figure. The rings are allocated whole at Open, so that they never grow, but
// are resident only as far as they have been used.
//
// The budget does not cover the garbage that reading and evicting make. Left
// alone, the collector lets garbage grow as large as the rings: whoever sizes a
// process sets a memory limit (GOMEMLIMIT) some way above the budget.
//
// # What bigcache does, and what a Store makes of it
//
//	bigcache                                           | Store
//	---------------------------------------------------+---------------------------------------------
//	one life window, in seconds; Get ignores it, and   | never-ending life window; Meta.Expires, to the
//	Set drops the oldest entry when it has passed      | millisecond, is stored in the entry
//	a key of the same hash is overwritten silently     | looked for before, and reported as evicted
//	Delete removes whichever key has the hash          | compares the key first
//	Delete of an absent key is an error                | is an answer
//	hash 0 means "deleted": the index entry outlives   | hash 0 becomes 1
//	the value, and Get returns bytes of other entries  |
//	key length kept in 16 bits; keys over 65,517 bytes | keys of 1 to 65,535 bytes, the tail kept in the
//	panic when they are read                           | entry; others refused
//	an entry larger than a shard evicts the whole      | ErrTooLarge before anything is touched
//	shard and is then refused                          |
//	HardMaxCacheSize in MiB, 0 unlimited, divided      | a budget in bytes, refused when too small
//	by the shards; the index comes on top              |
//	rings double as they fill, copying themselves      | allocated at their final size
//	initial sizes also presize two maps per shard      | both kept under 1 % of the ring
//	OnRemove runs under the shard's lock               | evictions are reported after it is released
//	the cleaning goroutine prints on stdout            | not started
//	default configuration logs to stdout               | not verbose
//	Close twice panics                                 | Close is idempotent, and frees the memory
//	iterators cannot be resumed, and recurse once per  | cursors; a Reset ends all scans
//	vanished entry                                     |
package localstore
