package near

import "encoding/binary"

// What a hit goes through, without an allocation. The other functions do the same.

// AppendGet is Append of a Get.
func AppendGet(dst []byte, id uint32, m *Get) []byte {
	start := len(dst)
	c := codec{writing: true, out: appendHeader(dst, KindGet, id)}
	c.array(func() { m.walk(&c) })
	return finish(c.out, start)
}

// ParseGet is Parse of a Get. Its token is a copy.
func ParseGet(body []byte, m *Get) error {
	c := codec{reader: reader{b: body}}
	c.array(func() { m.walk(&c) })
	return c.end()
}

// ParseValue is Parse of a Value. Its token and lease are copies, its value is a view.
func ParseValue(body []byte, m *Value) error {
	c := codec{reader: reader{b: body}}
	c.array(func() { m.walk(&c) })
	return c.end()
}

// An answer to a Get is written around its value, which is appended once where it
// belongs: BeginValue leaves room for what stands before it, EndValue fills that in
// and appends the rest.

const (
	valueFields = 9
	itemRoom    = 2 + bin32Size // of the array, the status and the value's head
)

// BeginValue begins an answer to the Get with an id: append the value, if there is
// one, and call EndValue with the length that dst had before.
func BeginValue(dst []byte, id uint32) []byte {
	return BeginItem(appendHeader(dst, KindGet.Answer(), id))
}

// EndValue ends the answer that begins at start. The value is what was appended
// since BeginValue; v.Value is not looked at.
func EndValue(dst []byte, start int, v *Value) []byte {
	return finish(EndItem(dst, start+HeaderSize, v), start)
}

// BeginValues begins an answer to the Gets with an id and n keys: as many items
// follow, and then EndValues with the length that dst had before.
func BeginValues(dst []byte, id uint32, n int) []byte {
	return appendArray(appendArray(appendHeader(dst, KindGets.Answer(), id), 1), n)
}

// EndValues ends the answer that begins at start.
func EndValues(dst []byte, start int) []byte { return finish(dst, start) }

// BeginItem is BeginValue for an item of a Values.
func BeginItem(dst []byte) []byte {
	return append(dst, mpFixArray|valueFields, 0, mpBin32, 0, 0, 0, 0)
}

// EndItem is EndValue for an item of a Values.
func EndItem(dst []byte, start int, v *Value) []byte {
	dst[start+1] = byte(v.Status)
	binary.BigEndian.PutUint32(dst[start+3:], uint32(len(dst)-start-itemRoom))
	dst = appendUint(dst, v.Version)
	dst = appendUint(dst, uint64(v.AsOf))
	dst = appendUint(dst, uint64(v.Flags))
	dst = appendUint(dst, uint64(v.Until))
	dst = appendUint(dst, uint64(v.Bound))
	dst = appendStr(dst, v.Token)
	return appendStr(dst, v.Lease)
}
