package webhook_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"pgregory.net/rapid"

	"github.com/nearside-cache/nearside/kube/webhook"
)

func apply(t require.TestingT, doc, patch []byte) []byte {
	if patch == nil {
		return doc
	}
	p, err := jsonpatch.DecodePatch(patch)
	require.NoError(t, err)
	out, err := p.Apply(doc)
	require.NoError(t, err, string(patch))
	return out
}

func toJSON(t require.TestingT, v any) []byte {
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return data
}

func TestDifference(t *testing.T) {
	for _, c := range []struct{ name, before, after, patch string }{
		{"equal", `{"a":[{"name":"x"}],"b":1}`, `{"a":[{"name":"x"}],"b":1}`, ``},
		{"member added", `{}`, `{"a":null}`, `[{"op":"add","path":"/a","value":null}]`},
		{"member removed", `{"a":1}`, `{}`, `[{"op":"remove","path":"/a"}]`},
		{"scalar", `{"a":1}`, `{"a":""}`, `[{"op":"replace","path":"/a","value":""}]`},
		{"escaped", `{"a":{}}`, `{"a":{"nearside.dev/x~y":"1"}}`, `[{"op":"add","path":"/a/nearside.dev~1x~0y","value":"1"}]`},
		{"first", `{"c":[{"name":"app","new":1}]}`, `{"c":[{"name":"nearside"},{"name":"app","new":1}]}`,
			`[{"op":"add","path":"/c/0","value":{"name":"nearside"}}]`},
		{"inside the second", `{"c":[{"name":"app","m":[]}]}`, `{"c":[{"name":"nearside"},{"name":"app","m":[{"name":"v","mountPath":"/a"}]}]}`,
			`[{"op":"add","path":"/c/0","value":{"name":"nearside"}},{"op":"add","path":"/c/1/m/0","value":{"mountPath":"/a","name":"v"}}]`},
		{"one volume twice", `{"m":[{"name":"v","mountPath":"/a"}]}`, `{"m":[{"name":"v","mountPath":"/b"},{"name":"v","mountPath":"/a"}]}`,
			`[{"op":"add","path":"/m/0","value":{"mountPath":"/b","name":"v"}}]`},
		{"moved", `{"c":["a","b"]}`, `{"c":["b","a"]}`, `[{"op":"add","path":"/c/0","value":"b"},{"op":"remove","path":"/c/2"}]`},
		{"other kind", `{"a":[1]}`, `{"a":{"b":1}}`, `[{"op":"replace","path":"/a","value":{"b":1}}]`},
		{"large number", `{"a":9007199254740993}`, `{"a":9007199254740992}`, `[{"op":"replace","path":"/a","value":9007199254740992}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			patch, err := webhook.Difference(json.RawMessage(c.before), json.RawMessage(c.after))
			require.NoError(t, err)
			if c.patch == "" {
				require.Nil(t, patch)
				return
			}
			require.JSONEq(t, c.patch, string(patch))
			require.JSONEq(t, c.after, string(apply(t, []byte(c.before), patch)))
		})
	}
}

// Whatever the two are, the patch makes one into the other.
func TestDifferenceApplies(t *testing.T) {
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		leaf := rapid.OneOf(
			rapid.Map(rapid.IntRange(0, 2), func(n int) any { return n }),
			rapid.Map(rapid.SampledFrom([]string{"", "a", "b/~c"}), func(s string) any { return s }),
		)
		if depth == 0 {
			return leaf
		}
		named := rapid.Custom(func(t *rapid.T) any {
			return map[string]any{"name": rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name"), "v": value(depth-1).Draw(t, "v")}
		})
		return rapid.OneOf(leaf,
			rapid.Map(rapid.SliceOfN(rapid.OneOf(named, leaf), 0, 5), func(l []any) any { return l }),
			rapid.Map(rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c/d", "e~"}), value(depth-1), 0, 3), func(m map[string]any) any { return m }),
		)
	}
	rapid.Check(t, func(t *rapid.T) {
		before := map[string]any{"x": value(3).Draw(t, "before")}
		after := map[string]any{"x": value(3).Draw(t, "after")}
		patch, err := webhook.Difference(before, after)
		require.NoError(t, err)
		require.JSONEq(t, string(toJSON(t, after)), string(apply(t, toJSON(t, before), patch)))
	})
}
