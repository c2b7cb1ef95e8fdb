package near

import "time"

// Value answers a Get, and is one of a Values.
type Value struct {
	Status  Status
	Value   []byte
	Version uint64        // the source's, 0 = none
	AsOf    time.Duration // everything acknowledged anywhere before this moment is in the answer
	Flags   ValueFlags
	Until   time.Duration // Cacheable: from this moment on ask again; 0 = no end
	Bound   time.Duration // Cacheable: how stale the namespace's plain reads may be
	Token   string        // if asked for
	Lease   string        // with a Miss
}

// ValueFlags say more of a Value. Unknown ones are ignored.
type ValueFlags uint8

// Flags of answers.
const (
	// Cacheable: an L0 may keep the answer.
	Cacheable ValueFlags = 1 << iota
	// Links: what is kept of it goes with an Invalidated of scope Linked.
	Links
	// Right: the client has the right to load the key, until it fills or releases it.
	Right
)

func (m *Value) walk(c *codec) {
	small(c, "status", &m.Status)
	c.bytes("value", &m.Value)
	c.uint("version", &m.Version)
	c.nanos("as_of", &m.AsOf)
	flags(c, "flags", &m.Flags)
	c.nanos("until", &m.Until)
	c.nanos("bound", &m.Bound)
	c.text("token", &m.Token)
	c.text("lease", &m.Lease)
}

// Values answers a Gets: one of each key, in their order.
type Values struct{ Items []Value }

func (m *Values) walk(c *codec) {
	list(c, "items", "fields of a Value", MaxGetKeys, &m.Items, func(c *codec, v *Value) { c.array(func() { v.walk(c) }) })
}

// Pong answers a Ping: what the sidecar's clock shows.
type Pong struct{ Clock time.Duration }

func (m *Pong) walk(c *codec) { c.nanos("clock", &m.Clock) }

// Filled answers a Fill.
type Filled struct {
	Stored  bool
	Verdict string // why it was not
}

func (m *Filled) walk(c *codec) {
	c.bool("stored", &m.Stored)
	c.text("verdict", &m.Verdict)
}

// Written answers an Invalidate, an Update and a Barrier.
type Written struct {
	Token string // reads that present it are at least as new, anywhere
	Alive uint64 // how many of the keys were held here
}

func (m *Written) walk(c *codec) {
	c.text("token", &m.Token)
	c.uint("alive", &m.Alive)
}

// Count answers a Release, a Toggle and an Untoggle.
type Count struct{ N uint64 }

func (m *Count) walk(c *codec) { c.uint("n", &m.N) }

// Description answers an Explain and a Status: names and values, in an order for
// people. There will be more of them.
type Description struct{ Facts []Fact }

// Fact is a name and a value: a string, int64, uint64 or bool.
type Fact struct {
	Name  string
	Value any
}

func (m *Description) walk(c *codec) {
	list(c, "facts", "[str, any]", maxItems, &m.Facts, func(c *codec, f *Fact) {
		c.array(func() {
			c.text("name", &f.Name)
			c.any("value", &f.Value)
		})
	})
}

// any is a string, a number or a bool; what else is read becomes nil.
func (c *codec) any(name string, v *any) {
	if c.next(name, "any") {
		*v = c.value()
		return
	}
	if !c.writing {
		return
	}
	switch x := (*v).(type) {
	case string:
		c.out = appendStr(c.out, x)
	case int64:
		c.out = appendInt(c.out, x)
	case uint64:
		c.out = appendUint(c.out, x)
	case bool:
		c.out = appendBool(c.out, x)
	default:
		c.out = append(c.out, mpNil)
	}
}

// value reads what any writes. A number that is not negative is a uint64.
func (c *codec) value() any {
	b, _ := c.peek()
	switch {
	case b < mpFixMap, b >= mpUint8 && b <= mpUint64:
		return c.reader.uint()
	case b >= mpNegative, b >= mpInt8 && b <= mpInt64:
		return c.int()
	case b == mpTrue, b == mpFalse:
		return c.reader.bool()
	case b >= mpFixStr && b < mpNil, b >= mpStr8 && b <= mpStr32:
		return c.word()
	}
	c.skip(1)
	return nil
}

// PolicyState answers a Policy. All but Toggles is empty where no namespace was
// named.
type PolicyState struct {
	Namespace string
	Block     string // of the configuration, that it stands in
	Mode      string
	Purges    string
	Effects   []string // what the policy does, in words
	Toggles   []ToggleState
}

// ToggleState is a toggle in force.
type ToggleState struct {
	Namespace, Setting, Value string
	Left                      time.Duration // until it is rolled back; 0: never
}

func (m *PolicyState) walk(c *codec) {
	c.text("namespace", &m.Namespace)
	c.text("block", &m.Block)
	c.text("mode", &m.Mode)
	c.text("purges", &m.Purges)
	c.strList("effects", maxItems, &m.Effects)
	list(c, "toggles", "[str, str, str, ns]", maxItems, &m.Toggles, func(c *codec, t *ToggleState) {
		c.array(func() {
			c.text("namespace", &t.Namespace)
			c.text("setting", &t.Setting)
			c.text("value", &t.Value)
			c.nanos("left", &t.Left)
		})
	})
}

// SettingsText answers a Settings: the settings in effect and where each was given,
// as JSON; secrets are masked.
type SettingsText struct{ JSON []byte }

func (m *SettingsText) walk(c *codec) { c.bytes("json", &m.JSON) }

// Error answers a request that failed. As an error it is used by a client.
type Error struct {
	Code    Code
	Message string // what, where, and what to do
}

func (m *Error) walk(c *codec) {
	small(c, "code", &m.Code)
	c.text("message", &m.Message)
}

// Error implements error.
func (m *Error) Error() string { return m.Code.String() + ": " + m.Message }
