package near

import "time"

// Invalidated says that what the client was given with the flag Cacheable is no
// longer what the sidecar would answer. What it names is not tracked any more.
type Invalidated struct {
	Scope  Scope
	Reason Reason
	Names  [][]byte // of Keys, one or more; of Prefix and Namespace one; else none
}

func (m *Invalidated) walk(c *codec) {
	small(c, "scope", &m.Scope)
	small(c, "reason", &m.Reason)
	c.binList("names", MaxInvalidateKeys, &m.Names)
}

// Fresh says that this connection has been told all that events published before a
// moment have made stale. It is pushed while the connection tracks, and answers a
// Track.
type Fresh struct {
	AsOf    time.Duration
	Applied string // the token of the position up to which that is so
}

func (m *Fresh) walk(c *codec) {
	c.nanos("as_of", &m.AsOf)
	c.text("applied", &m.Applied)
}

// Event is one that the sidecar has applied, for a client that subscribed. Names are
// masked where the policy says that they are sensitive.
type Event struct {
	Seq       uint64
	Position  string
	Op        string
	Namespace string // empty: the domain
	Keys      []KeyVersion
	MoreKeys  uint64 // that are not named
	Tags      []string
	Prefix    []byte
	Writer    string
	Stored    time.Duration // when the stream stored it, since 1970, by its clock
	Lag       time.Duration // from then until it was applied, by two clocks; 0 at least
	Error     string        // it could not be decoded: what it may have named was flushed
	Lost      uint64        // events before this one that the client was too slow for
}

func (m *Event) walk(c *codec) {
	c.uint("seq", &m.Seq)
	c.text("position", &m.Position)
	c.text("op", &m.Op)
	c.text("namespace", &m.Namespace)
	list(c, "keys", "[bin, uint]", MaxInvalidateKeys, &m.Keys, keyVersion)
	c.uint("more_keys", &m.MoreKeys)
	c.strList("tags", maxItems, &m.Tags)
	c.bytes("prefix", &m.Prefix)
	c.text("writer", &m.Writer)
	c.nanos("stored", &m.Stored)
	c.nanos("lag", &m.Lag)
	c.text("error", &m.Error)
	c.uint("lost", &m.Lost)
}

// Goodbye is the last frame before the sidecar closes the connection, where there is
// a reason to tell. Its fields are an Error's.
type Goodbye struct{ Error }
