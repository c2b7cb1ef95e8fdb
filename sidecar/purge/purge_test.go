package purge_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/purge"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

type rig struct {
	*purge.Gate
	t        *testing.T
	policies *policy.Set
	clock    *sidecartest.Clock
	log      bytes.Buffer
	registry *prometheus.Registry
}

// newRig returns a gate over policies of the namespaces a and b, and of the rest.
func newRig(t *testing.T, change func(rest, a, b *policy.Namespace)) *rig {
	r := &rig{t: t, clock: sidecartest.NewClock(), registry: prometheus.NewRegistry()}
	r.change(change)
	log, err := audit.Open("", hclog.New(&hclog.LoggerOptions{Output: &r.log}), r.registry)
	require.NoError(t, err)
	r.Gate = purge.New(purge.Config{Policies: func() *policy.Set { return r.policies }, Clock: r.clock.Now, Audit: log, Registerer: r.registry})
	return r
}

func (r *rig) change(change func(rest, a, b *policy.Namespace)) {
	r.policies = policy.DefaultSet()
	rest, a, b := r.policies.Default, r.policies.Default, r.policies.Default
	change(&rest, &a, &b)
	r.policies.Default = rest
	r.policies.Namespaces = map[string]policy.Namespace{"a": a, "b": b}
	require.NoError(r.t, r.policies.Validate())
}

// ask asks for a purge in words: tag:T, prefix:P, ns:N or all.
func (r *rig) ask(words string) error {
	q := purge.Request{By: audit.Who{Peer: "uid 7"}}
	for word := range strings.FieldsSeq(words) {
		kind, name, _ := strings.Cut(word, ":")
		switch kind {
		case "tag":
			q.Tags = append(q.Tags, name)
		case "prefix":
			q.Prefix = name
		case "ns":
			q.Namespace = name
		case "all":
			q.Domain = true
		}
	}
	return r.Admit(q)
}

// is asks, and requires an outcome with words in it.
func (r *rig) is(words string, outcome purge.Outcome, want ...string) {
	r.t.Helper()
	err := r.ask(words)
	if outcome == purge.Admitted {
		require.NoError(r.t, err, words)
		return
	}
	var refusal *purge.RefusedError
	require.True(r.t, errors.As(err, &refusal), words)
	require.Equal(r.t, outcome, refusal.Outcome, "%s: %v", words, err)
	for _, w := range want {
		require.ErrorContains(r.t, err, w, words)
	}
}

func TestPermissions(t *testing.T) {
	r := newRig(t, func(rest, a, b *policy.Namespace) {
		rest.AllowFlush = true
		a.Purge = policy.Purge{Prefix: policy.Allow, Tags: policy.Allow}
		b.Purge = policy.Purge{Domain: policy.Allow}
	})
	for words, outcome := range map[string]purge.Outcome{
		"": purge.Admitted, "prefix:a:": purge.Admitted, "ns:a": purge.Denied, "prefix:b:": purge.Denied, "ns:b": purge.Denied,
		"prefix:c:x:": purge.Admitted, "ns:c": purge.Admitted, "tag:t": purge.Admitted, "all": purge.Denied,
		"tag:t ns:b": purge.Denied,
	} {
		r.is(words, outcome)
	}
	r.is("ns:b", purge.Denied, "the policy in namespaces.b does not permit purges by namespace: set purge.namespace: allow, or allow_flush: true, there")
	r.is("all", purge.Denied, "namespaces.a", "purge.domain: allow")
	r.change(func(rest, _, _ *policy.Namespace) { rest.Purge.Tags = policy.Deny })
	r.is("tag:t", purge.Denied, "the policy in defaults does not permit purges by tags: set purge.tags: allow there")
}

func TestTenants(t *testing.T) {
	r := newRig(t, func(rest, a, b *policy.Namespace) {
		rest.AllowFlush, a.AllowFlush, b.AllowFlush = true, true, true
		a.Tenant = 2
	})
	for words, outcome := range map[string]purge.Outcome{
		"prefix:a:":                purge.Tenant,
		"prefix:a:x:":              purge.Tenant,
		"prefix:a:x:acme":          purge.Tenant, // it purges a:x:
		"prefix:a:x::":             purge.Tenant, // an empty name is none
		"prefix:a:x:acme:":         purge.Admitted,
		"prefix:a:x:acme:7":        purge.Admitted,
		"ns:a":                     purge.Tenant,
		"all":                      purge.Tenant,
		"prefix:b:":                purge.Admitted,
		"ns:b":                     purge.Admitted,
		"tag:x":                    purge.Tenant,
		"tag:tenant:":              purge.Tenant,
		"tag:tenant::x":            purge.Tenant,
		"tag:tenant:a":             purge.Admitted,
		"tag:tenant:a:x":           purge.Admitted,
		"tag:tenant:a tag:x":       purge.Tenant,
		"tag:tenant:a prefix:a:x:": purge.Tenant,
	} {
		r.is(words, outcome)
	}
	r.is("prefix:a:x:", purge.Tenant, "namespaces.a has tenants", "up to a ':' behind segment 2", "purge.cross_tenant: allow")
	r.is("tag:x", purge.Tenant, `begin each tag with "tenant:" and the tenant`)
	require.Empty(t, r.log.String())
}

// Crossing tenants is permitted by name, and written down.
func TestCrossingTenantsIsRecorded(t *testing.T) {
	r := newRig(t, func(_, a, _ *policy.Namespace) {
		a.Tenant, a.AllowFlush, a.Purge.CrossTenant = 1, true, policy.Allow
	})
	r.is("prefix:a:acme:", purge.Admitted)
	r.is("tag:tenant:acme", purge.Admitted)
	require.Empty(t, r.log.String())
	r.is("prefix:a:", purge.Admitted)
	require.Contains(t, r.log.String(), `"what":"cross-tenant","namespace":"a","detail":"purge of prefix \"a:\"","by":{"peer":"uid 7"}`)
	r.is("tag:x", purge.Admitted)
	require.Contains(t, r.log.String(), `"namespace":"*","detail":"purge of tag \"x\""`)
	r.is("ns:a", purge.Admitted)
	require.Contains(t, r.log.String(), "purge of the whole namespace")
	require.Equal(t, 3, strings.Count(r.log.String(), "cross-tenant"))

	r.change(func(_, a, _ *policy.Namespace) {
		a.Tenant, a.AllowFlush, a.Purge.CrossTenant, a.Sensitive = 1, true, policy.Allow, true
	})
	r.log.Reset()
	r.is("prefix:a:secret", purge.Admitted)
	require.NotContains(t, r.log.String(), "secret")
	require.Contains(t, r.log.String(), policy.Mask("a:secret"))
}

func TestPause(t *testing.T) {
	r := newRig(t, func(_, a, b *policy.Namespace) {
		a.AllowFlush, b.AllowFlush, a.WidePurges.Paused = true, true, true
	})
	r.is("ns:a", purge.Paused, "paused by the policy in namespaces.a")
	r.is("tag:x", purge.Paused, "namespaces.a") // a tag may be anywhere
	r.is("ns:b", purge.Admitted)
}

func TestRate(t *testing.T) {
	r := newRig(t, func(rest, a, b *policy.Namespace) {
		rest.AllowFlush, a.AllowFlush, b.AllowFlush = true, true, true
		a.WidePurges = policy.WidePurges{PerMinute: 6, Burst: 2}
		b.WidePurges = policy.WidePurges{PerMinute: 60}
	})
	r.is("ns:a", purge.Admitted)
	r.is("prefix:a:x:", purge.Admitted)
	r.is("ns:a", purge.Limited, "namespaces.a permits 6 wide purges a minute, 2 at once: repeat it in 10s")
	r.is("tag:x", purge.Limited, "namespaces.a")
	r.is("ns:b", purge.Admitted, "what was refused for a used up nothing of b")
	r.is("ns:b", purge.Limited)
	for range 100 {
		r.is("ns:c", purge.Admitted)
	}
	r.clock.Advance(10*time.Second - time.Millisecond)
	r.is("ns:a", purge.Limited)
	r.clock.Advance(time.Millisecond)
	r.is("tag:x", purge.Admitted, "one in each")
	r.is("ns:a", purge.Limited)
	r.is("ns:b", purge.Limited)

	// A new policy counts from the next purge on.
	r.change(func(_, a, b *policy.Namespace) {
		a.AllowFlush, b.AllowFlush = true, true
		a.WidePurges = policy.WidePurges{PerMinute: 600, Burst: 2}
	})
	r.is("ns:a", purge.Limited, "permits 600 wide purges a minute, 2 at once")
	r.clock.Advance(100 * time.Millisecond)
	r.is("ns:a", purge.Admitted)
	r.is("ns:a", purge.Limited)
	for range 10 {
		r.is("ns:b", purge.Admitted)
	}
}

// Namespaces without a policy of their own share the bucket of defaults: their
// number is the clients' to choose, and memory is not.
func TestUnnamedNamespacesShareABucket(t *testing.T) {
	r := newRig(t, func(rest, _, _ *policy.Namespace) {
		rest.AllowFlush, rest.WidePurges = true, policy.WidePurges{PerMinute: 1, Burst: 5}
	})
	for i := range 5 {
		r.is(fmt.Sprintf("ns:x%d", i), purge.Admitted)
	}
	r.is("ns:y", purge.Limited, "the policy in defaults")
}

func TestOutcomesAreCounted(t *testing.T) {
	r := newRig(t, func(_, a, _ *policy.Namespace) { a.AllowFlush = true })
	r.is("ns:a", purge.Admitted)
	r.is("ns:b", purge.Denied)
	r.is("tag:x prefix:b:", purge.Denied)
	families, err := r.registry.Gather()
	require.NoError(t, err)
	counts := make(map[string]float64)
	series := 0
	for _, f := range families {
		if f.GetName() != "nearside_wide_purges_total" {
			continue
		}
		series = len(f.Metric)
		for _, m := range f.Metric {
			if v := m.Counter.GetValue(); v > 0 {
				counts[m.Label[0].GetValue()+" "+m.Label[1].GetValue()] = v
			}
		}
	}
	require.Equal(t, 20, series, "labels come from closed lists")
	require.Equal(t, map[string]float64{"namespace admitted": 1, "namespace denied": 1, "tags denied": 1, "prefix denied": 1}, counts)
}
