package policy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

func faultsOf(l policy.Loader) error {
	s := policy.DefaultSet()
	n := s.Default
	n.Loader = &l
	s.Namespaces = map[string]policy.Namespace{"product": n}
	return s.Validate()
}

func TestLoaderDefaultsAreValid(t *testing.T) {
	require.NoError(t, faultsOf(policy.Loader{URL: "http://app/{rest}"}))
	require.NoError(t, faultsOf(policy.Loader{Subject: "cache.{rest}"}))
	d := policy.Loader{URL: "http://app/{rest}", Rate: 2}.WithDefaults()
	require.NoError(t, faultsOf(d))
	require.Equal(t, 1, d.Burst)
	require.Equal(t, d, d.WithDefaults())
	for _, l := range []policy.Loader{
		{HardTimeout: time.Second}, {HardTimeout: 50 * time.Millisecond}, {MaxTimeout: time.Minute}, {MinTimeout: 3 * time.Second},
		{MaxTimeout: 10 * time.Millisecond}, {Backoff: time.Minute}, {MaxBackoff: 5 * time.Millisecond}, {Concurrency: 1},
	} {
		l.URL = "http://app/{rest}"
		require.NoError(t, faultsOf(l), "one setting needs no other: %+v", l)
	}
}

func TestLoaderFaults(t *testing.T) {
	const path = "namespaces.product.loader."
	web := func(change func(*policy.Loader)) policy.Loader {
		l := policy.Loader{URL: "http://app/{rest}"}
		change(&l)
		return l
	}
	many := map[string]string{}
	for i := range 65 {
		many["X"+strings.Repeat("x", i)] = "v"
	}
	for want, l := range map[string]policy.Loader{
		"url and subject are both set or both empty":    {},
		"url cannot be used: bad template: it names no": {URL: "http://app/x"},
		"subject cannot be used: bad template: a sub":   {Subject: "a.>.{key}"},
		"socket is for url":                             {Subject: "a.{key}", Socket: "/x"},
		"version_header is for url":                     {Subject: "a.{key}", VersionHeader: "X"},
		"max_age is for url":                            {Subject: "a.{key}", MaxAge: true},
		`version_header is "a b"`:                       web(func(l *policy.Loader) { l.VersionHeader = "a b" }),
		`tags_header is "\n"`:                           web(func(l *policy.Loader) { l.TagsHeader = "\n" }),
		`version_field is "a..b"`:                       web(func(l *policy.Loader) { l.VersionField = "a..b" }),
		"max_body is -1":                                web(func(l *policy.Loader) { l.MaxBody = -1 }),
		"soft_timeout is -1ns: want 1ms to 10m0s":       web(func(l *policy.Loader) { l.SoftTimeout = -1 }),
		"min_timeout is 3s: want at most max_timeout":   web(func(l *policy.Loader) { l.MinTimeout, l.MaxTimeout = 3*time.Second, time.Second }),
		"max_timeout is 6s: want at most hard_timeout":  web(func(l *policy.Loader) { l.MaxTimeout, l.HardTimeout = 6*time.Second, time.Second }),
		"backoff is 2s: want at most max_backoff":       web(func(l *policy.Loader) { l.Backoff, l.MaxBackoff = 2*time.Second, time.Second }),
		"tries is 21: want 1 to 20":                     web(func(l *policy.Loader) { l.Tries = 21 }),
		"concurrency is -1: want 1 to 10000":            web(func(l *policy.Loader) { l.Concurrency = -1 }),
		"rate is -1: want 0.01 to":                      web(func(l *policy.Loader) { l.Rate = -1 }),
		"headers are 65: want at most 64":               web(func(l *policy.Loader) { l.Headers = many }),
		`headers "a b" is no name of a header`:          web(func(l *policy.Loader) { l.Headers = map[string]string{"a b": ""} }),
		"headers If-None-Match is set by nearside":      web(func(l *policy.Loader) { l.Headers = map[string]string{"If-None-Match": "x"} }),
		"headers Nearside-Key is set by nearside":       web(func(l *policy.Loader) { l.Headers = map[string]string{"Nearside-Key": "x"} }),
		"headers A has a ${ that names no environment":  web(func(l *policy.Loader) { l.Headers = map[string]string{"A": "${}"} }),
		"headers B has a ${ that names no environment":  web(func(l *policy.Loader) { l.Headers = map[string]string{"B": "${X"} }),
	} {
		require.ErrorContains(t, faultsOf(l), path+want)
	}
	s := policy.DefaultSet()
	s.Default.Loader = &policy.Loader{URL: "http://app/{rest}"}
	require.ErrorContains(t, s.Validate(), "defaults.loader.url is for all namespaces without a policy of their own")
	s.Default.Loader = &policy.Loader{Subject: "a.{namespace}.{rest}"}
	require.NoError(t, s.Validate())
}

func TestHeadersFromTheEnvironment(t *testing.T) {
	env := map[string]string{"TOKEN": "hunter2", "EMPTY": "", "BROKEN": "hunter2\r\nX: y"}
	lookup := func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}
	l := policy.Loader{Headers: map[string]string{"Authorization": "Bearer ${TOKEN}", "X": "a$b ${EMPTY}${TOKEN}", "Y": "$TOKEN"}}
	got, err := l.ResolveHeaders(lookup)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"Authorization": "Bearer hunter2", "X": "a$b hunter2", "Y": "$TOKEN"}, got)

	l.Headers = map[string]string{"A": "${TOKEN}${NONE}", "B": "${BROKEN}", "C": "${OTHER}"}
	_, err = l.ResolveHeaders(lookup)
	for _, want := range []string{"A needs the environment variable NONE", "B has a line break", "C needs the environment variable OTHER"} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "hunter2")
	require.True(t, errors.Is(err, policy.ErrUnresolved))
}
