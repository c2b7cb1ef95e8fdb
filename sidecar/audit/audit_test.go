package audit_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/audit"
)

func open(t *testing.T, file string) (*audit.Log, *bytes.Buffer, *prometheus.Registry) {
	out, r := new(bytes.Buffer), prometheus.NewRegistry()
	l, err := audit.Open(file, hclog.New(&hclog.LoggerOptions{Output: out}), r)
	require.NoError(t, err)
	return l, out, r
}

func TestRecordsGoToTheLogAndTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	l, out, _ := open(t, file)
	until := time.Now().Add(time.Hour).UTC()
	l.Write(audit.Record{What: audit.Toggle, Namespace: "product", Setting: "mode", Before: "enforce", After: "off", Until: &until, By: audit.Who{Peer: "uid 1", Client: "cli", ID: 7}})
	require.NoError(t, os.Rename(file, file+".1"), "rotated")
	l.Write(audit.Record{What: audit.Rollback, Namespace: "a\nb", By: audit.Itself})
	for name, want := range map[string]audit.Record{
		file + ".1": {What: audit.Toggle, Namespace: "product", Setting: "mode", Before: "enforce", After: "off", Until: &until, By: audit.Who{Peer: "uid 1", Client: "cli", ID: 7}},
		file:        {What: audit.Rollback, Namespace: "a\nb", By: audit.Itself},
	} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(text), "\n"), "one line a record")
		require.Contains(t, out.String(), strings.TrimSpace(string(text)))
		var got audit.Record
		require.NoError(t, json.Unmarshal(text, &got))
		require.WithinDuration(t, time.Now(), got.Time, time.Minute)
		got.Time = time.Time{}
		require.Equal(t, want, got)
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
	}
}

func TestFileThatCannotBeWritten(t *testing.T) {
	_, err := audit.Open(filepath.Join(t.TempDir(), "no", "such", "folder"), hclog.NewNullLogger(), prometheus.NewRegistry())
	require.ErrorContains(t, err, "audit-log: opening the file")

	dir := filepath.Join(t.TempDir(), "d")
	require.NoError(t, os.Mkdir(dir, 0o700))
	l, out, r := open(t, filepath.Join(dir, "audit.jsonl"))
	require.NoError(t, os.RemoveAll(dir))
	l.Write(audit.Record{What: audit.Toggle, Namespace: "product", By: audit.Itself})
	require.Contains(t, out.String(), `"namespace":"product"`, "the log has it")
	require.Contains(t, out.String(), "could not be written to the file")
	families, err := r.Gather()
	require.NoError(t, err)
	require.Equal(t, "nearside_audit_errors_total", families[0].GetName())
	require.EqualValues(t, 1, families[0].Metric[0].Counter.GetValue())
}
