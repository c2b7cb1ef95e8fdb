package settings_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// values are what the flags of these tests set.
type values struct {
	name    string
	memory  int64
	clients int
	wait    time.Duration
	mode    fs.FileMode
	level   string
	purge   string
	config  string
}

func flags(t testing.TB, args ...string) (*values, *pflag.FlagSet) {
	v := &values{name: "default", memory: 64 << 20, clients: 10, wait: time.Second, mode: 0o666, level: "info"}
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	fs.StringVar(&v.name, "some-name", v.name, "")
	fs.Var(settings.Size(&v.memory), "memory", "")
	fs.IntVar(&v.clients, "clients", v.clients, "")
	fs.DurationVar(&v.wait, "wait", v.wait, "")
	fs.Var(settings.Mode(&v.mode), "mode", "")
	fs.Var(settings.Choice(&v.level, "debug", "info"), "level", "")
	fs.StringVar(&v.purge, "purge", "", "")
	fs.StringVar(&v.config, "config", "", "")
	settings.CommandLineOnly(fs, "purge")
	require.NoError(t, fs.Parse(args))
	return v, fs
}

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// read reads a file and an environment and returns the faults as text.
func read(t testing.TB, fs *pflag.FlagSet, env map[string]string, file string, validation error) (*policy.Set, []string) {
	p := policy.DefaultSet()
	r := settings.Read(fs, p, settings.Sources{Lookup: lookup(env), File: []byte(file), FileName: "f.yaml"})
	var faults []string
	for _, err := range r.Faults(validation) {
		faults = append(faults, err.Error())
	}
	return p, faults
}

func TestPrecedence(t *testing.T) {
	file := "some_name: file\nwait: 2s\nmemory: 1m\n"
	for _, c := range []struct {
		args []string
		env  map[string]string
		file string
		want string
	}{
		{nil, nil, "", "default"},
		{nil, nil, file, "file"},
		{nil, map[string]string{"NEARSIDE_SOME_NAME": "env"}, file, "env"},
		{nil, map[string]string{"NEARSIDE_SOME_NAME": ""}, file, ""},
		{[]string{"--some-name=flag"}, map[string]string{"NEARSIDE_SOME_NAME": "env"}, file, "flag"},
		{[]string{"--some-name="}, map[string]string{"NEARSIDE_SOME_NAME": "env"}, file, ""},
	} {
		v, fs := flags(t, c.args...)
		_, faults := read(t, fs, c.env, c.file, nil)
		require.Empty(t, faults)
		require.Equal(t, c.want, v.name, "%+v", c)
	}
}

func TestValues(t *testing.T) {
	v, fs := flags(t)
	_, faults := read(t, fs, nil, "memory: 1.5GiB\nclients: 7\nwait: 1m\nmode: 0600\nlevel: debug\nsome_name:\n", nil)
	require.Empty(t, faults)
	require.Equal(t, &values{memory: 3 << 29, clients: 7, wait: time.Minute, mode: 0o600, level: "debug"}, v)
	// What a value prints it reads back: a reload copies flags by their text.
	fs.VisitAll(func(f *pflag.Flag) {
		text := f.Value.String()
		require.NoError(t, f.Value.Set(text), f.Name)
		require.Equal(t, text, f.Value.String())
	})
	require.Equal(t, &values{memory: 3 << 29, clients: 7, wait: time.Minute, mode: 0o600, level: "debug"}, v)
	for text, want := range map[string]int64{"1000001": 1000001, "3KiB": 3072, "0": 0, "2g": 2 << 30} {
		require.NoError(t, fs.Set("memory", text))
		require.Equal(t, want, v.memory)
		require.NoError(t, fs.Set("memory", fs.Lookup("memory").Value.String()))
		require.Equal(t, want, v.memory, "%s is exact", text)
	}
	for _, bad := range []string{"", "-1", "x", "9999999999g", "1MiBs"} {
		require.Error(t, fs.Set("memory", bad), bad)
	}
}

// A value that cannot be read is a fault wherever it stands, also where another
// prevails, and changes nothing.
func TestFaultsOfAllSources(t *testing.T) {
	v, fs := flags(t, "--clients=3", "--memory=5")
	env := map[string]string{"NEARSIDE_CLIENTS": "many", "NEARSIDE_WAIT": "30", "NEARSIDE_PURGE": "yes", "NEARSIDE_HELP": "x", "NEARSIDE_PORT": "tcp://10.0.0.1"}
	file := "memory: lots\nmode: rw\nlevel: loud\nclients: [1]\nwait: 3s\n"
	_, faults := read(t, fs, env, file, errors.Join(errors.New("memory is 5: want more"), errors.Join(errors.New("wait: too short"), fmt.Errorf("other"))))
	require.Equal(t, []string{
		`f.yaml:1: memory is "lots": want a size such as 64MiB`,
		`f.yaml:2: mode is "rw": want a file mode in octal digits such as 0666`,
		`f.yaml:3: level is "loud": want debug or info`,
		`f.yaml:4: clients is a list: want one value`,
		`NEARSIDE_CLIENTS: clients is "many": want a whole number`,
		`NEARSIDE_WAIT: wait is "30": want a duration such as 30s or 10m`,
		`--memory: memory is 5: want more`,
		`f.yaml:5: wait: too short`,
		`other`,
	}, faults)
	require.Equal(t, &values{name: "default", memory: 5, clients: 3, wait: 3 * time.Second, mode: 0o666, level: "info"}, v)
}

func TestStrictFile(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		want []string
	}{
		"empty":         {"", nil},
		"comments":      {"# nothing\n", nil},
		"null":          {"---\n", nil},
		"unknown":       {"foo: 1\n", []string{"f.yaml:1: unknown key foo: want one of "}},
		"other spellng": {"\nsome-name: x\nfillWindow: 1s\n", []string{"f.yaml:2: unknown key some-name: did you mean some_name?", "f.yaml:3: unknown key fillWindow: did you mean fill_window?"}},
		"no config":     {"config: x\npurge: x\n", []string{"f.yaml:1: unknown key config", "f.yaml:2: unknown key purge"}},
		"twice":         {"wait: 1s\nwait: 2s\n", []string{"f.yaml:2: wait is given twice, first in line 1: remove one"}},
		"no map":        {"- a\n", []string{"f.yaml:1: want keys with values, not a list"}},
		"no YAML":       {"a: [\n", []string{"f.yaml: not YAML: line"}},
		"two documents": {"wait: 1s\n---\nwait: 2s\n", []string{"f.yaml: want one YAML document"}},
		"policies": {"defaults: 5\nnamespaces:\n  a: {ttl: 5, max_tll: 1s, allow_flush: maybe, ttl_jitter: x, set: [a]}\n  a: {}\nfill_window: soon\n", []string{
			`f.yaml:5: fill_window is "soon": want a duration`,
			`f.yaml:1: defaults is "5": want keys with values`,
			`f.yaml:4: namespaces.a is given twice, first in line 3`,
			`f.yaml:3: namespaces.a.ttl is "5": want a duration`,
			`f.yaml:3: unknown key namespaces.a.max_tll: nearside config example lists the keys`,
			`f.yaml:3: namespaces.a.allow_flush is "maybe": want true or false`,
			`f.yaml:3: namespaces.a.ttl_jitter is "x": want a number`,
			`f.yaml:3: namespaces.a.set is a list: want one value`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, fs := flags(t)
			_, faults := read(t, fs, nil, c.file, nil)
			require.Len(t, faults, len(c.want), "%q", faults)
			for _, want := range c.want {
				require.Contains(t, strings.Join(faults, "\n"), want)
			}
		})
	}
}

// A namespace takes from defaults what it does not say, wherever they stand.
func TestPolicies(t *testing.T) {
	_, fs := flags(t)
	p, faults := read(t, fs, nil, `
namespaces:
  product: &product {ttl: 1h, allow_flush: true, class: critical, max_stale: 2s}
  price: *product
  other:
defaults: {ttl: 0, max_ttl: 2h, ttl_jitter: 0, set: window, replica_lag: 1s}
fill_window: 20s
`, nil)
	require.Empty(t, faults)
	base := policy.DefaultNamespace()
	base.TTL, base.TTLJitter, base.MaxTTL, base.Set, base.ReplicaLag = 0, 0, 2*time.Hour, policy.SetWindow, time.Second
	product := base
	product.TTL, product.AllowFlush, product.Class, product.MaxStale = time.Hour, true, policy.Critical, 2*time.Second
	require.Equal(t, &policy.Set{
		Window: 20 * time.Second, Default: base,
		Namespaces: map[string]policy.Namespace{"product": product, "price": product, "other": base},
	}, p)
}

// A namespace takes from the blocks of defaults, too, what it does not say, and
// leaves them as they are.
func TestBlocks(t *testing.T) {
	_, fs := flags(t)
	p, faults := read(t, fs, nil, `
namespaces:
  order:
    tenant: 1
    max_value: 64KiB
    purge: {prefix: allow, cross_tenant: allow}
    wide_purges: {burst: 3}
    adaptive_ttl:
defaults:
  purge: {tags: deny}
  wide_purges: {per_minute: 6}
  adaptive_ttl: {min: 1s, max: 1m}
`, nil)
	require.Empty(t, faults)
	require.Equal(t, policy.Purge{Tags: policy.Deny}, p.Default.Purge)
	require.Equal(t, policy.WidePurges{PerMinute: 6}, p.Default.WidePurges)
	order := p.Of("order")
	require.Equal(t, policy.Purge{Tags: policy.Deny, Prefix: policy.Allow, CrossTenant: policy.Allow}, order.Purge)
	require.Equal(t, policy.WidePurges{PerMinute: 6, Burst: 3}, order.WidePurges)
	require.Equal(t, policy.AdaptiveTTL{Min: time.Second, Max: time.Minute}, order.AdaptiveTTL)
	require.Equal(t, policy.Size(64<<10), order.MaxValue)
	require.Equal(t, 1, order.Tenant)
}

func TestFaultsOfBlocks(t *testing.T) {
	_, fs := flags(t)
	p := policy.DefaultSet()
	r := settings.Read(fs, p, settings.Sources{Lookup: lookup(nil), FileName: "f.yaml", File: []byte(`defaults:
  purge: allow
  max_value: much
  tenant: first
  wide_purges:
    per_minut: 5
    paused: "true"
  refresh: {window: 5}
  adaptive_ttl:
    min: 2m
`)})
	var faults []string
	for _, err := range r.Faults(p.Validate()) {
		faults = append(faults, err.Error())
	}
	require.Equal(t, []string{
		`f.yaml:2: defaults.purge is "allow": want keys with values, not "allow"`,
		`f.yaml:3: defaults.max_value is "much": want a size such as 64KiB`,
		`f.yaml:4: defaults.tenant is "first": want a whole number`,
		`f.yaml:6: unknown key defaults.wide_purges.per_minut: want one of burst, paused, per_minute`,
		`f.yaml:7: defaults.wide_purges.paused is "true": want true or false`,
		`f.yaml:8: defaults.refresh.window is "5": want a duration such as 30s or 10m`,
		`f.yaml:10: defaults.adaptive_ttl is 2m0s to 0s: want both, the smaller one as min, or none`,
	}, faults)
}

// What validation finds in a policy is led back to its line.
func TestFaultsOfPoliciesSayWhere(t *testing.T) {
	_, fs := flags(t)
	p := policy.DefaultSet()
	r := settings.Read(fs, p, settings.Sources{Lookup: lookup(nil), FileName: "f.yaml", File: []byte("defaults:\n  ttl: -1s\nnamespaces:\n  a:\n    set: maybe\n")})
	faults := errors.Join(r.Faults(p.Validate())...)
	require.ErrorContains(t, faults, "f.yaml:2: defaults.ttl is -1s: want 0 (for ever) or more")
	require.ErrorContains(t, faults, `f.yaml:5: namespaces.a.set is "maybe"`)
}

// Whatever the file is, reading it ends, and what it sets was said by it.
func FuzzFile(f *testing.F) {
	f.Add("some_name: x\nnamespaces: {a: {ttl: 1s}}\n")
	f.Add("a: &a {b: *a}\nnamespaces: *a\n")
	f.Add("? [x]\n: y\n")
	f.Add("namespaces: &n {x: *n}\n")
	f.Add("<<: {wait: 1s}\n")
	f.Fuzz(func(t *testing.T, file string) {
		v, fs := flags(t)
		_, faults := read(t, fs, nil, file, nil)
		for _, fault := range faults {
			require.True(t, strings.HasPrefix(fault, "f.yaml:"), fault)
		}
		if len(faults) == 0 && v.clients != 10 {
			require.Contains(t, file, "clients")
		}
	})
}

func TestUIDs(t *testing.T) {
	var list []uint32
	v := settings.UIDs(&list)
	require.NoError(t, v.Set("1000, 65532"))
	require.Equal(t, []uint32{1000, 65532}, list)
	require.Equal(t, "1000,65532", v.String())
	for _, bad := range []string{"root", "1,", "-1", "4294967296", "1 2"} {
		require.Error(t, v.Set(bad), bad)
	}
	require.Equal(t, []uint32{1000, 65532}, list, "a bad value changes nothing")
	require.NoError(t, v.Set(""))
	require.Empty(t, list)
}
