// Package charts_test renders the chart as Helm does and looks at every object.
// It is a module of its own: the program does not need Helm.
package charts_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const (
	chartDir  = "../nearside"
	release   = "nearside"
	namespace = "nearside-system"
)

// cluster is what a chart is rendered for.
type cluster struct {
	version string
	apis    []string // besides those that Helm takes for granted
}

// The oldest Kubernetes that the chart takes, the first that can have a guard, and the
// newest that it was tried on.
var (
	oldest   = cluster{version: "v1.29.0"}
	guarded  = cluster{version: "v1.30.0"}
	newest   = cluster{"v1.36.3", []string{"admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"}}
	clusters = []cluster{oldest, guarded, newest}
)

func (c cluster) capabilities(t testing.TB) *chartutil.Capabilities {
	version, err := chartutil.ParseKubeVersion(c.version)
	require.NoError(t, err)
	return &chartutil.Capabilities{
		KubeVersion: *version,
		APIVersions: append(slices.Clone(chartutil.DefaultVersionSet), c.apis...),
		HelmVersion: chartutil.DefaultCapabilities.HelmVersion,
	}
}

// render returns the files that the chart makes of values, by their name below
// templates.
func render(t testing.TB, c cluster, values map[string]any) (map[string]string, error) {
	chart, err := loader.Load(chartDir)
	require.NoError(t, err)
	caps := c.capabilities(t)
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(chart, values, options, caps)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return nil, err
	}
	short := map[string]string{}
	for name, text := range files {
		if strings.TrimSpace(text) != "" && !strings.HasPrefix(path.Base(name), "_") {
			short[strings.TrimPrefix(name, "nearside/templates/")] = text
		}
	}
	return short, nil
}

// values reads a case of testdata/values.
func values(t testing.TB, name string) map[string]any {
	data, err := os.ReadFile(filepath.Join("testdata", "values", name+".yaml"))
	require.NoError(t, err)
	v := map[string]any{}
	require.NoError(t, yaml.UnmarshalStrict(data, &v))
	return v
}

// cases are the names of testdata/values.
func cases(t testing.TB) []string {
	files, err := filepath.Glob(filepath.Join("testdata", "values", "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".yaml")
	}
	return files
}

// object is one of a release.
type object struct {
	file  string
	text  string
	typed runtime.Object // nil for kinds that others define
	meta  metav1.Object
	kind  string
}

var decoder = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientscheme.AddToScheme(scheme))
	utilruntime.Must(monitoringv1.AddToScheme(scheme))
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// foreign are kinds whose types would be a large dependency for a field or two.
var foreign = []string{"cert-manager.io/v1"}

// objects decodes everything that was rendered. What the API server would warn of
// or drop, such as an unknown field, fails the test.
func objects(t testing.TB, files map[string]string) []object {
	var all []object
	for _, file := range slices.Sorted(keys(files)) {
		if file == "NOTES.txt" {
			continue
		}
		for r := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(files[file]))); ; {
			doc, err := r.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if bytes.TrimSpace(doc) != nil && len(withoutComments(doc)) > 0 {
				all = append(all, decode(t, file, doc))
			}
		}
	}
	return all
}

func withoutComments(doc []byte) string {
	var rest strings.Builder
	for line := range strings.Lines(string(doc)) {
		if text := strings.TrimSpace(line); !strings.HasPrefix(text, "#") && text != "---" {
			rest.WriteString(text)
		}
	}
	return rest.String()
}

func decode(t testing.TB, file string, doc []byte) object {
	plain := &unstructured.Unstructured{}
	require.NoError(t, yaml.UnmarshalStrict(doc, &plain.Object), "%s:\n%s", file, doc)
	o := object{file: file, text: string(doc), meta: plain, kind: plain.GetKind()}
	if slices.Contains(foreign, plain.GetAPIVersion()) {
		return o
	}
	typed, _, err := decoder.Decode(doc, nil, nil)
	require.NoError(t, err, "%s:\n%s", file, doc)
	o.typed = typed
	return o
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// clustersOf are those that a case can be rendered for.
func clustersOf(t testing.TB, name string) []cluster {
	if injection, ok := values(t, name)["injection"].(map[string]any); ok && injection["mode"] == "policy" {
		return []cluster{newest}
	}
	return clusters
}

// each runs a test for everything that every case renders on every cluster.
func each(t *testing.T, test func(t *testing.T, name string, c cluster, files map[string]string)) {
	for _, name := range cases(t) {
		for _, c := range clustersOf(t, name) {
			t.Run(name+"/"+c.version, func(t *testing.T) {
				files, err := render(t, c, values(t, name))
				require.NoError(t, err)
				test(t, name, c, files)
			})
		}
	}
}
