package equal

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/nearside-cache/nearside/kube/inject"
)

// current is the Kubernetes version of examples that name none.
const current = "v1.36.0"

// example is a file of kube/inject/testdata/pods.
type example struct {
	name       string
	given      map[string]any // the settings, as values
	settings   inject.Settings
	kubernetes string
	pod        corev1.Pod
}

// examples reads all of them. version is what the injection calls itself.
func examples(t *testing.T, version string) []example {
	paths, err := filepath.Glob("../testdata/pods/*.txtar")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(paths), 20)
	var all []example
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		require.NoError(t, err)
		section := make(map[string][]byte)
		for _, f := range archive.Files {
			section[f.Name] = f.Data
		}
		e := example{name: strings.TrimSuffix(filepath.Base(path), ".txtar"), given: map[string]any{}, kubernetes: current}
		e.settings, err = inject.ReadSettings(section["settings"])
		require.NoError(t, err, path)
		require.NoError(t, yaml.Unmarshal(section["settings"], &e.given), path)
		require.NoError(t, yaml.UnmarshalStrict(section["pod"], &e.pod), path)
		if v := bytes.TrimSpace(section["kubernetes"]); len(v) > 0 {
			e.kubernetes = string(v)
		}
		e.settings.Version, e.settings.Kubernetes = version, e.kubernetes
		all = append(all, e)
	}
	return all
}

// each runs a test for every example.
func each(t *testing.T, version string, run func(t *testing.T, e example)) {
	for _, e := range examples(t, version) {
		t.Run(e.name, func(t *testing.T) { run(t, e) })
	}
}

// byGo is what the Go package makes of the pod: a canonical pod, or a refusal.
func (e example) byGo(t *testing.T) (pod, refusal string) {
	p := e.pod.DeepCopy()
	_, err := e.settings.Inject(p)
	var fault *inject.Error
	if err != nil {
		require.ErrorAs(t, err, &fault)
		return "", err.Error()
	}
	return canonical(t, p), ""
}

// canonical is the JSON of a pod, in the order of Go's fields and of sorted keys,
// and with quantities in their shortest form. Lists keep their order.
func canonical(t *testing.T, pod *corev1.Pod) string {
	p := pod.DeepCopy()
	p.APIVersion, p.Kind = "", ""
	text, err := json.MarshalIndent(p, "", " ")
	require.NoError(t, err)
	return string(text)
}

// asMap is a pod as templates see it.
func asMap(t *testing.T, pod *corev1.Pod) map[string]any {
	text, err := json.Marshal(pod)
	require.NoError(t, err)
	m := make(map[string]any)
	require.NoError(t, json.Unmarshal(text, &m))
	return m
}

// read decodes a pod and refuses fields that Kubernetes does not know.
func read(t *testing.T, text []byte) *corev1.Pod {
	pod := new(corev1.Pod)
	require.NoError(t, yaml.UnmarshalStrict(text, pod), "%s", text)
	return pod
}

// chartsDir is where the charts are.
const chartsDir = "../../../charts"

func appVersion(t *testing.T, chart string) string {
	var c struct{ AppVersion string }
	text, err := os.ReadFile(filepath.Join(chartsDir, chart, "Chart.yaml"))
	require.NoError(t, err)
	require.NoError(t, errors.Join(yaml.Unmarshal(text, &c)))
	return c.AppVersion
}
