package main

import (
	"bytes"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

// A variable that is misspelt is told, with the one that was meant and without its
// value; what Kubernetes says of Services is not.
func TestUnknownVariables(t *testing.T) {
	clearEnvironment(t)
	warned := func() string {
		var log bytes.Buffer
		warnUnknown(hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true}))
		return log.String()
	}
	for _, known := range []string{"NEARSIDE_MEMORY", "NEARSIDE_NATS_CREDS", "NEARSIDE_CONFIG", "NEARSIDE_TIMEOUT", "NEARSIDE_PASSWORD"} {
		t.Setenv(known, "x")
	}
	for _, link := range []string{
		"NEARSIDE_NATS_SERVICE_HOST", "NEARSIDE_NATS_SERVICE_PORT", "NEARSIDE_NATS_SERVICE_PORT_CLIENT", "NEARSIDE_NATS_PORT",
		"NEARSIDE_NATS_PORT_4222_TCP", "NEARSIDE_NATS_PORT_4222_TCP_PROTO", "NEARSIDE_INJECTOR_PORT_443_TCP_ADDR", "NEARSIDE_PORT",
	} {
		t.Setenv(link, "x")
	}
	require.Empty(t, warned())
	t.Setenv("NEARSIDE_MEMROY", "secret")
	t.Setenv("NEARSIDE_COLOUR_OF_THE_LOG", "red")
	require.Contains(t, warned(), "[WARN]  a variable of the environment is no setting and has no effect: name=NEARSIDE_MEMROY nearest=NEARSIDE_MEMORY\n")
	require.Contains(t, warned(), "has no effect: name=NEARSIDE_COLOUR_OF_THE_LOG\n")
	require.NotContains(t, warned(), "secret")
}
