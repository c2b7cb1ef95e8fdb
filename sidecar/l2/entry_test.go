package l2_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/l2"
)

func at(created int64, fork, seq uint64) bus.Position {
	return bus.Position{Epoch: bus.Epoch{Created: created, Fork: fork}, Seq: seq}
}

func TestOrderOfEntries(t *testing.T) {
	ascending := []l2.Entry{
		{Version: 9, Position: at(1, 0, 9)},
		{Version: 1, Position: at(2, 0, 5)}, // another creation of the stream
		{Version: 1, Position: at(2, 0, 6)},
		{Version: 1, Position: at(2, 7, 2)}, // a fork after it
		{Version: 2, Position: at(2, 0, 1)}, // a higher version, wherever it was loaded
		{Version: 2, Position: at(2, 0, 2)},
	}
	for i, e := range ascending {
		for j, o := range ascending {
			require.Equal(t, i > j, e.Newer(o), "%d, %d", i, j)
		}
	}
}

func TestRemaining(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	e := l2.Entry{Stored: now, TTL: time.Minute}
	require.Equal(t, time.Minute, e.Remaining(now))
	require.Equal(t, 59*time.Second, e.Remaining(now.Add(time.Second)))
	require.Negative(t, e.Remaining(now.Add(time.Hour)))
	require.Equal(t, time.Minute, e.Remaining(now.Add(-time.Hour)), "a clock that is behind adds nothing")
	require.Positive(t, l2.Entry{Stored: time.UnixMilli(1 << 50), TTL: time.Minute}.Remaining(now))
}

func drawEntry(t *rapid.T) l2.Entry {
	texts := rapid.SliceOfN(rapid.StringN(0, 20, -1), 0, 5)
	e := l2.Entry{
		Version:  rapid.Uint64Min(1).Draw(t, "version"),
		Digest:   rapid.Uint64().Draw(t, "digest"),
		Position: at(rapid.Int64().Draw(t, "created"), rapid.Uint64().Draw(t, "fork"), rapid.Uint64Min(1).Draw(t, "seq")),
		Claims:   drawClaims(t),
		Value:    rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value"),
		ETag:     rapid.StringN(0, 40, -1).Draw(t, "etag"),
		Tags:     texts.Draw(t, "tags"),
		Depends:  texts.Draw(t, "depends"),
		Stored:   time.UnixMilli(rapid.Int64Range(0, 1<<43).Draw(t, "stored")),
		TTL:      time.Duration(rapid.Int64Range(1, 1<<40).Draw(t, "ttl")) * time.Millisecond,
	}
	return e
}

func drawClaims(t *rapid.T) (list []l2.Claim) {
	for range rapid.IntRange(0, 4).Draw(t, "claims") {
		until := time.UnixMilli(rapid.Int64Range(0, 1<<43).Draw(t, "until"))
		list = append(list, l2.Claim{ID: rapid.Uint64().Draw(t, "claim"), Until: until})
	}
	return list
}

// same compares what the codec keeps; nil and empty are the same.
func same(t require.TestingT, want, got l2.Entry) {
	require.True(t, bytes.Equal(want.Value, got.Value))
	require.True(t, slices.Equal(want.Tags, got.Tags))
	require.True(t, slices.Equal(want.Depends, got.Depends))
	require.True(t, slices.Equal(want.Claims, got.Claims))
	want.Value, want.Tags, want.Depends, want.Claims = got.Value, got.Tags, got.Depends, got.Claims
	require.Equal(t, want, got)
}

func TestCodecKeepsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEntry(t)
		data, err := l2.Encode(e)
		require.NoError(t, err)
		got, err := l2.Decode(data)
		require.NoError(t, err)
		same(t, e, got)
		claims := []l2.Claim{{ID: 1, Until: time.UnixMilli(1)}, {ID: 2, Until: time.UnixMilli(1 << 43)}}
		left, err := l2.Encode(l2.Entry{Claims: claims})
		require.NoError(t, err)
		got, err = l2.Decode(left)
		require.NoError(t, err)
		require.Equal(t, l2.Entry{Claims: claims}, got, "a place without a value")
		for n := range data {
			_, err := l2.Decode(data[:n])
			require.ErrorIs(t, err, l2.ErrMalformed, "cut after %d bytes", n)
		}
	})
}

func good() l2.Entry {
	return l2.Entry{Version: 1, Position: at(1, 0, 1), Stored: time.UnixMilli(1), TTL: time.Second, Value: []byte("value")}
}

func TestCodecRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*l2.Entry)
		is     error
	}{
		"no version":  {func(e *l2.Entry) { e.Version = 0 }, l2.ErrUnversioned},
		"no position": {func(e *l2.Entry) { e.Position = bus.Position{} }, nil},
		"claims":      {func(e *l2.Entry) { e.Claims = make([]l2.Claim, 65) }, bus.ErrTooLarge},
		"no time":     {func(e *l2.Entry) { e.Stored = time.Time{} }, nil},
		"far future":  {func(e *l2.Entry) { e.Stored = time.UnixMilli(1 << 60) }, nil},
		"no ttl":      {func(e *l2.Entry) { e.TTL = 0 }, nil},
		"value":       {func(e *l2.Entry) { e.Value = make([]byte, l2.MaxEntry+1) }, bus.ErrTooLarge},
		"whole":       {func(e *l2.Entry) { e.Value = make([]byte, l2.MaxEntry-10) }, bus.ErrTooLarge},
		"etag":        {func(e *l2.Entry) { e.ETag = strings.Repeat("e", l2.MaxETag+1) }, bus.ErrTooLarge},
		"tags":        {func(e *l2.Entry) { e.Tags = make([]string, l2.MaxLinks+1) }, bus.ErrTooLarge},
		"depends":     {func(e *l2.Entry) { e.Depends = make([]string, l2.MaxLinks+1) }, bus.ErrTooLarge},
		"tag bytes":   {func(e *l2.Entry) { e.Tags = slices.Repeat([]string{strings.Repeat("t", bus.MaxKey)}, 40) }, bus.ErrTooLarge},
	} {
		e := good()
		c.change(&e)
		_, err := l2.Encode(e)
		require.Error(t, err, name)
		if c.is != nil {
			require.ErrorIs(t, err, c.is, name)
		}
	}
}

func TestDecodeOfOtherVersions(t *testing.T) {
	data, err := l2.Encode(good())
	require.NoError(t, err)
	appended := append([]byte{0x9f}, data[1:]...) // an array of 15
	e, err := l2.Decode(append(appended, 0xc0))
	require.NoError(t, err, "what a newer version appends is not read")
	same(t, good(), e)
	other := bytes.Clone(data)
	other[1] = 2 // the schema
	_, err = l2.Decode(other)
	require.ErrorIs(t, err, l2.ErrNewer)
	require.NotErrorIs(t, err, l2.ErrMalformed)
	for _, bad := range []string{"", "x", "\x91", "\xc0", "\x9c\x01", "\x93\x01\x00\x01", "{}", string(make([]byte, l2.MaxEntry+1))} {
		_, err = l2.Decode([]byte(bad))
		require.ErrorIs(t, err, l2.ErrMalformed)
	}
}

// A short body must not make the decoder allocate what it announces.
func TestDecodeChecksLengthsFirst(t *testing.T) {
	head := []byte{0x9e, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0xa0} // up to the etag
	for name, rest := range map[string][]byte{
		"tags":   {0xdd, 0x7f, 0xff, 0xff, 0xff},
		"tag":    {0x91, 0xdb, 0x7f, 0xff, 0xff, 0xff},
		"claims": {0x90, 0x90, 0xdd, 0x7f, 0xff, 0xff, 0xff},
		"value":  {0x90, 0x90, 0x90, 0xc6, 0x7f, 0xff, 0xff, 0xff},
	} {
		body := append(slices.Clone(head), rest...)
		grown := testing.AllocsPerRun(10, func() {
			_, err := l2.Decode(body)
			require.ErrorIs(t, err, l2.ErrMalformed, name)
			require.ErrorContains(t, err, "announced", name)
		})
		require.Less(t, grown, 60.0, name)
	}
	many := append(slices.Clone(head), 0xdc, 0x04, 0x01) // 1,025 tags
	many = append(append(many, bytes.Repeat([]byte{0xa0}, 1025)...), 0x90, 0x90, 0xc4, 0)
	_, err := l2.Decode(many)
	require.ErrorContains(t, err, "1025 texts announced")
}

func FuzzDecode(f *testing.F) {
	full := good()
	full.Tags, full.Depends, full.ETag, full.Claims = []string{"a", "b"}, []string{"k:1"}, `"e"`, []l2.Claim{{ID: 7, Until: time.UnixMilli(7)}}
	for _, e := range []l2.Entry{good(), full, full.Empty()} {
		data, err := l2.Encode(e)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte("\x9c\x02"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := l2.Decode(data)
		if err != nil {
			return
		}
		again, err := l2.Encode(e)
		require.NoError(t, err)
		got, err := l2.Decode(again)
		require.NoError(t, err)
		same(t, e, got)
	})
}
