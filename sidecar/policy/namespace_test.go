package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

// faultsWith returns what is wrong with defaults that were changed.
func faultsWith(change func(*policy.Namespace)) []string {
	s := policy.DefaultSet()
	change(&s.Default)
	err := s.Validate()
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// Bounded means bounded: nothing is served past its soft TTL for longer than
// reads may be stale.
func TestStaleWindowsLieWithinTheBound(t *testing.T) {
	for _, c := range []struct {
		class    policy.Class
		maxStale time.Duration
		window   time.Duration
		want     string // what is said of either window; empty: nothing
	}{
		{policy.Important, 0, 30 * time.Second, ""},
		{policy.Important, 0, 30*time.Second + 1, "want at most 30s"},
		{policy.Important, time.Second, 2 * time.Second, "want at most 1s"},
		{policy.Important, time.Hour, time.Hour, ""},
		{policy.BestEffort, 0, 10 * time.Minute, ""},
		{policy.BestEffort, 0, 11 * time.Minute, "want at most 10m0s"},
		{policy.Critical, 0, time.Second, "reads of class critical are never stale"},
		{policy.Critical, 0, 0, ""},
		{policy.Important, 0, -1, "want 0 (never) or more"},
	} {
		for field, set := range map[string]func(*policy.Namespace){
			"defaults.stale_while_revalidate": func(n *policy.Namespace) { n.StaleWhileRevalidate = c.window },
			"defaults.stale_if_error":         func(n *policy.Namespace) { n.StaleIfError = c.window },
		} {
			faults := faultsWith(func(n *policy.Namespace) {
				n.Class, n.MaxStale, n.SoftTTL = c.class, c.maxStale, time.Minute
				set(n)
			})
			if c.want == "" {
				require.Empty(t, faults, "%+v", c)
				continue
			}
			require.Len(t, faults, 1, "%+v", c)
			require.Contains(t, faults[0], field+" is "+c.window.String())
			require.Contains(t, faults[0], c.want)
		}
	}
	require.Contains(t, faultsWith(func(n *policy.Namespace) { n.StaleIfError = time.Second })[0], "want a soft_ttl with it")
}

func TestFaultsOfFields(t *testing.T) {
	for want, change := range map[string]func(*policy.Namespace){
		"defaults.soft_ttl is -1ns: want 0 (none) or more":            func(n *policy.Namespace) { n.SoftTTL = -1 },
		"defaults.soft_ttl is 11m0s: want at most ttl (10m0s)":        func(n *policy.Namespace) { n.SoftTTL = 11 * time.Minute },
		"defaults.negative_ttl is -1ns":                               func(n *policy.Namespace) { n.NegativeTTL = -1 },
		"defaults.negative_ttl is 10m0s: want at most max_ttl (5m0s)": func(n *policy.Namespace) { n.NegativeTTL, n.Sensitive = 10*time.Minute, true },
		"defaults.refresh_ahead is 1: want 0 to 0.9":                  func(n *policy.Namespace) { n.RefreshAhead = 1 },
		"defaults.adaptive_ttl is 1s to 0s: want both":                func(n *policy.Namespace) { n.AdaptiveTTL.Min = time.Second },
		"defaults.adaptive_ttl is 2s to 1s":                           func(n *policy.Namespace) { n.AdaptiveTTL = policy.AdaptiveTTL{Min: 2 * time.Second, Max: time.Second} },
		"defaults.adaptive_ttl.max is 1h0m0s: want at most max_ttl (1m0s)": func(n *policy.Namespace) {
			n.AdaptiveTTL, n.MaxTTL = policy.AdaptiveTTL{Min: 1, Max: time.Hour}, time.Minute
		},
		"defaults.max_value is -1: want 0 (the sidecar's) or more":           func(n *policy.Namespace) { n.MaxValue = -1 },
		"defaults.compress_over is -1: want 0 (never) or more":               func(n *policy.Namespace) { n.CompressOver = -1 },
		`defaults.mode is "on": want enforce, shadow or off`:                 func(n *policy.Namespace) { n.Mode = "on" },
		"defaults.tenant is 17: want 0 (no tenants) to 16":                   func(n *policy.Namespace) { n.Tenant = 17 },
		`defaults.purge.tags is "yes": want allow or deny`:                   func(n *policy.Namespace) { n.Purge.Tags = "yes" },
		"defaults.purge.cross_tenant is allow: want tenant with it":          func(n *policy.Namespace) { n.Purge.CrossTenant = policy.Allow },
		"defaults.wide_purges.per_minute is -1: want 0 (any number) or more": func(n *policy.Namespace) { n.WidePurges.PerMinute = -1 },
		"defaults.wide_purges.burst is -1":                                   func(n *policy.Namespace) { n.WidePurges.Burst = -1 },
	} {
		faults := faultsWith(change)
		require.Len(t, faults, 1, want)
		require.Contains(t, faults[0], strings.TrimSuffix(want, "none"))
	}
	require.Empty(t, faultsWith(func(n *policy.Namespace) { n.Mode, n.Refresh = "", policy.Refresh{} }), "what is left out has a default")
}

func TestSensitiveCapsTTLs(t *testing.T) {
	n := policy.DefaultNamespace()
	require.Zero(t, n.TTLCap())
	n.Sensitive = true
	require.Equal(t, 5*time.Minute, n.TTLCap())
	n.MaxTTL = time.Hour
	require.Equal(t, time.Hour, n.TTLCap(), "what is said prevails")
}

func TestPermits(t *testing.T) {
	permitted := func(n policy.Namespace) (kinds string) {
		for _, k := range policy.PurgeKinds() {
			if n.Permits(k) {
				kinds += string(k) + " "
			}
		}
		return kinds
	}
	require.Equal(t, "tags ", permitted(policy.Namespace{}))
	require.Equal(t, "tags prefix namespace domain ", permitted(policy.Namespace{AllowFlush: true}))
	require.Equal(t, "prefix ", permitted(policy.Namespace{AllowFlush: true, Purge: policy.Purge{Tags: policy.Deny, Namespace: policy.Deny, Domain: policy.Deny}}))
	require.Equal(t, "tags domain ", permitted(policy.Namespace{Purge: policy.Purge{Domain: policy.Allow}}))
}

func TestModes(t *testing.T) {
	for mode, enforces := range map[policy.Mode]bool{"": true, policy.Enforce: true, policy.Shadow: false, policy.Off: false} {
		n := policy.Namespace{Mode: mode}
		require.Equal(t, enforces, n.Enforces(), mode)
	}
}

func TestExplain(t *testing.T) {
	s := policy.DefaultSet()
	product := s.Default
	product.Set, product.Sensitive, product.Tenant = policy.SetInvalidate, true, 1
	product.SoftTTL, product.StaleWhileRevalidate, product.StaleIfError = time.Minute, 10*time.Second, 30*time.Second
	product.WidePurges = policy.WidePurges{PerMinute: 6}
	s.Namespaces = map[string]policy.Namespace{"product": product}
	e := s.Explain("product:42")
	require.Equal(t, "product", e.Namespace)
	require.Equal(t, "namespaces.product", e.Block)
	for _, want := range []string{
		"reads may be up to 30 s stale (class important)",
		"a value that comes without a TTL is kept for 10 min, less up to 10 % at random (ttl, ttl_jitter)",
		"no value is kept for longer than 5 min (sensitive, without a max_ttl)",
		"after 1 min a value is to be loaded anew (soft_ttl)",
		"while that happens it is served for up to 10 s more (stale_while_revalidate)",
		"when the origin fails it is served for up to 30 s more (stale_if_error)",
		"plain SETs are writes: published, nothing is stored (set: invalidate)",
		"clients may purge by tags (purge, allow_flush)",
		"clients may not purge by prefix, namespace or domain (purge, allow_flush)",
		"segment 1 of a key names its tenant, and a wide purge must name one (tenant)",
		"clients may publish 6 wide purges a minute, 1 at once (wide_purges)",
	} {
		require.Contains(t, e.Effects, want)
	}
	e = s.Explain("price")
	require.Equal(t, "default", e.Namespace)
	require.Equal(t, "defaults", e.Block)
	require.Contains(t, e.Effects, "plain SETs are judged by the oldest miss of the key that awaits one (set: fill)")
}

// Every setting that is not at its default has a sentence of its own.
func TestEveryFieldHasAnEffect(t *testing.T) {
	base := policy.DefaultNamespace()
	former := base.Effects()
	for field, change := range map[string]func(*policy.Namespace){
		"class": func(n *policy.Namespace) { n.Class = policy.Critical }, "max_stale": func(n *policy.Namespace) { n.MaxStale = 1 },
		"ttl": func(n *policy.Namespace) { n.TTL = 0 }, "max_ttl": func(n *policy.Namespace) { n.MaxTTL = 1 },
		"ttl_jitter": func(n *policy.Namespace) { n.TTLJitter = 0 }, "set": func(n *policy.Namespace) { n.Set = policy.SetWindow },
		"replica_lag": func(n *policy.Namespace) { n.ReplicaLag = 1 }, "allow_flush": func(n *policy.Namespace) { n.AllowFlush = true },
		"mode shadow": func(n *policy.Namespace) { n.Mode = policy.Shadow }, "mode off": func(n *policy.Namespace) { n.Mode = policy.Off },
		"soft_ttl": func(n *policy.Namespace) { n.SoftTTL = 1 }, "swr": func(n *policy.Namespace) { n.StaleWhileRevalidate = 1 },
		"sie": func(n *policy.Namespace) { n.StaleIfError = 1 }, "negative_ttl": func(n *policy.Namespace) { n.NegativeTTL = 1 },
		"refresh_ahead": func(n *policy.Namespace) { n.RefreshAhead = 0.2 },
		"adaptive_ttl":  func(n *policy.Namespace) { n.AdaptiveTTL.Max = 1 },
		"max_value":     func(n *policy.Namespace) { n.MaxValue = 1 }, "compress_over": func(n *policy.Namespace) { n.CompressOver = 1 },
		"sensitive": func(n *policy.Namespace) { n.Sensitive = true }, "tenant": func(n *policy.Namespace) { n.Tenant = 2 },
		"purge": func(n *policy.Namespace) { n.Purge.Tags = policy.Deny }, "cross_tenant": func(n *policy.Namespace) { n.Purge.CrossTenant = policy.Allow },
		"per_minute": func(n *policy.Namespace) { n.WidePurges.PerMinute = 1 }, "paused": func(n *policy.Namespace) { n.WidePurges.Paused = true },
		"refresh": func(n *policy.Namespace) { n.Loader = &policy.Loader{URL: "http://app/{key}"} },
	} {
		n := base
		change(&n)
		require.NotEqual(t, former, n.Effects(), field)
	}
}

func TestOverridesPrevail(t *testing.T) {
	s := policy.DefaultSet()
	off := s.Default
	off.Mode, off.TTL = policy.Off, time.Second
	s.Namespaces = map[string]policy.Namespace{"off": off, "other": s.Default}
	yes := true
	with := s.With(map[string]policy.Override{
		policy.AllNamespaces: {Mode: policy.Shadow, Paused: &yes}, "other": {Mode: policy.Enforce}, "new": {Mode: policy.Off},
	})
	require.Equal(t, policy.Shadow, with.Default.Mode)
	require.Equal(t, policy.Shadow, with.Of("off").Mode)
	require.Equal(t, time.Second, with.Of("off").TTL, "the rest stays")
	require.Equal(t, policy.Enforce, with.Of("other").Mode, "its own prevails over that of all")
	require.True(t, with.Of("other").WidePurges.Paused)
	require.Equal(t, policy.Off, with.Of("new").Mode)
	require.True(t, with.Of("new").WidePurges.Paused)
	require.Equal(t, policy.Enforce, s.Default.Mode, "what it was made of is not changed")
	require.Equal(t, policy.Off, s.Of("off").Mode)
	require.Equal(t, s.Namespaces, s.With(nil).Namespaces)
}

func TestSensitiveKeysAreMasked(t *testing.T) {
	s := policy.DefaultSet()
	secret := s.Default
	secret.Sensitive = true
	s.Namespaces = map[string]policy.Namespace{"session": secret}
	require.Equal(t, "product:42", s.Shown("product:42"))
	shown := s.Shown("session:abc")
	require.Regexp(t, `^session:#[0-9a-f]{12}$`, shown)
	require.Equal(t, shown, s.Shown("session:abc"), "one key, one mask")
	require.NotEqual(t, shown, s.Shown("session:abd"))
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]string{"64KiB": "64KiB", "64k": "64KiB", "1048576": "1MiB", "0": "0", "1000": "1000"} {
		var s policy.Size
		require.NoError(t, s.UnmarshalText([]byte(text)))
		require.Equal(t, want, s.String())
	}
	var s policy.Size
	require.ErrorContains(t, s.UnmarshalText([]byte("much")), "a size such as 64KiB")
	require.ErrorContains(t, s.UnmarshalText([]byte("-1")), "a size such as 64KiB")
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		30 * time.Second: "30 s", 10 * time.Minute: "10 min", time.Hour: "1 h", 90 * time.Second: "90 s",
		1500 * time.Millisecond: "1500 ms", 1: "1ns", 0: "0s",
	} {
		require.Equal(t, want, policy.Words(d))
	}
}

// What a namespace only takes from defaults is not its fault.
func TestInheritedFaultsAreToldOnce(t *testing.T) {
	s := policy.DefaultSet()
	s.Default.Mode = "on"
	worse := s.Default
	worse.TTL = -1
	s.Namespaces = map[string]policy.Namespace{"a": s.Default, "b": worse}
	require.EqualError(t, s.Validate(), `defaults.mode is "on": want enforce, shadow or off`+"\n"+
		"namespaces.b.ttl is -1ns: want 0 (for ever) or more")
}
