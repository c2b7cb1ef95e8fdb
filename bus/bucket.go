package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Errors of a Bucket. Any other error means that there was no answer: what was
// asked may have been done or not.
var (
	// ErrKeyNotFound says that the bucket holds no value under the key.
	ErrKeyNotFound = errors.New("bus: the bucket holds no such key")
	// ErrConflict says that the key is at another revision than the caller said,
	// or present where it was to be created. Nothing was written.
	ErrConflict = errors.New("bus: the key is at another revision")
	// ErrBadKey says that a key is empty or longer than MaxKey.
	ErrBadKey = errors.New("bus: a key that no bucket can hold")
	// ErrForeign says that somebody else wrote what is under the key.
	ErrForeign = errors.New("bus: what is under the key was not written by nearside")
	// ErrBucketUnfit says that a bucket cannot be had as it was asked for: a bad
	// name or setting, or one that exists with settings that cannot work.
	ErrBucketUnfit = errors.New("bus: the bucket cannot be used")
)

// MaxBucketName is the length of the longest name of a bucket, in bytes.
const MaxBucketName = 200

// Storage says where a broker keeps a bucket.
type Storage string

// Storages of buckets.
const (
	StorageFile   Storage = "file"   // survives a restart of the broker
	StorageMemory Storage = "memory" // does not
)

// BucketConfig says how a bucket is made. One that exists keeps its own settings
// as long as they can work.
type BucketConfig struct {
	// TTL is how long a key lives that was written without a TTL of its own, and
	// at most any key; 0 is for ever.
	TTL time.Duration
	// MaxBytes limits what the bucket holds; 0 is no limit. What was written
	// longest ago gives way.
	MaxBytes int64
	// Replicas is how many servers hold the bucket; 0 is as many as the broker
	// thinks best.
	Replicas int
	// Storage is StorageFile when empty.
	Storage Storage
}

// Validate reports all faults at once, joined, under ErrBucketUnfit.
func (c BucketConfig) Validate(name string) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !ValidBucketName(name) {
		fault("its name: want 1 to %d of A-Z, a-z, 0-9, _ and -", MaxBucketName)
	}
	if c.TTL < 0 || c.TTL > 0 && c.TTL < time.Second {
		fault("ttl is %v: want 0 (for ever), or 1s or more", c.TTL)
	}
	if c.MaxBytes < 0 {
		fault("max_bytes is %d: want 0 (no limit) or more", c.MaxBytes)
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		fault("replicas is %d: want 1 to 5, or 0 for as many as the servers allow up to 3", c.Replicas)
	}
	switch c.Storage {
	case "", StorageFile, StorageMemory:
	default:
		fault("storage is %q: want %s or %s", c.Storage, StorageFile, StorageMemory)
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w: bucket %.80q: %w", ErrBucketUnfit, name, errors.Join(faults...))
}

// ValidBucketName reports whether a bucket can have this name.
func ValidBucketName(name string) bool {
	return name != "" && len(name) <= MaxBucketName && strings.IndexFunc(name, func(r rune) bool {
		return r > 0x7f || !isPlain(byte(r))
	}) < 0
}

// Buckets is a bus that offers buckets.
type Buckets interface {
	// Bucket opens the bucket and makes it when there is none. It may be called any
	// number of times. ErrBucketUnfit tells what is wrong with the name, the
	// settings or the bucket that exists.
	Bucket(ctx context.Context, name string, c BucketConfig) (Bucket, error)
}

// Bucket is the storage of the shared tier (L2): keys with one value each, shared
// by all who open it. Each write gives the key a revision that no write to the
// bucket had before, and that is higher than all of them; an absent key is at
// revision 0.
//
// Keys are arbitrary bytes, 1 to MaxKey of them. A value may be as large as one
// message of the bus (ErrTooLarge). A ttl of 0 is the bucket's own; others are
// rounded by BucketTTL, and replace that of the former value. A key is never
// gone before its TTL, and at most some seconds after it.
//
// A Bucket is safe for concurrent use. Every call ends with its context. Slices
// that are given are not kept, those that are returned are the caller's.
type Bucket interface {
	// Get returns the value and its revision, or ErrKeyNotFound. Any replica may
	// answer, also one that lacks the newest writes, even the caller's own.
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	// Latest is Get, answered by the leader. It lacks no acknowledged write, unless
	// the leader is one that was replaced and does not know it yet.
	Latest(ctx context.Context, key string) (value []byte, revision uint64, err error)
	// Put writes whatever the key's revision is.
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) (revision uint64, err error)
	// Create writes if the key is absent, and else returns ErrConflict.
	Create(ctx context.Context, key string, value []byte, ttl time.Duration) (revision uint64, err error)
	// Update writes if the key is present at this revision, and else returns
	// ErrConflict.
	Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error)
	// Delete removes the key if it is present at this revision, and else returns
	// ErrConflict.
	Delete(ctx context.Context, key string, revision uint64) error
	// Wait waits until the key is at another revision than this one, and returns what
	// Get would: the value and its revision, or ErrKeyNotFound where it was deleted or
	// has expired; for 0, once it is present. What happens while nobody waits is not
	// missed. Of several changes it may tell any one.
	Wait(ctx context.Context, key string, revision uint64) (value []byte, now uint64, err error)
}

// BucketTTL is what a bucket makes of a TTL: whole seconds, rounded up.
func BucketTTL(ttl time.Duration) time.Duration {
	return (ttl + time.Second - 1).Truncate(time.Second)
}

// CheckBucketKey returns ErrBadKey for a key that no bucket can hold.
func CheckBucketKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("%w: it has %d bytes, want 1 to %d", ErrBadKey, len(key), MaxKey)
	}
	return nil
}
