// Package api is the socket contract of nearside: what a client and a sidecar
// may send each other and how large it may be. Its subpackages are the
// protocols of that socket; they import nothing else of nearside, so that a
// client can be built from them alone.
package api

// Limits of the socket. A sidecar checks each before it allocates or buffers
// anything for the request. Sizes are in bytes.
const (
	// MinKey and MaxKey bound the length of a key: an empty key names nothing,
	// and the store keeps key lengths in 16 bits.
	MinKey = 1
	MaxKey = 65_535

	// DefaultMaxValue is the longest value that a sidecar stores unless it is
	// configured otherwise. It can be no more than one shard of the store holds.
	DefaultMaxValue = 1 << 20

	// MaxBulk is the longest argument that a client may announce. One between
	// the configured limit and MaxBulk is read past and refused with an error;
	// a longer one ends the connection, as it does in Redis.
	MaxBulk = 512 << 20

	// DefaultMaxArgs is how many arguments one command may have, its name
	// included: enough for an MSET of 131,071 pairs.
	DefaultMaxArgs = 1 << 18

	// MaxArgs is how many arguments a client may announce. A number between the
	// configured limit and MaxArgs is read past and refused with an error; a
	// higher one ends the connection.
	MaxArgs = 1 << 20

	// DefaultMaxFrame bounds one whole command on the wire, and so the memory
	// that one connection's input can take.
	DefaultMaxFrame = 16 << 20

	// MaxFrame is the highest frame limit that can be configured.
	MaxFrame = 1 << 30

	// MaxInline bounds a command typed as a line of text.
	MaxInline = 64 << 10

	// MaxSocketPath is the longest path that a Unix socket can be bound to.
	MaxSocketPath = 107
)
