package near

import "time"

// Hello begins a connection: which versions the client speaks, and who it is.
type Hello struct {
	Min, Max       uint64 // versions
	Name           string // of the client, for people; printable, no blanks
	Password       string
	Library        string
	LibraryVersion string
}

func (m *Hello) walk(c *codec) {
	c.uint("min_version", &m.Min)
	c.uint("max_version", &m.Max)
	c.text("name", &m.Name)
	c.text("password", &m.Password)
	c.text("library", &m.Library)
	c.text("library_version", &m.LibraryVersion)
}

// Welcome answers a Hello.
type Welcome struct {
	Version     uint64 // of the protocol, from now on
	Sidecar     string // version of nearside
	Client      uint64 // number of this connection, as the sidecar's lists have it
	Incarnation uint64 // of the sidecar's state: another process or another doubt has another
	// Clock is the sidecar's clock now, of the boot that BootID names. It is the
	// client's own CLOCK_BOOTTIME where the boot id is the same and Clock lies between
	// the client's readings before the Hello and after the Welcome.
	Clock    time.Duration
	BootID   string
	Limits   Limits
	Features []string // that this sidecar has beyond its version
}

// Limits are a sidecar's. Sizes are in bytes.
type Limits struct {
	Key, Value, Frame uint64
	Pending           uint64 // requests of a connection that may wait at a time
	Tracked           uint64 // keys that are tracked for a connection
}

func (m *Welcome) walk(c *codec) {
	c.uint("version", &m.Version)
	c.text("sidecar", &m.Sidecar)
	c.uint("client", &m.Client)
	c.uint("incarnation", &m.Incarnation)
	c.nanos("clock", &m.Clock)
	c.text("boot_id", &m.BootID)
	c.uint("max_key", &m.Limits.Key)
	c.uint("max_value", &m.Limits.Value)
	c.uint("max_frame", &m.Limits.Frame)
	c.uint("max_pending", &m.Limits.Pending)
	c.uint("max_tracked", &m.Limits.Tracked)
	c.strList("features", maxItems, &m.Features)
}

// None is a message without fields: Ping, Barrier, Status, Settings, Subscribe and
// Unsubscribe, and the answers to the last two.
type None struct{}

func (*None) walk(*codec) {}

// Read is what Get and Gets say of how fresh the answer must be.
type Read struct {
	Mode     Mode
	MaxStale time.Duration // for MaxStale
	Token    string        // for AtLeast
	// Wait is how long to wait for the freshness asked for, for loads by the sidecar
	// and for other clients' loads; negative: as the policy says. With 0 the answer
	// comes at once.
	Wait  time.Duration
	Flags ReadFlags
}

// ReadFlags ask for more. Unknown ones are ignored.
type ReadFlags uint8

// Flags of reads.
const (
	// Track asks that the client be told when what it is answered is out of date, for
	// it to keep; see Track and Cacheable.
	ForL0 ReadFlags = 1 << iota
	// WithToken asks for the token that the answer rests on.
	WithToken
)

func (m *Read) walk(c *codec) {
	small(c, "mode", &m.Mode)
	c.nanos("max_stale", &m.MaxStale)
	c.text("token", &m.Token)
	c.optional("wait", &m.Wait)
	flags(c, "flags", &m.Flags)
}

// Get reads a key; a Value answers it.
type Get struct {
	Key []byte
	Read
}

func (m *Get) walk(c *codec) {
	c.bytes("key", &m.Key)
	m.Read.walk(c)
}

// Gets reads keys; a Values answers it.
type Gets struct {
	Keys [][]byte
	Read
}

func (m *Gets) walk(c *codec) {
	c.binList("keys", MaxGetKeys, &m.Keys)
	m.Read.walk(c)
}

// Fill offers a value that was loaded under a lease; a Filled answers it.
type Fill struct {
	Key      []byte
	Lease    string // from the Value with the miss
	Value    []byte
	Version  uint64        // the source's own stamp of the value, 0 = none
	TTL      time.Duration // 0: the policy's
	Soft     time.Duration // from now until the value is past its soft TTL; 0: as the policy says
	Negative bool          // the source has no value; Value is empty
	Tags     []string
	Depends  [][]byte // keys that the value was made of
}

func (m *Fill) walk(c *codec) {
	c.bytes("key", &m.Key)
	c.text("lease", &m.Lease)
	c.bytes("value", &m.Value)
	c.uint("version", &m.Version)
	c.nanos("ttl", &m.TTL)
	c.nanos("soft", &m.Soft)
	c.bool("negative", &m.Negative)
	c.strList("tags", MaxTags, &m.Tags)
	c.binList("depends", MaxDepends, &m.Depends)
}

// Release gives up the right to fill that came with a lease, because the load
// failed; a Count answers it: 1, or 0 when the right had ended.
type Release struct {
	Key   []byte
	Lease string
}

func (m *Release) walk(c *codec) {
	c.bytes("key", &m.Key)
	c.text("lease", &m.Lease)
}

// KeyVersion names a key, and the source's own version of its new value; 0 = none.
type KeyVersion struct {
	Key     []byte
	Version uint64
}

func keyVersion(c *codec, v *KeyVersion) {
	c.array(func() {
		c.bytes("key", &v.Key)
		c.uint("version", &v.Version)
	})
}

// Invalidate says what has changed, in every sidecar; a Written answers it when the
// stream has acknowledged and this sidecar has applied it.
type Invalidate struct {
	Keys      []KeyVersion
	Tags      []string
	Prefix    []byte // up to a ':'
	Namespace string // all of it; then nothing else is named
	Refresh   bool   // load anew what is hot
	Changed   time.Duration
	ID        string // for deduplication; empty: none
}

func (m *Invalidate) walk(c *codec) {
	list(c, "keys", "[bin, uint]", MaxInvalidateKeys, &m.Keys, keyVersion)
	c.strList("tags", MaxPurgeTags, &m.Tags)
	c.bytes("prefix", &m.Prefix)
	c.text("namespace", &m.Namespace)
	c.bool("refresh", &m.Refresh)
	c.nanos("changed", &m.Changed)
	c.text("id", &m.ID)
}

// Update is an Invalidate of one key that brings its new value; a Written answers
// it.
type Update struct {
	Key     []byte
	Version uint64 // not 0
	Value   []byte
	TTL     time.Duration // 0: the policy's
	Changed time.Duration // as in Invalidate
	ID      string
}

func (m *Update) walk(c *codec) {
	c.bytes("key", &m.Key)
	c.uint("version", &m.Version)
	c.bytes("value", &m.Value)
	c.nanos("ttl", &m.TTL)
	c.nanos("changed", &m.Changed)
	c.text("id", &m.ID)
}

// Explain asks what is held of a key and why its next read hits or misses; a
// Description answers it.
type Explain struct{ Key []byte }

func (m *Explain) walk(c *codec) { c.bytes("key", &m.Key) }

// Policy asks what the policy of a namespace does, "*" for those without one of
// their own, and which toggles there are; empty: only these. A PolicyState answers
// it.
type Policy struct{ Namespace string }

func (m *Policy) walk(c *codec) { c.text("namespace", &m.Namespace) }

// Toggle changes what the policy says, in this sidecar; a Count answers it.
type Toggle struct {
	Namespace, Setting, Value string
	For                       time.Duration // after which it is rolled back; 0: never
}

func (m *Toggle) walk(c *codec) {
	c.text("namespace", &m.Namespace)
	c.text("setting", &m.Setting)
	c.text("value", &m.Value)
	c.nanos("for", &m.For)
}

// Untoggle ends the toggles of a namespace; a Count answers it: how many.
type Untoggle struct{ Namespace string }

func (m *Untoggle) walk(c *codec) { c.text("namespace", &m.Namespace) }

// Track begins or ends the tracking of what this connection is answered with the
// flag ForL0; a Fresh answers it, and from then on Freshes are pushed.
type Track struct{ On bool }

func (m *Track) walk(c *codec) { c.bool("on", &m.On) }
