package settings

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

// shape has every kind of field that a policy may have.
type shape struct {
	Text  string            `yaml:"text"`
	Wait  time.Duration     `yaml:"wait"`
	Size  policy.Size       `yaml:"size"`
	Count int               `yaml:"count"`
	Share float64           `yaml:"share"`
	On    bool              `yaml:"on"`
	List  []string          `yaml:"list"`
	Table map[string]string `yaml:"table" secret:"true"`
	Key   string            `yaml:"key" secret:"true"`
	Inner *shape            `yaml:"inner"`
	plain int
}

// readShape reads text into a shape and returns the faults.
func readShape(t *testing.T, text string, into *shape) (*Reader, []string) {
	r := &Reader{flags: pflag.NewFlagSet("", pflag.ContinueOnError), from: make(map[string]string)}
	var document yaml.Node
	require.NoError(t, yaml.Unmarshal([]byte(text), &document))
	file{r, "f"}.block("s", document.Content[0], reflect.ValueOf(into).Elem())
	var faults []string
	for _, err := range r.faults {
		faults = append(faults, err.Error())
	}
	return r, faults
}

func TestEveryKindOfField(t *testing.T) {
	var s shape
	r, faults := readShape(t, "text: x\nwait: 90m\nsize: 4KiB\ncount: 3\nshare: 0.5\non: true\nlist: [a, b]\ntable: {h: v}\nkey: k\ninner: {count: 4}\n", &s)
	require.Empty(t, faults)
	want := shape{
		Text: "x", Wait: 90 * time.Minute, Size: 4096, Count: 3, Share: 0.5, On: true, List: []string{"a", "b"},
		Table: map[string]string{"h": "v"}, Key: "k", Inner: &shape{Count: 4}, plain: 0,
	}
	require.Equal(t, want, s)

	var out bytes.Buffer
	require.NoError(t, Print(&out, r.describe(nil, []string{"s"}, reflect.ValueOf(&s).Elem(), true), true))
	require.Equal(t, `s:
  text: x # f:1
  wait: 1h30m # f:2
  size: 4KiB # f:3
  count: 3 # f:4
  share: 0.5 # f:5
  on: true # f:6
  list: [a, b] # f:7
  table: {h: '***'} # f:8
  key: '***' # f:9
  inner:
    count: 4 # f:10
`, out.String())
}

// A block of a namespace begins as that of defaults, and never changes it.
func TestInheritedBlocksAreCopied(t *testing.T) {
	base := shape{Inner: &shape{Count: 1, Text: "kept"}, List: []string{"a"}, Table: map[string]string{"a": "1"}}
	s := base
	_, faults := readShape(t, "inner: {count: 2}\nlist: [b]\ntable: {b: '2'}\n", &s)
	require.Empty(t, faults)
	require.Equal(t, &shape{Count: 2, Text: "kept"}, s.Inner)
	require.Equal(t, []string{"b"}, s.List)
	require.Equal(t, map[string]string{"b": "2"}, s.Table)
	require.Equal(t, shape{Inner: &shape{Count: 1, Text: "kept"}, List: []string{"a"}, Table: map[string]string{"a": "1"}}, base)

	s = base
	_, faults = readShape(t, "inner:\nlist:\ntable:\n", &s)
	require.Empty(t, faults)
	require.Nil(t, s.Inner, "null takes away")
	require.Empty(t, s.List)
	require.Empty(t, s.Table)
}

func TestFaultsOfEveryKind(t *testing.T) {
	_, faults := readShape(t, "text: [x]\nwait: 5\nsize: -1\ncount: 1.5\nshare: half\non: 'yes'\nlist: a\ntable: [a]\nkey: {}\ninner: {inner: {count: x}}\n", new(shape))
	require.Equal(t, []string{
		"f:1: s.text is a list: want one value",
		`f:2: s.wait is "5": want a duration such as 30s or 10m`,
		`f:3: s.size is "-1": want a size such as 64KiB`,
		`f:4: s.count is "1.5": want a whole number`,
		`f:5: s.share is "half": want a number such as 0.1`,
		`f:6: s.on is "yes": want true or false`,
		`f:7: s.list is "a": want a list`,
		"f:8: s.table is a list: want keys with values, not a list",
		"f:9: s.key is a map: want one value",
		`f:10: s.inner.inner.count is "x": want a whole number`,
	}, faults)
	_, faults = readShape(t, "list: [[a]]\n", new(shape))
	require.Equal(t, []string{"f:1: s.list[0] is a list: want one value"}, faults)
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		10 * time.Minute: "10m", time.Hour: "1h", 90 * time.Minute: "1h30m", 90 * time.Second: "1m30s", 0: "0s", time.Second: "1s", 10 * time.Second: "10s",
		time.Hour + time.Second: "1h0m1s", 100 * time.Millisecond: "100ms", 20 * time.Minute: "20m",
	} {
		require.Equal(t, want, Duration(d))
		back, err := time.ParseDuration(Duration(d))
		require.NoError(t, err)
		require.Equal(t, d, back)
	}
}

func TestSecretsAreMasked(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.String("password", "", "")
	fs.String("empty", "", "")
	fs.String("nats", "nats://me:pw@a:1,tls://b:2,token@c", "")
	fs.Duration("wait", time.Hour, "")
	Secret(fs, "password")
	Secret(fs, "empty")
	require.NoError(t, fs.Parse([]string{"--password=hush"}))
	r := Read(fs, policy.DefaultSet(), Sources{Lookup: func(string) (string, bool) { return "", false }})
	require.Equal(t, []Setting{
		{[]string{"empty"}, "", OriginDefault},
		{[]string{"nats"}, "nats://***@a:1,tls://b:2,***@c", OriginDefault},
		{[]string{"password"}, Masked, "--password"},
		{[]string{"wait"}, "1h", OriginDefault},
	}, r.Flags())
}
