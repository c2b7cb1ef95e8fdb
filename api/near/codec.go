package near

import (
	"fmt"
	"math"
	"time"
)

// codec walks through the fields of a message, in their order. One method of each
// message says what they are, and so writes it, reads it and describes it.
type codec struct {
	writing bool
	out     []byte
	count   int // fields written, of the array under way

	reader     // when reading
	left   int // fields that the array under way has left

	describing bool
	fields     []Field
}

// Field describes a field of a message.
type Field struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// next begins a field and reports whether there is something to read.
func (c *codec) next(name, kind string) bool {
	switch {
	case c.describing:
		c.fields = append(c.fields, Field{name, kind})
	case c.writing:
		c.count++
	case c.left > 0:
		c.left--
		return true
	}
	return false
}

// array walks through an array of fields.
func (c *codec) array(inside func()) {
	if c.writing {
		head, count := len(c.out), c.count
		c.out, c.count = append(c.out, mpFixArray), 0
		inside()
		c.out[head] |= byte(c.count) // no message has more than 15
		c.count = count
		return
	}
	left := c.left
	c.left = c.reader.array()
	inside()
	c.skip(c.left)
	c.left = left
}

func (c *codec) uint(name string, v *uint64) {
	if c.next(name, "uint") {
		*v = c.reader.uint()
	} else if c.writing {
		c.out = appendUint(c.out, *v)
	}
}

// small is uint for enumerations: what does not fit is 255, which is no value that this
// version knows.
func small[T ~uint8](c *codec, name string, v *T) {
	if c.next(name, "uint") {
		*v = T(min(c.reader.uint(), math.MaxUint8))
	} else if c.writing {
		c.out = appendUint(c.out, uint64(*v))
	}
}

// flags is uint for flags: this version knows none but the low 8 of them.
func flags[T ~uint8](c *codec, name string, v *T) {
	if c.next(name, "uint") {
		*v = T(c.reader.uint())
	} else if c.writing {
		c.out = appendUint(c.out, uint64(*v))
	}
}

func (c *codec) bool(name string, v *bool) {
	if c.next(name, "bool") {
		*v = c.reader.bool()
	} else if c.writing {
		c.out = appendBool(c.out, *v)
	}
}

// nanos is a moment or a duration.
func (c *codec) nanos(name string, v *time.Duration) {
	if c.next(name, "ns") {
		*v = c.duration()
	} else if c.writing {
		c.out = appendUint(c.out, uint64(max(0, *v)))
	}
}

// optional is nanos where a negative one means that there is none.
func (c *codec) optional(name string, v *time.Duration) {
	switch read := c.next(name, "ns or nil"); {
	case read && c.none():
		*v = -1
	case read:
		*v = c.duration()
	case c.writing && *v < 0:
		c.out = append(c.out, mpNil)
	case c.writing:
		c.out = appendUint(c.out, uint64(*v))
	default:
		*v = -1 // left out
	}
}

func (c *codec) duration() time.Duration {
	n := c.reader.uint()
	if n > math.MaxInt64 {
		c.fail("less than 2^63 ns")
		return 0
	}
	return time.Duration(n)
}

// bytes is a key or a value. What is read is a view.
func (c *codec) bytes(name string, v *[]byte) {
	if c.next(name, "bin") {
		*v = c.reader.bytes()
	} else if c.writing {
		c.out = appendBin(c.out, *v)
	}
}

// text is for people, or opaque. What is read is a copy.
func (c *codec) text(name string, v *string) {
	if c.next(name, "str") {
		*v = c.word()
	} else if c.writing {
		c.out = appendStr(c.out, *v)
	}
}

func (c *codec) word() string {
	b := c.reader.bytes()
	if len(b) > MaxText {
		c.fail(fmt.Sprintf("at most %d bytes of text", MaxText))
		return ""
	}
	return string(b)
}

// list is an array of items, at most limit, which is checked before there is memory
// for them.
func list[T any](c *codec, name, kind string, limit int, v *[]T, item func(*codec, *T)) {
	switch {
	case c.next(name, "["+kind+"]"):
		n := c.reader.array()
		if n > limit {
			c.fail(fmt.Sprintf("at most %d of them", limit))
		}
		if c.err != nil || n == 0 {
			return
		}
		*v = make([]T, n)
		for i := range *v {
			item(c, &(*v)[i])
		}
	case c.writing:
		c.out = appendArray(c.out, len(*v))
		for i := range *v {
			item(c, &(*v)[i])
		}
	}
}

// Items of lists.

func binItem(c *codec, v *[]byte) {
	if c.writing {
		c.out = appendBin(c.out, *v)
		return
	}
	*v = c.reader.bytes()
}

func strItem(c *codec, v *string) {
	if c.writing {
		c.out = appendStr(c.out, *v)
		return
	}
	*v = c.word()
}

func (c *codec) binList(name string, limit int, v *[][]byte) {
	list(c, name, "bin", limit, v, binItem)
}

func (c *codec) strList(name string, limit int, v *[]string) {
	list(c, name, "str", limit, v, strItem)
}

// end closes what was read: nothing may follow it.
func (c *codec) end() error {
	if c.err == nil && c.at != len(c.b) {
		c.fail("the end of the body")
	}
	return c.err
}
