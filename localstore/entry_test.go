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

func TestEntryRoundTrip(t *testing.T) {
	for _, m := range metas {
		for _, tail := range []string{"", "t", strings.Repeat("t", MaxKey-maxHead)} {
			for _, value := range []string{"", "v", strings.Repeat("v", 200)} {
				b := appendEntry(nil, 3, tail, m, []byte(value))
				require.GreaterOrEqual(t, ringBytes(3, len(b)), minEntry)
				got, gotTail, gotValue, err := parseEntry(b)
				require.NoError(t, err)
				m.Size = len(value)
				require.Equal(t, m, got)
				require.Equal(t, tail, string(gotTail))
				require.Equal(t, value, string(gotValue))
			}
		}
	}
}

// A header that outgrew maxHeader would make the largest value fail in bigcache,
// after it evicted a whole shard.
func TestEntryHeaderIsBounded(t *testing.T) {
	value := make([]byte, minEntry)
	b := appendEntry(nil, maxHead, strings.Repeat("t", MaxKey-maxHead), metas[len(metas)-1], value)
	require.LessOrEqual(t, len(b)-len(value), maxHeader)
}

// Short entries are padded, since the budget counts on it; others carry nothing
// that they do not need.
func TestEntryPadding(t *testing.T) {
	for size := range 2 * minEntry {
		n := ringBytes(10, len(appendEntry(nil, 10, "", Meta{}, make([]byte, size))))
		plain := ringBytes(10, 1+stamps+size)
		if plain >= minEntry {
			require.Equal(t, plain, n)
		} else {
			require.InDelta(t, minEntry, n, 2)
			require.GreaterOrEqual(t, n, minEntry)
		}
	}
}

func TestEntryRefusesMalformed(t *testing.T) {
	whole := appendEntry(nil, 1, "tail", Meta{Version: 300}, nil)
	for n := range whole {
		_, _, _, err := parseEntry(whole[:n])
		require.ErrorIs(t, err, errEntry, "first %d bytes", n)
	}
	for name, b := range map[string]string{
		"other format":     "\x20\x00\x00\x00\x00\x00",
		"extra cut off":    "\x18\x00\x00\x00\x00\x00\x01\x00\x00",
		"extra flag":       "\x18\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00",
		"extra too large":  "\x18\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00",
		"uvarint too long": "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00\x00",
		"expiry too large": "\x10\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"tail too long":    "\x11\x00\x00\x00\x00\x00\x02t",
		"padding too long": "\x12\x00\x00\x00\x00\x00\x02p",
	} {
		_, _, _, err := parseEntry([]byte(b))
		require.ErrorIs(t, err, errEntry, name)
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
		m, _, _, err := parseEntry(appendEntry(nil, 1, "", Meta{Expires: in}, nil))
		require.NoError(t, err)
		require.Equal(t, want, m.Expires, in)
	}
}

// An entry that cannot be read is never passed over: whoever keeps fences must
// learn that some key was lost.
func TestUnreadableEntryIsReportedUnknown(t *testing.T) {
	s := &shelf{}
	s.removed("key", []byte("noise"), 0)
	require.Equal(t, []Evicted{{Unknown: true}}, s.lost)
}

func FuzzParseEntry(f *testing.F) {
	for _, m := range metas {
		f.Add(appendEntry(nil, 1, "", m, []byte("value")))
		f.Add(appendEntry(nil, maxHead, "tail", m, nil))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, tail, value, err := parseEntry(b)
		if err != nil {
			require.ErrorIs(t, err, errEntry)
			return
		}
		again, againTail, againValue, err := parseEntry(appendEntry(nil, 1, string(tail), m, value))
		require.NoError(t, err)
		require.Equal(t, m, again)
		require.Equal(t, string(tail), string(againTail))
		require.Equal(t, value, againValue)
	})
}
