package membus

import (
	"sync"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// replicaKeeps is how many writes a lagging replica can lack.
const replicaKeeps = 256

// bucketStore is what the broker holds of a bucket. Nothing waits under its lock.
type bucketStore struct {
	config bus.BucketConfig

	mu      sync.Mutex
	last    uint64 // newest revision
	bytes   int64
	keys    map[string][]bucketRecord // oldest first; a replica may lack the newest
	changed chan struct{}             // closed at the next write
}

// bucketRecord is one revision of a key. The zero value is an absent key.
type bucketRecord struct {
	revision uint64 // 0: deleted
	written  uint64 // the write's own number, also of a deletion
	value    []byte
	expires  time.Time // zero: never
}

func newBucketStore(c bus.BucketConfig) *bucketStore {
	return &bucketStore{
		config: c, last: uint64(time.Now().UnixMicro()), keys: map[string][]bucketRecord{}, changed: make(chan struct{}),
	}
}

// read returns the key's record as a replica has it that lacks the newest lag
// writes, and a channel that the next write closes.
func (s *bucketStore) read(key string, lag uint64) (bucketRecord, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recordLocked(key, lag), s.changed
}

func (s *bucketStore) recordLocked(key string, lag uint64) bucketRecord {
	records := s.keys[key]
	for i := len(records) - 1; i >= 0; i-- {
		if r := records[i]; r.written+lag <= s.last {
			if !r.expires.IsZero() && !time.Now().Before(r.expires) {
				return bucketRecord{}
			}
			return r
		}
	}
	return bucketRecord{}
}

// write writes value if the key's revision is as ok wants it; a negative ttl
// deletes.
func (s *bucketStore) write(key string, ttl time.Duration, value []byte, ok func(revision uint64) bool) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok(s.recordLocked(key, 0).revision) {
		return 0, bus.ErrConflict
	}
	s.last++
	r := bucketRecord{written: s.last, value: value}
	if ttl >= 0 {
		r.revision, r.expires = s.last, s.expiry(ttl)
	}
	s.addLocked(key, r)
	s.evictLocked()
	s.announceLocked()
	return r.revision, nil
}

// expiry is when a key written now with this ttl is gone.
func (s *bucketStore) expiry(ttl time.Duration) time.Time {
	if s.config.TTL > 0 && (ttl == 0 || ttl > s.config.TTL) {
		ttl = s.config.TTL
	}
	if ttl == 0 {
		return time.Time{}
	}
	return time.Now().Add(bus.BucketTTL(ttl))
}

// addLocked appends a record and forgets those that every replica has passed.
func (s *bucketStore) addLocked(key string, r bucketRecord) {
	records := s.keys[key]
	if n := len(records); n > 0 {
		s.bytes -= int64(len(key) + len(records[n-1].value))
	}
	s.bytes += int64(len(key) + len(r.value))
	records = append(records, r)
	for len(records) > 1 && records[1].written+replicaKeeps <= s.last {
		records = records[1:]
	}
	s.keys[key] = records
}

// evictLocked removes what was written longest ago while there is too much.
func (s *bucketStore) evictLocked() {
	for s.config.MaxBytes > 0 && s.bytes > s.config.MaxBytes && len(s.keys) > 1 {
		oldest, at := "", s.last
		for key, records := range s.keys {
			if w := records[len(records)-1].written; w < at {
				oldest, at = key, w
			}
		}
		records := s.keys[oldest]
		s.bytes -= int64(len(oldest) + len(records[len(records)-1].value))
		delete(s.keys, oldest)
	}
}

func (s *bucketStore) announceLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// wipe empties the store. Revisions go on.
func (s *bucketStore) wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.bytes, s.keys = s.last+1, 0, map[string][]bucketRecord{}
	s.announceLocked()
}
