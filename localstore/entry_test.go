package localstore

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const longest = time.Duration(math.MaxInt64 / int64(time.Millisecond) * int64(time.Millisecond))

var metas = []Meta{
	{},
	{Version: 1, Seq: 2, Tick: 3, Incarnation: 4, Expires: 5 * time.Millisecond},
	{Version: math.MaxUint64, Seq: math.MaxUint64, Tick: math.MaxUint64, Incarnation: math.MaxUint64, Expires: time.Duration(math.MaxInt64).Truncate(time.Millisecond)},
	{Version: 1, Hangs: []byte("12345678")},
	{Extra: Extra{Negative: true, Soft: time.Second}},
	{Version: 7, Extra: Extra{Packed: true, Soft: 2 * time.Second, Renew: time.Second, Span: time.Minute, ETag: `"33a64df5"`}, Hangs: []byte("12345678")},
	{
		Version: math.MaxUint64, Seq: math.MaxUint64, Tick: math.MaxUint64, Incarnation: math.MaxUint64,
		Expires: longest, Hangs: make([]byte, MaxHangs),
		Extra: Extra{Soft: longest, Renew: longest, Span: longest, Negative: true, Packed: true, ETag: strings.Repeat("e", MaxETag)},
	},
}

// encode makes a whole record.
func encode(key string, m Meta, pad int, value string) []byte {
	return appendRest(appendHead(nil, key, m), pad, []byte(value))
}

func TestEntryRoundTrip(t *testing.T) {
	for _, m := range metas {
		for _, key := range []string{"k", strings.Repeat("k", 127), strings.Repeat("k", 128), strings.Repeat("k", MaxKey)} {
			for _, value := range []string{"", "v", strings.Repeat("v", 200)} {
				for _, pad := range []int{0, 1, 2, maxPad} {
					b := encode(key, m, pad, value)
					require.Len(t, b, len(encode(key, m, 0, value))+pad)
					var r record
					require.NoError(t, r.parse(b))
					m.Size = len(value)
					require.Equal(t, m, r.own())
					require.Equal(t, key, string(r.key))
					require.Equal(t, value, string(r.value))
				}
			}
		}
	}
}

// A header that outgrew maxHeader would make a record that no ring can hold.
func TestEntryHeaderIsBounded(t *testing.T) {
	key := strings.Repeat("k", MaxKey)
	b := encode(key, metas[len(metas)-1], 0, "")
	require.LessOrEqual(t, len(b)-len(key), maxHeader)
}

func TestEntryRefusesMalformed(t *testing.T) {
	var r record
	whole := encode("key", Meta{Version: 300}, 0, "")
	for n := range whole {
		require.ErrorIs(t, r.parse(whole[:n]), errEntry, "first %d bytes", n)
	}
	require.NoError(t, r.parse(whole))
	for name, b := range map[string]string{
		"other format":     "\x10\x01k\x00\x00\x00\x00\x00",
		"unknown flag":     "\x21\x01k\x00\x00\x00\x00\x00",
		"no key":           "\x20\x00\x00\x00\x00\x00\x00",
		"key too long":     "\x20\x05k\x00\x00",
		"key over limit":   "\x20\x80\x80\x04" + strings.Repeat("k", 1<<16) + "\x00\x00\x00\x00\x00",
		"key length":       "\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01k",
		"key length open":  "\x20\xff",
		"extra cut off":    "\x28\x01k\x00\x00\x00\x00\x00\x01\x00\x00",
		"extra flag":       "\x28\x01k\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00",
		"extra too large":  "\x28\x01k\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00",
		"hangs of nothing": "\x24\x01k\x00\x00\x00\x00\x00\x00",
		"hangs too long":   "\x24\x01k\x00\x00\x00\x00\x00\x02h",
		"uvarint too long": "\x20\x01k\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00\x00",
		"expiry too large": "\x20\x01k\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"padding too long": "\x22\x01k\x00\x00\x00\x00\x00\x02p",
	} {
		require.ErrorIs(t, r.parse([]byte(b)), errEntry, name)
	}
}

func TestEntryExpiresInMilliseconds(t *testing.T) {
	for in, want := range map[time.Duration]time.Duration{
		0:                                 0,
		1:                                 time.Millisecond,
		-time.Second:                      time.Millisecond,
		1999 * time.Microsecond:           time.Millisecond,
		2 * time.Millisecond:              2 * time.Millisecond,
		math.MaxInt64:                     time.Duration(math.MaxInt64).Truncate(time.Millisecond),
		time.Hour + time.Duration(999999): time.Hour,
	} {
		var r record
		require.NoError(t, r.parse(encode("k", Meta{Expires: in}, 0, "")))
		require.Equal(t, want, r.meta.Expires, in)
	}
}

// An entry that cannot be read is never passed over: whoever keeps fences must
// learn that some key was lost. Nothing refers to it afterwards.
func TestUnreadableEntryIsReportedUnknown(t *testing.T) {
	for name, spoil := range map[string]func(rec []byte){
		"format": func(rec []byte) { rec[0] = 'n' },
		"stamps": func(rec []byte) { rec[0] |= flagHangs },
	} {
		s, err := Open(Config{Budget: 4 << 20, MaxValue: 1 << 10})
		require.NoError(t, err)
		require.NoError(t, s.Put("k", nil, Meta{}, nil))
		sh := s.shelf.Load()
		sd, mixed := sh.shard("k")
		_, w, rec := sd.find("k", mixed)
		spoil(rec)
		require.NoError(t, sd.makeRoom(w.ring(), new(chances(allChances))))
		for sd.entries > 0 { // it may have gone on to main before
			require.NoError(t, sd.makeRoom(mainRing, new(chances)))
		}
		require.Equal(t, []Evicted{{Unknown: true}}, sh.lost, name)
		for i := range sd.index.Load().slots {
			require.Zero(t, sd.index.Load().at(i), name)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, m := range metas {
		f.Add(encode("k", m, 0, "value"))
		f.Add(encode(strings.Repeat("k", 300), m, 7, ""))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r record
		if err := r.parse(b); err != nil {
			require.ErrorIs(t, err, errEntry)
			return
		}
		key, ok := keyOf(b)
		require.True(t, ok)
		require.Equal(t, r.key, key)
		var again record
		require.NoError(t, again.parse(encode(string(r.key), r.own(), 0, string(r.value))))
		require.Equal(t, r.own(), again.own())
		require.Equal(t, string(r.key), string(again.key))
		require.Equal(t, string(r.value), string(again.value))
	})
}
