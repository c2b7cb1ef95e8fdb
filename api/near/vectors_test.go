package near_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/nearside-cache/nearside/api/near"
)

const vectors = "../testdata/vectors"

// schemaVector describes a kind of frame: messages.json.
type schemaVector struct {
	Kind   uint8        `json:"kind"`
	Name   string       `json:"name"`
	From   string       `json:"from"` // client or sidecar
	Fields []near.Field `json:"fields"`
}

// frameVector is a frame and what it says: frames.json.
type frameVector struct {
	Name string `json:"name"`
	Kind uint8  `json:"kind"`
	ID   uint32 `json:"id"`
	Hex  string `json:"hex"`
	// Writes says that an encoder of these fields writes exactly these bytes. Else they
	// are only read so.
	Writes bool  `json:"writes"`
	Fields []any `json:"fields"`
}

// brokenVector is what is no frame, or no body of its kind: broken.json.
type brokenVector struct {
	Name  string `json:"name"`
	Hex   string `json:"hex"`
	Error string `json:"error"`
}

func schemas() (all []schemaVector) {
	for _, k := range near.Kinds() {
		from := "sidecar"
		if k.IsRequest() {
			from = "client"
		}
		fields := near.Fields(k)
		if fields == nil {
			fields = []near.Field{}
		}
		all = append(all, schemaVector{uint8(k), k.String(), from, fields})
	}
	return all
}

// samples are a message of each kind and of each shape.
func samples() []struct {
	name string
	kind near.Kind
	m    near.Message
} {
	key := []byte("product:1")
	read := near.Read{Wait: -1}
	type sample = struct {
		name string
		kind near.Kind
		m    near.Message
	}
	return []sample{
		{"hello", near.KindHello, &near.Hello{Min: 1, Max: 1, Name: "app", Password: "pässword", Library: "nearside-go", LibraryVersion: "1.0.0"}},
		{"ping", near.KindPing, &near.None{}},
		{"get as the class says", near.KindGet, &near.Get{Key: key, Read: read}},
		{"get of bytes that are no text", near.KindGet, &near.Get{Key: []byte{0xff, 0x00, 0xc3}, Read: read}},
		{"get of 300 bytes", near.KindGet, &near.Get{Key: []byte(strings.Repeat("k", 300)), Read: read}},
		{"get for L0, with its token, at once", near.KindGet, &near.Get{Key: key, Read: near.Read{Mode: near.Any, Flags: near.ForL0 | near.WithToken}}},
		{"get no staler than 200 ms", near.KindGet, &near.Get{Key: key, Read: near.Read{Mode: near.MaxStale, MaxStale: 200 * time.Millisecond, Wait: time.Second}}},
		{"get at least as new as a token", near.KindGet, &near.Get{Key: key, Read: near.Read{Mode: near.AtLeast, Token: "18a5c0ffee-2-1f-9", Wait: -1}}},
		{"strong get", near.KindGet, &near.Get{Key: key, Read: near.Read{Mode: near.Strong, Wait: -1}}},
		{"gets", near.KindGets, &near.Gets{Keys: [][]byte{key, []byte("product:2")}, Read: read}},
		{"gets of 20 keys", near.KindGets, &near.Gets{Keys: many(20), Read: read}},
		{"fill", near.KindFill, &near.Fill{Key: key, Lease: "1.2.3.4.5.false.6", Value: []byte("value"), Version: 42, TTL: time.Minute, Soft: time.Second, Tags: []string{"tag", "tenant:ä"}, Depends: [][]byte{[]byte("user:1")}}},
		{"fill of an absence", near.KindFill, &near.Fill{Key: key, Lease: "1.2.3.4.5.false.6", Negative: true}},
		{"release", near.KindRelease, &near.Release{Key: key, Lease: "1.2.3.4.5.false.6"}},
		{"invalidate", near.KindInvalidate, &near.Invalidate{Keys: []near.KeyVersion{{Key: key, Version: 43}, {Key: []byte("product:2")}}, Tags: []string{"tag"}, Prefix: []byte("product:"), Refresh: true, Changed: 1700000000 * time.Second, ID: "id-1"}},
		{"invalidate a namespace", near.KindInvalidate, &near.Invalidate{Namespace: "product"}},
		{"update", near.KindUpdate, &near.Update{Key: key, Version: 1<<64 - 1, Value: []byte{0, 1, 2}, TTL: time.Minute, Changed: 1700000000 * time.Second, ID: "id-2"}},
		{"barrier", near.KindBarrier, &near.None{}},
		{"explain", near.KindExplain, &near.Explain{Key: key}},
		{"status", near.KindStatus, &near.None{}},
		{"policy", near.KindPolicy, &near.Policy{Namespace: "product"}},
		{"toggle", near.KindToggle, &near.Toggle{Namespace: "*", Setting: "mode", Value: "off", For: time.Minute}},
		{"untoggle", near.KindUntoggle, &near.Untoggle{Namespace: "product"}},
		{"settings", near.KindSettings, &near.None{}},
		{"subscribe", near.KindSubscribe, &near.None{}},
		{"unsubscribe", near.KindUnsubscribe, &near.None{}},
		{"track", near.KindTrack, &near.Track{On: true}},

		{"error", near.KindError, &near.Error{Code: near.BadValue, Message: "a key has 0 bytes: want 1 to 65535"}},
		{"welcome", near.KindHello.Answer(), &near.Welcome{Version: 1, Sidecar: "v0.6.0", Client: 7, Incarnation: 1 << 40, Clock: 3 * time.Hour, BootID: "d3b07384-d9a0-4c9b-8f3e-1f2a3b4c5d6e", Limits: near.Limits{Key: 65535, Value: 1 << 20, Frame: 16 << 20, Pending: 1024, Tracked: 65536}, Features: []string{"feature"}}},
		{"pong", near.KindPing.Answer(), &near.Pong{Clock: 3 * time.Hour}},
		{"hit", near.KindGet.Answer(), &near.Value{Status: near.Hit, Value: []byte("value"), Version: 42, AsOf: 3 * time.Hour}},
		{"hit to be kept", near.KindGet.Answer(), &near.Value{Status: near.Hit, Value: []byte("value"), Version: 42, AsOf: 3 * time.Hour, Flags: near.Cacheable | near.Links, Until: 4 * time.Hour, Bound: 30 * time.Second, Token: "18a5c0ffee-2-1f-2a"}},
		{"hit of an empty value", near.KindGet.Answer(), &near.Value{Status: near.Hit, AsOf: time.Nanosecond}},
		{"miss", near.KindGet.Answer(), &near.Value{Status: near.Miss, AsOf: 3 * time.Hour, Flags: near.Right, Lease: "1.2.3.4.5.false.6"}},
		{"bypass", near.KindGet.Answer(), &near.Value{Status: near.Bypass, AsOf: 3 * time.Hour}},
		{"values", near.KindGets.Answer(), &near.Values{Items: []near.Value{{Status: near.Hit, Value: []byte("value"), Version: 42}, {Status: near.Unread}}}},
		{"stored", near.KindFill.Answer(), &near.Filled{Stored: true}},
		{"rejected", near.KindFill.Answer(), &near.Filled{Verdict: "older-version"}},
		{"released", near.KindRelease.Answer(), &near.Count{N: 1}},
		{"invalidated", near.KindInvalidate.Answer(), &near.Written{Token: "18a5c0ffee-2-1f", Alive: 2}},
		{"updated", near.KindUpdate.Answer(), &near.Written{Token: "18a5c0ffee-2-20"}},
		{"barrier passed", near.KindBarrier.Answer(), &near.Written{Token: "18a5c0ffee-2-21"}},
		{"explanation", near.KindExplain.Answer(), &near.Description{Facts: []near.Fact{{Name: "next_read", Value: "HIT"}, {Name: "version", Value: uint64(1<<64 - 1)}, {Name: "ttl_ms", Value: int64(-5)}, {Name: "resident", Value: true}}}},
		{"state", near.KindStatus.Answer(), &near.Description{Facts: []near.Fact{{Name: "ready", Value: false}}}},
		{"policy of a namespace", near.KindPolicy.Answer(), &near.PolicyState{Namespace: "product", Block: "namespaces.product", Mode: "off", Purges: "resume", Effects: []string{"nothing is served"}, Toggles: []near.ToggleState{{Namespace: "product", Setting: "mode", Value: "off", Left: time.Minute}}}},
		{"toggled", near.KindToggle.Answer(), &near.Count{N: 1}},
		{"untoggled", near.KindUntoggle.Answer(), &near.Count{N: 300}},
		{"settings as JSON", near.KindSettings.Answer(), &near.SettingsText{JSON: []byte(`[]`)}},
		{"subscribed", near.KindSubscribe.Answer(), &near.None{}},
		{"unsubscribed", near.KindUnsubscribe.Answer(), &near.None{}},
		{"tracking", near.KindTrack.Answer(), &near.Fresh{AsOf: 3 * time.Hour, Applied: "18a5c0ffee-2-1f"}},

		{"keys are out of date", near.KindInvalidated, &near.Invalidated{Scope: near.Keys, Reason: near.ByEvent, Names: [][]byte{key, {0xff}}}},
		{"a prefix is", near.KindInvalidated, &near.Invalidated{Scope: near.Prefix, Reason: near.ByWrite, Names: [][]byte{[]byte("product:")}}},
		{"what is linked is", near.KindInvalidated, &near.Invalidated{Scope: near.Linked, Reason: near.ByEvent}},
		{"everything is", near.KindInvalidated, &near.Invalidated{Scope: near.Everything, Reason: near.ByDoubt}},
		{"fresh", near.KindFresh, &near.Fresh{AsOf: 3*time.Hour + 1, Applied: "18a5c0ffee-2-1f"}},
		{"event", near.KindEvent, &near.Event{Seq: 31, Position: "18a5c0ffee-2-1f", Op: "invalidate", Namespace: "product", Keys: []near.KeyVersion{{Key: key, Version: 43}}, MoreKeys: 1, Tags: []string{"tag"}, Prefix: []byte("product:"), Writer: "app", Stored: 1700000000 * time.Second, Lag: time.Millisecond, Error: "", Lost: 2}},
		{"goodbye", near.KindGoodbye, &near.Goodbye{Error: near.Error{Code: near.Ending, Message: "the sidecar ends"}}},
	}
}

func many(n int) (keys [][]byte) {
	for i := range n {
		keys = append(keys, fmt.Appendf(nil, "k%d", i))
	}
	return keys
}

func frames(t *testing.T) (all []frameVector) {
	for i, s := range samples() {
		id := uint32(i + 1)
		if s.kind.IsPush() {
			id = 0
		}
		all = append(all, frameVector{s.name, uint8(s.kind), id, hex.EncodeToString(near.Append(nil, s.kind, id, s.m)), true, said(t, s.kind, s.m)})
	}
	return append(all, readOnly(t)...)
}

// readOnly are frames that nobody of this version writes, and everybody reads.
func readOnly(t *testing.T) []frameVector {
	frame := func(name string, kind near.Kind, m near.Message, body ...byte) frameVector {
		b := []byte{near.Magic, byte(kind), 0, 0, 1, 0, 0, 0, 0, byte(len(body))}
		return frameVector{name, uint8(kind), 256, hex.EncodeToString(append(b, body...)), false, said(t, kind, m)}
	}
	get := &near.Get{Key: []byte("k"), Read: near.Read{Wait: -1}}
	value := near.EndValue(append(near.BeginValue(nil, 7), "value"...), 0, &near.Value{Status: near.Hit, Version: 1})
	return []frameVector{
		frame("fields left out", near.KindGet, get, 0x91, 0xc4, 1, 'k'),
		frame("no fields at all", near.KindGet, &near.Get{Read: near.Read{Wait: -1}}, 0x90),
		frame("a str for a bin", near.KindGet, get, 0x91, 0xa1, 'k'),
		frame("wide lengths", near.KindGet, get, 0xdd, 0, 0, 0, 1, 0xc6, 0, 0, 0, 1, 'k'),
		frame("a bin for a str", near.KindExplain.Answer(), &near.Description{Facts: []near.Fact{{Name: "n", Value: true}}}, 0x91, 0x91, 0x92, 0xc4, 1, 'n', 0xc3),
		frame("wide numbers", near.KindPing.Answer(), &near.Pong{Clock: 5}, 0x91, 0xcf, 0, 0, 0, 0, 0, 0, 0, 5),
		frame("a signed number that is not negative", near.KindPing.Answer(), &near.Pong{Clock: 5}, 0x91, 0xd1, 0, 5),
		frame("fields of a newer version", near.KindPing.Answer(), &near.Pong{Clock: 5}, 0x94, 5, 0x81, 0xa1, 'a', 0x92, 0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xc0, 0xd6, 0xff, 0, 0, 0, 1, 0xff),
		frame("flags of a newer version", near.KindGet, &near.Get{Key: []byte("k"), Read: near.Read{Flags: near.ForL0}}, 0x96, 0xc4, 1, 'k', 0, 0, 0xa0, 0, 0xcd, 1, 1),
		frame("flags of a newer version, in an answer", near.KindGet.Answer(), &near.Value{Status: near.Hit, Flags: near.Links}, 0x95, 1, 0xc4, 0, 0, 0, 0xcf, 0x80, 0, 0, 0, 0, 0, 1, 2),
		{"a value with a wide length, as the sidecar writes it", uint8(near.KindGet.Answer()), 7, hex.EncodeToString(value), false, said(t, near.KindGet.Answer(), &near.Value{Status: near.Hit, Value: []byte("value"), Version: 1})},
	}
}

// said is what a message says, as the vectors have it: see their README.
func said(t *testing.T, kind near.Kind, m near.Message) []any {
	var fields []any
	require.NoError(t, msgpack.Unmarshal(near.Append(nil, kind, 1, m)[near.HeaderSize:], &fields))
	if fields == nil {
		return []any{}
	}
	return plain(fields).([]any)
}

func plain(v any) any {
	switch x := v.(type) {
	case []byte:
		return map[string]any{"hex": hex.EncodeToString(x)}
	case []any:
		all := make([]any, len(x))
		for i := range x {
			all[i] = plain(x[i])
		}
		return all
	case string, bool, nil:
		return v
	}
	return map[string]any{"number": fmt.Sprint(reflect.ValueOf(v))}
}

func broken() []brokenVector {
	h := func(kind near.Kind, body ...byte) string {
		return hex.EncodeToString(append([]byte{near.Magic, byte(kind), 0, 0, 0, 1, 0, 0, 0, byte(len(body))}, body...))
	}
	return []brokenVector{
		{"nothing", "", "short"},
		{"half a header", "b503000000", "short"},
		{"half a body", "b503000000010000000491c401", "short"},
		{"another protocol", hex.EncodeToString([]byte("*1\r\n$4\r\nPING\r\n")), "framing"},
		{"a body of more than 1 GiB", "b5030000000140000001", "framing"},
		{"no array", h(near.KindGet, 0xc0), "malformed"},
		{"a map", h(near.KindGet, 0x80), "malformed"},
		{"an empty body", h(near.KindGet), "malformed"},
		{"an array that is not whole", h(near.KindGet, 0x92, 0xc4, 1, 'k'), "malformed"},
		{"an array of more than there is", h(near.KindGet, 0xdd, 0xff, 0xff, 0xff, 0xff), "malformed"},
		{"something behind the array", h(near.KindPing, 0x90, 0xc0), "malformed"},
		{"a number for a bin", h(near.KindGet, 0x91, 7), "malformed"},
		{"a bin that is not whole", h(near.KindGet, 0x91, 0xc4, 9, 'k'), "malformed"},
		{"a bin of 4 GiB", h(near.KindGet, 0x91, 0xc6, 0xff, 0xff, 0xff, 0xff), "malformed"},
		{"a negative number", h(near.KindPing.Answer(), 0x91, 0xff), "malformed"},
		{"a negative number of eight bytes", h(near.KindPing.Answer(), 0x91, 0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "malformed"},
		{"a moment of 2^63", h(near.KindPing.Answer(), 0x91, 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0), "malformed"},
		{"a fraction", h(near.KindPing.Answer(), 0x91, 0xca, 0x3f, 0x80, 0, 0), "malformed"},
		{"a number for a bool", h(near.KindTrack, 0x91, 1), "malformed"},
		{"a list of more than there is", h(near.KindGets, 0x91, 0xdc, 0xff, 0xff), "malformed"},
		{"more tags than may be", tooManyTags(), "malformed"},
		{"no value at all (0xc1)", h(near.KindPing, 0x91, 0xc1), "malformed"},
		{"an unknown field that is not whole", h(near.KindPing, 0x91, 0x82, 0xc0), "malformed"},
	}
}

func tooManyTags() string {
	f := &near.Fill{Key: []byte("k"), Tags: make([]string, near.MaxTags+1)}
	return hex.EncodeToString(near.Append(nil, near.KindFill, 1, f))
}

// The files are what the code writes, and the code reads them as they say.
func TestVectors(t *testing.T) {
	for name, all := range map[string]any{"messages.json": schemas(), "frames.json": frames(t), "broken.json": broken()} {
		text, err := json.MarshalIndent(all, "", "  ")
		require.NoError(t, err)
		path := filepath.Join(vectors, name)
		if *update {
			require.NoError(t, os.MkdirAll(vectors, 0o750))
			require.NoError(t, os.WriteFile(path, append(text, '\n'), 0o644))
		}
		held, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, string(held) == string(text)+"\n", "%s is not what the code says: run go test ./api/near -update", name)
	}
}

func TestVectorsAreReadAsTheySay(t *testing.T) {
	seen := make(map[near.Kind]bool)
	for _, v := range frames(t) {
		raw, err := hex.DecodeString(v.Hex)
		require.NoError(t, err)
		h, body, err := near.Next(raw)
		require.NoError(t, err, v.Name)
		require.Equal(t, len(raw), h.Size(), v.Name)
		m, known := near.New(h.Kind)
		require.True(t, known)
		require.NoError(t, near.Parse(body, m), v.Name)
		require.Equal(t, v.Fields, said(t, h.Kind, m), v.Name)
		if v.Writes {
			seen[h.Kind] = true
		}
	}
	for _, k := range near.Kinds() {
		require.True(t, seen[k], "no vector of %s", k)
	}
	for _, v := range broken() {
		raw, err := hex.DecodeString(v.Hex)
		require.NoError(t, err)
		h, body, err := near.Next(raw)
		if err == nil {
			m, known := near.New(h.Kind)
			require.True(t, known)
			err = near.Parse(body, m)
		}
		want := map[string]error{"short": near.ErrShort, "framing": near.ErrFraming, "malformed": near.ErrMalformed}[v.Error]
		require.ErrorIs(t, err, want, v.Name)
	}
}
