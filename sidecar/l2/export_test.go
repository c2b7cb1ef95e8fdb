package l2

import (
	"context"
	"time"

	"github.com/nearside-cache/nearside/bus"
)

// What the external tests look at.
var (
	Encode       = encode
	Decode       = decode
	ErrMalformed = errMalformed
	ErrNewer     = errNewer
)

// Limits of the queue and the link.
const (
	QueueJobs    = queueJobs
	QueueBytes   = queueBytes
	Writers      = writers
	TripAfter    = tripAt / failureWeight
	WriteTimeout = writeTimeout
	LongestPause = longestPause
	EntryPrefix  = entryPrefix
)

// Newer is the order of entries.
func (e Entry) Newer(o Entry) bool { return e.newer(o) }

// Latest is Get, answered by the leader.
func (t *Tier) Latest(ctx context.Context, key string) (e Entry, found bool, err error) {
	err = t.call(ctx, writeTimeout, func(ctx context.Context, b bus.Bucket) (err error) {
		e, err = t.latest(ctx, b, key)
		return err
	})
	return e, e.Version != 0, err
}

// Valid is e without the claims that have ended.
func (e Entry) Valid(now time.Time) Entry { return e.valid(now, time.Hour) }

// At is the revision of the claim.
func (r *Right) At() uint64 { return r.place.Revision }

// ID names the right.
func (r *Right) ID() uint64 { return r.claim }

// QueuedBytes is what waits for the writers.
func (t *Tier) QueuedBytes() int64 { return t.queue.bytes.Load() }
