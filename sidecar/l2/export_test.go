package l2

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

// LockKey is the lock of a slot.
var LockKey = lockKey
