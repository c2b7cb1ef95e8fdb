package bus_test

import (
	"bytes"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/nearside-cache/nearside/bus"
)

var full = bus.Event{
	Op:   bus.OpUpdate,
	Keys: []bus.KeyVersion{{Key: "product:42", Version: math.MaxUint64}},
	Tags: []string{"red", "\xff\x00"}, Prefix: "product:4", Reset: true,
	Value: []byte{0, 1, 2}, TTL: 1500 * time.Millisecond,
	Writer: "w", Region: "eu", Time: time.UnixMilli(1_700_000_000_123).UTC(), ID: "id",
}

func kindOf(op bus.Op) bus.Kind {
	return map[bus.Op]bus.Kind{bus.OpPulse: bus.KindPulse, bus.OpFork: bus.KindFork}[op]
}

func TestEventsComeBackAsTheyWent(t *testing.T) {
	for _, e := range []bus.Event{
		full,
		{Keys: []bus.KeyVersion{{Key: "a"}, {Key: "b", Version: 7}}},
		{Op: bus.OpRefresh, Prefix: "p"},
		{Op: bus.OpFlush, Reset: true},
		{Op: bus.OpUpdate, Keys: []bus.KeyVersion{{Key: "a", Version: 1}}, Value: []byte{}},
		{Op: bus.OpPulse, Pulse: bus.Pulse{Process: "p", Sent: 12345, Role: true, Fork: 9}},
		{Op: bus.OpPulse, Pulse: bus.Pulse{Sent: -1}},
		{Op: bus.OpPulse, Pulse: bus.Pulse{Process: "p", Role: true, Window: bus.Window{From: 3, To: 9, Digest: 1<<64 - 1}}},
		{Op: bus.OpFork, Pulse: bus.Pulse{Fork: 9}},
		{Op: bus.OpFork},
		{Keys: []bus.KeyVersion{{Key: strings.Repeat("k", bus.MaxKey)}}},
	} {
		data, err := bus.Encode(e)
		require.NoError(t, err)
		got, err := bus.Decode(kindOf(e.Op), data)
		require.NoError(t, err)
		require.Equal(t, e, got)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, e := range map[string]bus.Event{
		"names no key":     {},
		"unknown op":       {Op: 200},
		"names one key":    {Op: bus.OpUpdate},
		"negative ttl":     {Op: bus.OpFlush, TTL: -time.Second},
		"is empty":         {Keys: []bus.KeyVersion{{}}},
		"tag 0 is empty":   {Tags: []string{""}},
		"bytes of a key":   {Keys: []bus.KeyVersion{{Key: strings.Repeat("k", bus.MaxKey+1)}}},
		"bytes of a tag":   {Tags: []string{strings.Repeat("k", bus.MaxKey+1)}},
		"bytes of the pre": {Prefix: strings.Repeat("k", bus.MaxKey+1)},
		"bytes of a write": {Op: bus.OpFlush, Writer: strings.Repeat("k", bus.MaxLabel+1)},
		"keys, at most":    {Keys: make([]bus.KeyVersion, bus.MaxKeys+1)},
		"tags, at most":    {Tags: make([]string, bus.MaxTags+1)},
		"event too large":  {Op: bus.OpUpdate, Keys: []bus.KeyVersion{{Key: "a"}}, Value: make([]byte, bus.MaxEvent)},
	} {
		_, err := bus.Encode(e)
		require.ErrorContains(t, err, name)
	}
}

func TestJSON(t *testing.T) {
	for text, want := range map[string]bus.Event{
		`{"keys":[{"key":"product:42","version":7}]}`:           {Keys: []bus.KeyVersion{{Key: "product:42", Version: 7}}},
		`{"keys":["a",{"key":"b"}],"tags":[],"new":{"x":[1]}}`:  {Keys: []bus.KeyVersion{{Key: "a"}, {Key: "b"}}},
		`{"v":1,"op":"refresh","tags":["t"],"prefix":"p:"}`:     {Op: bus.OpRefresh, Tags: []string{"t"}, Prefix: "p:"},
		`{"op":"flush","reset":true,"writer":"w","region":"r"}`: {Op: bus.OpFlush, Reset: true, Writer: "w", Region: "r"},
		`{"op":"update","keys":["a"],"value":"text","ttl":5}`: {Op: bus.OpUpdate, Keys: []bus.KeyVersion{{Key: "a"}},
			Value: []byte("text"), TTL: 5 * time.Millisecond},
		`{"op":"update","keys":["a"],"value64":"AAE=","id":"i","time":1700000000123}`: {Op: bus.OpUpdate,
			Keys: []bus.KeyVersion{{Key: "a"}}, Value: []byte{0, 1}, ID: "i", Time: full.Time},
		`{"keys":[{"key":"x","version":18446744073709551615}]}`: {Keys: []bus.KeyVersion{{Key: "x", Version: math.MaxUint64}}},
		// A field said twice: the last holds, with nothing of the former.
		`{"keys":[{"key":"a","version":7}],"keys":[{"key":"b"}]}`: {Keys: []bus.KeyVersion{{Key: "b"}}},
		`{"keys":["\u00e9"]}`: {Keys: []bus.KeyVersion{{Key: "é"}}},
	} {
		e, err := bus.Decode(bus.KindEvent, []byte(text))
		require.NoError(t, err, text)
		require.Equal(t, want, e, text)
	}
	e, err := bus.Decode(bus.KindPulse, []byte(`{"pulse":{"process":"p","sent":5,"role":true,"fork":2,"window":{"from":1,"to":2,"digest":18446744073709551615}}}`))
	require.NoError(t, err)
	require.Equal(t, bus.Event{Op: bus.OpPulse, Pulse: bus.Pulse{Process: "p", Sent: 5, Role: true, Fork: 2, Window: bus.Window{From: 1, To: 2, Digest: math.MaxUint64}}}, e)
	for kind, op := range map[bus.Kind]bus.Op{bus.KindFlush: bus.OpFlush, bus.KindFork: bus.OpFork, bus.KindPulse: bus.OpPulse} {
		e, err := bus.Decode(kind, []byte("{}"))
		require.NoError(t, err)
		require.Equal(t, op, e.Op)
	}
}

// pack encodes a msgpack map of alternating names and values.
func pack(t testing.TB, fields ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	require.NoError(t, enc.EncodeMapLen(len(fields)/2))
	for _, f := range fields {
		require.NoError(t, enc.Encode(f))
	}
	return b.Bytes()
}

func TestUnknownFieldsAndLongerArraysAreIgnored(t *testing.T) {
	nested := []any{map[string]any{"a": []any{1, "x", 2.5, nil, true, []byte{1}}}, time.Unix(0, 0)}
	data := pack(t, "v", 1, "future", nested,
		"k", []any{[]any{"a", 7, nested}, []any{"b", 0}}, "zz", strings.Repeat("z", 70_000),
		"u", []any{"p", 1, false, 2, nested})
	e, err := bus.Decode(bus.KindEvent, data)
	require.NoError(t, err)
	require.Equal(t, []bus.KeyVersion{{Key: "a", Version: 7}, {Key: "b"}}, e.Keys)
	require.Equal(t, bus.Pulse{Process: "p", Sent: 1, Fork: 2}, e.Pulse)
	e, err = bus.Decode(bus.KindPulse, pack(t, "v", 1, "u", []any{"p", 1, false, 2, 3, 4, 5, nested}))
	require.NoError(t, err)
	require.Equal(t, bus.Pulse{Process: "p", Sent: 1, Fork: 2, Window: bus.Window{From: 3, To: 4, Digest: 5}}, e.Pulse)
}

// hostile maps what an error must say to a body.
func hostile(t testing.TB) map[string][][]byte {
	ok := []any{[]any{"a", 1}}
	lie := func(head ...byte) []byte { // a map whose field k has this beginning and no more
		return append([]byte{0x82, 0xa1, 'v', 1, 0xa1, 'k'}, head...)
	}
	return map[string][][]byte{
		"empty body": {nil},
		"neither":    {{0xff}, {0xc0}, []byte("plain text"), []byte("[]"), {0x93, 1, 2, 3}},
		"EOF":        {{0x8f}, {0x81}, {0xde, 0xff, 0xff}, {0xdf, 0xff, 0xff, 0xff, 0xff}, {0x81, 0xa1, 'v'}},
		"announced": {lie(0xdd, 0xff, 0xff, 0xff, 0xff), lie(0xdc, 0xff, 0xff), lie(0x91, 0x92, 0xdb, 0xff, 0xff, 0xff, 0xff),
			{0x81, 0xdb, 0x7f, 0xff, 0xff, 0xff}, append([]byte{0x81, 0xa1, 'x', 0x91}, bytes.Repeat([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, 1000)...)},
		"schema 0":        {pack(t, "k", ok)},
		"schema 2":        {pack(t, "v", 2, "k", ok), []byte(`{"v":2,"keys":["a"]}`)},
		"unknown op":      {pack(t, "v", 1, "o", 77, "k", ok), pack(t, "v", 1, "o", 256, "k", ok), []byte(`{"op":"drop","keys":["a"]}`)},
		"does not belong": {pack(t, "v", 1, "o", 4), pack(t, "v", 1, "o", 5), []byte(`{"op":"fork"}`), []byte(`{"op":"pulse"}`)},
		"names no key":    {pack(t, "v", 1), []byte(`{}`), []byte(`{"key":"product:42"}`), []byte(`{"keys":[]}`)},
		"is empty":        {pack(t, "v", 1, "k", []any{[]any{"", 1}}), []byte(`{"keys":[{"version":1}]}`), []byte(`{"tags":[""]}`)},
		"has 1 parts":     {pack(t, "v", 1, "k", []any{[]any{"a"}})},
		"has 0 parts":     {pack(t, "v", 1, "k", ok, "u", []any{})},
		"negative number": {pack(t, "v", 1, "k", []any{[]any{"a", -1}}), pack(t, "v", 1, "o", -1)},
		"out of range":    {pack(t, "v", 1, "k", ok, "l", int64(math.MaxInt64)), pack(t, "v", 1, "k", ok, "l", -5), []byte(`{"keys":["a"],"ttl":-1}`)},
		"after the event": {append(pack(t, "v", 1, "k", ok), 0)},
		"JSON":            {[]byte(`{`), []byte(`{"keys":["a"]}x`), []byte(`{"keys":"a"}`), []byte(`{"keys":[{"key":"a","version":-1}]}`), []byte(`{"keys":[7]}`), []byte(`{"keys":["\ud800"]}`), []byte("{\"keys\":[\"\xff\"]}"), []byte(`{"keys":` + strings.Repeat("[", 100_000))},
		"too large":       {make([]byte, bus.MaxEvent+1), pack(t, "v", 1, "k", []any{[]any{strings.Repeat("k", bus.MaxKey+1), 1}}), pack(t, "v", 1, "t", make([]string, bus.MaxTags+1)), pack(t, "v", 1, "k", ok, "w", strings.Repeat("w", bus.MaxLabel+1))},
		"one key":         {[]byte(`{"op":"update","keys":["a","b"]}`)},
	}
}

func TestHostileBodies(t *testing.T) {
	for say, bodies := range hostile(t) {
		for _, body := range bodies {
			e, err := bus.Decode(bus.KindEvent, body)
			require.ErrorIs(t, err, bus.ErrMalformed, "%.60q", body)
			require.ErrorContains(t, err, say, "%.60q", body)
			require.Equal(t, bus.Event{}, e)
		}
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestLyingLengthsAllocateLittle(t *testing.T) {
	for _, body := range hostile(t)["announced"] {
		require.Less(t, allocated(func() { _, _ = bus.Decode(bus.KindEvent, body) }), uint64(1<<20), "%.60x", body)
	}
	deep := append([]byte{0x81, 0xa1, 'x'}, bytes.Repeat([]byte{0x91}, bus.MaxEvent-10)...)
	require.Less(t, allocated(func() { _, _ = bus.Decode(bus.KindEvent, deep) }), uint64(1<<20))
}

func FuzzDecode(f *testing.F) {
	for _, bodies := range hostile(f) {
		for _, body := range bodies {
			if len(body) < 1<<12 {
				f.Add(uint8(0), body)
			}
		}
	}
	data, err := bus.Encode(full)
	require.NoError(f, err)
	f.Add(uint8(bus.KindEvent), data)
	f.Add(uint8(bus.KindPulse), []byte(`{"pulse":{"process":"p"}}`))
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		k := bus.Kind(kind % 4)
		e, err := bus.Decode(k, body)
		if err != nil {
			require.ErrorIs(t, err, bus.ErrMalformed)
			require.Equal(t, bus.Event{}, e)
			return
		}
		again, err := bus.Encode(e)
		if len(body) > bus.MaxEvent/2 {
			return // the other form may be over the limit
		}
		require.NoError(t, err)
		back, err := bus.Decode(k, again)
		require.NoError(t, err)
		require.Equal(t, e, back)
	})
}

func FuzzEncode(f *testing.F) {
	f.Add(uint8(2), "product:1", uint64(7), "tag", "pre", []byte("value"), int64(1500), "w", int64(1_700_000_000_000))
	f.Fuzz(func(t *testing.T, op uint8, key string, version uint64, tag, prefix string, value []byte, ttl int64, writer string, at int64) {
		e := bus.Event{
			Op: bus.Op(op), Keys: []bus.KeyVersion{{Key: key, Version: version}}, Tags: []string{tag}, Prefix: prefix,
			Value: value, TTL: time.Duration(ttl%1_000_000_000_000) * time.Millisecond, Writer: writer,
		}
		if at != 0 {
			e.Time = time.UnixMilli(at).UTC()
		}
		data, err := bus.Encode(e)
		if err != nil {
			return
		}
		got, err := bus.Decode(kindOf(e.Op), data)
		require.NoError(t, err)
		require.Equal(t, e, got)
	})
}

func BenchmarkDecode(b *testing.B) {
	data, err := bus.Encode(bus.Event{Keys: []bus.KeyVersion{{Key: "product:42", Version: 7}}, Time: full.Time})
	require.NoError(b, err)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := bus.Decode(bus.KindEvent, data); err != nil {
			b.Fatal(err)
		}
	}
}
