package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

func TestRefreshDefaults(t *testing.T) {
	require.Equal(t, policy.Refresh{Window: time.Second, Recent: 5 * time.Minute, Workers: 4}, policy.Refresh{}.WithDefaults())
	set := policy.Refresh{Window: 2, Recent: 3, Every: 4, Keys: []string{"a"}, Top: 5, Workers: 6}
	require.Equal(t, set, set.WithDefaults())
}

func TestRefreshIsValidated(t *testing.T) {
	faults := func(defaults, product policy.Refresh) string {
		s := policy.DefaultSet()
		s.Default.Refresh = defaults
		n := policy.DefaultNamespace()
		n.Refresh = product
		s.Namespaces = map[string]policy.Namespace{"product.eu": n}
		if err := s.Validate(); err != nil {
			return err.Error()
		}
		return ""
	}
	every := func(r policy.Refresh) policy.Refresh {
		r.Every = time.Minute
		return r
	}
	require.Empty(t, faults(every(policy.Refresh{Top: 1000}), every(policy.Refresh{Keys: []string{"product.eu:1", "product.eu:"}})))
	require.Empty(t, faults(policy.Refresh{}, every(policy.Refresh{Top: 1, Keys: []string{"product.eu:1"}, Window: time.Hour, Recent: 24 * time.Hour, Workers: 1000})))
	for want, r := range map[string]policy.Refresh{
		"refresh.window is -1ns: want 0 (1s) to 1h0m0s":      {Window: -1},
		"refresh.window is 1h0m0.000000001s":                 {Window: time.Hour + 1},
		"refresh.recent is -1ns: want 0 (5m) to 24h0m0s":     {Recent: -1},
		"refresh.recent is 25h0m0s":                          {Recent: 25 * time.Hour},
		"refresh.every is 1ms: want 0 (never) or 1s or more": {Every: time.Millisecond, Top: 1},
		"refresh.every is -1s":                               {Every: -time.Second, Top: 1},
		"refresh.every is not set: want the period of keys and top, such as 5m, or no keys and top: 0": {Top: 1},
		"refresh.every is 1m0s, of nothing: want keys, top or both beside it":                          every(policy.Refresh{}),
		"refresh.top is -1: want 0 (none) to 1000":                                                     every(policy.Refresh{Top: -1}),
		"refresh.top is 1001":                       every(policy.Refresh{Top: 1001}),
		"refresh.workers is -1: want 0 (4) to 1000": {Workers: -1},
		"refresh.workers is 1001":                   {Workers: 1001},
		`refresh.keys[1] is "42", of namespace default: want whole keys of product.eu`: every(policy.Refresh{Keys: []string{"product.eu:1", "42"}}),
		`refresh.keys[0] has 0 bytes: want 1 to 65535`:                                 every(policy.Refresh{Keys: []string{""}}),
		`refresh.keys[0] has 65536 bytes`:                                              every(policy.Refresh{Keys: []string{strings.Repeat("k", 65_536)}}),
		`refresh.keys has 10001 entries: want at most 10000`:                           every(policy.Refresh{Keys: make([]string, 10_001)}),
	} {
		require.Contains(t, faults(policy.Refresh{}, r), "namespaces.product.eu."+want)
	}
	require.Contains(t, faults(every(policy.Refresh{Keys: []string{"a"}}), policy.Refresh{}), "defaults.refresh.keys has 1 entries: want each in the block of its namespace")
}
