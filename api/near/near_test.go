package near_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/nearside-cache/nearside/api/near"
)

// random returns a message of a kind whose fields are of all sizes.
func random(r *rand.Rand, k near.Kind) near.Message {
	m, _ := near.New(k)
	fill(r, reflect.ValueOf(m).Elem())
	return m
}

func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	case reflect.Uint8:
		v.SetUint(r.Uint64N(256))
	case reflect.Uint64:
		v.SetUint(r.Uint64() >> r.UintN(64))
	case reflect.Int64: // durations
		v.SetInt(r.Int64() >> r.UintN(63))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.String:
		v.SetString(strings.Repeat("é", size(r)/2))
	case reflect.Interface:
		v.Set(reflect.ValueOf([]any{"text", uint64(math.MaxUint64), int64(-7), int64(math.MinInt64), true}[r.IntN(5)]))
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, size(r))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			v.SetBytes(b)
			return
		}
		if n := r.IntN(6); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				fill(r, v.Index(i))
			}
		}
	default:
		panic(v.Kind())
	}
}

func size(r *rand.Rand) int {
	if r.IntN(1000) == 0 {
		return near.MaxText
	}
	return []int{0, 1, 31, 32, 255, 256, 300}[r.IntN(7)]
}

func TestMessagesAreReadAsTheyWereWritten(t *testing.T) {
	for _, k := range near.Kinds() {
		r := rand.New(rand.NewPCG(1, uint64(k)))
		for range 15 {
			m := random(r, k)
			frame := near.Append([]byte("before"), k, 77, m)
			h, body, err := near.Next(frame[len("before"):])
			require.NoError(t, err)
			require.Equal(t, near.Header{Kind: k, ID: 77, Length: uint32(len(body))}, h)
			require.Equal(t, len(frame)-len("before"), h.Size())
			back, known := near.New(k)
			require.True(t, known)
			require.NoError(t, near.Parse(body, back))
			require.Equal(t, normal(m), normal(back), k)
			require.Equal(t, frame[len("before"):], near.Append(nil, k, 77, back), k)
		}
	}
}

// normal makes no difference between an empty slice and none.
func normal(m near.Message) string {
	return strings.NewReplacer("[]byte{}", "[]byte(nil)", ":[]uint8{}", ":[]uint8(nil)").Replace(fmt.Sprintf("%#v", deep(reflect.ValueOf(m))))
}

func deep(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return deep(v.Elem())
	case reflect.Struct:
		var all []any
		for i := range v.NumField() {
			all = append(all, v.Type().Field(i).Name, deep(v.Field(i)))
		}
		return all
	case reflect.Slice:
		var all []any
		for i := range v.Len() {
			all = append(all, deep(v.Index(i)))
		}
		return all
	}
	return v.Interface()
}

// Bodies are what a msgpack library makes of them, and the other way round.
func TestBodiesAreMsgpack(t *testing.T) {
	for _, k := range near.Kinds() {
		r := rand.New(rand.NewPCG(2, uint64(k)))
		for range 8 {
			_, body, err := near.Next(near.Append(nil, k, 1, random(r, k)))
			require.NoError(t, err)
			var fields []any
			require.NoError(t, msgpack.Unmarshal(body, &fields), k)
			require.Len(t, fields, len(near.Fields(k)), k)
			var b bytes.Buffer
			e := msgpack.NewEncoder(&b)
			e.UseCompactInts(false) // every number in nine bytes
			require.NoError(t, e.Encode(fields))
			wide, known := near.New(k)
			require.True(t, known)
			require.NoError(t, near.Parse(b.Bytes(), wide), k)
			require.Equal(t, body, near.Append(nil, k, 1, wide)[near.HeaderSize:], k)
		}
	}
}

// What an older peer leaves out is zero, what a newer one adds is skipped.
func TestFieldsAreAppendOnly(t *testing.T) {
	for _, k := range near.Kinds() {
		m, known := near.New(k)
		require.True(t, known)
		require.NoError(t, near.Parse([]byte{0x90}, m), k)
		full, err := msgpack.Marshal(append(make([]any, 0), fieldsOf(t, k)...))
		require.NoError(t, err)
		require.NoError(t, near.Parse(full, m), k)
		newer, err := msgpack.Marshal(append(fieldsOf(t, k), map[string]any{"a": []any{1.5, -3, nil}}, []byte("x"), time.Unix(1, 0)))
		require.NoError(t, err)
		later, _ := near.New(k)
		require.NoError(t, near.Parse(newer, later), k)
		require.Equal(t, normal(m), normal(later), k)
	}
	var g near.Get
	require.NoError(t, near.ParseGet([]byte{0x91, 0xa1, 'k'}, &g))
	require.Equal(t, near.Get{Key: []byte("k"), Read: near.Read{Wait: -1}}, g, "a read without a wait waits as the policy says")
}

func fieldsOf(t *testing.T, k near.Kind) (fields []any) {
	m, known := near.New(k)
	require.True(t, known)
	require.NoError(t, msgpack.Unmarshal(near.Append(nil, k, 1, m)[near.HeaderSize:], &fields))
	return fields
}

func TestHeaders(t *testing.T) {
	whole := near.Append(nil, near.KindPing, 5, &near.None{})
	for n := range whole {
		_, _, err := near.Next(whole[:n])
		require.ErrorIs(t, err, near.ErrShort)
	}
	_, err := near.ParseHeader([]byte("*1"))
	require.ErrorIs(t, err, near.ErrFraming)
	long := append([]byte(nil), whole...)
	long[6] = 0x7f
	_, err = near.ParseHeader(long)
	require.ErrorIs(t, err, near.ErrFraming)
}

func TestKindsTellWhoSends(t *testing.T) {
	for _, k := range near.Kinds() {
		n := 0
		for _, is := range []bool{k.IsRequest(), k.IsAnswer(), k.IsPush()} {
			if is {
				n++
			}
		}
		require.Equal(t, 1, n, k)
		if k.IsRequest() {
			_, known := near.New(k.Answer())
			require.True(t, known, k)
		}
	}
	require.Equal(t, "GET", near.KindGet.String())
	require.Equal(t, "kind 0x3f", near.Kind(0x3f).String())
}

// A list that announces more than it may is refused before there is memory for it.
func TestListsAreBoundedBeforeTheyAreMade(t *testing.T) {
	body := append([]byte{0x91, 0xdd, 0x00, 0x98, 0x96, 0x80}, make([]byte, 10_000_000)...) // ten million of one byte
	var m near.Gets
	var before, after uint64
	before = allocated()
	err := near.Parse(body, &m)
	after = allocated()
	require.ErrorIs(t, err, near.ErrMalformed)
	require.Less(t, after-before, uint64(1<<20))
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	value := bytes.Repeat([]byte("v"), 300)
	out := make([]byte, 0, 4096)
	get := near.Get{Key: []byte("product:42"), Read: near.Read{Wait: -1, Flags: near.ForL0}}
	var back near.Get
	var got near.Value
	v := near.Value{Status: near.Hit, Version: 1 << 40, AsOf: time.Hour, Flags: near.Cacheable}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		out = near.AppendGet(out[:0], 1, &get)
		_, body, err := near.Next(out)
		if err != nil || near.ParseGet(body, &back) != nil {
			panic(err)
		}
		out = near.BeginValue(out[:0], 1)
		out = append(out, value...)
		out = near.EndValue(out, 0, &v)
		_, body, err = near.Next(out)
		if err != nil || near.ParseValue(body, &got) != nil {
			panic(err)
		}
	}))
	v.Value = value
	require.Equal(t, v, got)
}

func TestHotPathIsTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 60 {
		var items near.Values
		out := near.BeginValues(nil, 9, 3)
		for range 3 {
			v := random(r, near.KindGet.Answer()).(*near.Value)
			v.Status %= near.Unread + 1
			start := len(out)
			out = near.EndItem(append(near.BeginItem(out), v.Value...), start, v)
			items.Items = append(items.Items, *v)

			single := near.EndValue(append(near.BeginValue(nil, 9), v.Value...), 0, v)
			var back near.Value
			require.NoError(t, near.ParseValue(single[near.HeaderSize:], &back))
			require.Equal(t, normal(v), normal(&back))
		}
		out = near.EndValues(out, 0)
		var back near.Values
		_, body, err := near.Next(out)
		require.NoError(t, err)
		require.NoError(t, near.Parse(body, &back))
		require.Equal(t, normal(&items), normal(&back))

		g := random(r, near.KindGet).(*near.Get)
		require.Equal(t, near.Append(nil, near.KindGet, 3, g), near.AppendGet(nil, 3, g))
	}
}
