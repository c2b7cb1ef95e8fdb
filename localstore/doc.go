// Package localstore is a sidecar's L1: bounded memory for values and their
// stamps, on top of bigcache v3. Nobody else imports bigcache.
//
// A Store takes no decision about freshness and reads no clock. Reads return an
// entry also when it has expired; the caller compares Meta.Expires with its own
// monotonic now. What a stamp means is the coherence core's business.
//
// # Concurrency
//
// AppendTo, Get, Head, Prefetch, Len, Stats and Scan may be called from anywhere at any
// time. Put, Delete and Reset belong to one writer (the coherence core, under its lock); a
// second one would be serialised, but it could not tell whose entry it replaced.
//
// # Structure
//
// A shard is a lock, an index and two rings. The rings are bigcache's queues: they hold all
// keys, stamps and values. The index is ours, an open table of 8-byte words without
// pointers, so that the collector has nothing to follow however many entries there are. A
// hit waits for memory twice, for its word and its record, copies the value once and
// allocates nothing; Prefetch makes the waits of several keys one. Eviction is S3-FIFO
// (evict.go); docs/adr/0014 weighs the alternatives.
//
// # Memory
//
// Config.Budget covers everything that a Store keeps: rings, indexes, ghosts, the writer's
// buffer, and the positions of open scans. It is split once, at Open, for the worst case,
// because bigcache can neither shrink a ring nor let it grow without a copy:
//
//   - the writer's buffer may come to hold the largest entry: Config.MaxValue and some 70 KB;
//   - the index and the ghosts may come to take 13 bytes for each 128 bytes of ring. Where
//     records are shorter on average, the index is full before the rings are, and the
//     oldest go;
//   - all else, nine tenths where the budget is large for MaxValue, is for records: keys,
//     values, and per entry some 10 to 45 bytes. Stats.Capacity tells the exact figure.
//
// The rings are allocated whole at Open, so that they never grow, but are resident only as
// far as they have been used. Indexes grow by a quarter, one shard at a time.
//
// The budget does not cover the garbage that reading and evicting make. Left
// alone, the collector lets garbage grow as large as the rings: whoever sizes a
// process sets a memory limit (GOMEMLIMIT) some way above the budget.
//
// # What bigcache does, and what a Store makes of it
//
//	bigcache                                           | Store
//	---------------------------------------------------+---------------------------------------------
//	one life window, in seconds; Get ignores it, and   | Meta.Expires, to the millisecond, is stored in
//	Set drops the oldest entry when it has passed      | the entry and the caller's to judge
//	keys of one hash overwrite each other              | live side by side
//	Delete removes whichever key has the hash          | compares the key
//	key length kept in 16 bits; keys over 65,517 bytes | keys of 1 to 65,535 bytes; others refused
//	panic when they are read                           |
//	an entry larger than a shard evicts the whole      | ErrTooLarge before anything is touched
//	shard and is then refused                          |
//	HardMaxCacheSize in MiB, 0 unlimited, divided      | a budget in bytes, refused when too small
//	by the shards; the index comes on top              |
//	rings double as they fill, copying themselves      | allocated at their final size
//	what is overwritten keeps its bytes until its turn | is overwritten in place, or given back sooner
//	OnRemove runs under the shard's lock               | evictions are reported after it is released
//	a queue cannot fill a gap of less than 17 bytes    | records have at least 32
//	Close twice panics                                 | Close is idempotent, and frees the memory
//	iterators cannot be resumed                        | cursors; a Reset ends all scans
package localstore
