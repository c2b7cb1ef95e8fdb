package equal

import (
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/yaml"
)

// app is a chart that uses the library chart.
func app(t *testing.T, template string) *chart.Chart {
	library, err := loader.LoadDir(filepath.Join(chartsDir, "nearside-sidecar"))
	require.NoError(t, err)
	parent := &chart.Chart{
		Metadata:  &chart.Metadata{APIVersion: "v2", Name: "app", Version: "0.0.1"},
		Templates: []*chart.File{{Name: "templates/pod.yaml", Data: []byte(template)}},
	}
	parent.AddDependency(library)
	return parent
}

// render renders a chart for a version of Kubernetes, and returns its templates'
// texts by their path.
func render(t *testing.T, c *chart.Chart, kubernetes string, values map[string]any) (map[string]string, error) {
	version, err := chartutil.ParseKubeVersion(kubernetes)
	require.NoError(t, err)
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *version
	if kubernetes == current {
		capabilities.APIVersions = append(capabilities.APIVersions, "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")
	}
	all, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "nearside", Namespace: "nearside", Revision: 1, IsInstall: true}, capabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

func (e example) byLibrary(t *testing.T, c *chart.Chart) (pod, refusal string) {
	out, err := render(t, c, e.kubernetes, map[string]any{"template": asMap(t, &e.pod), "nearside": e.given})
	if err != nil {
		return "", failure(t, err)
	}
	return canonical(t, read(t, []byte(out["app/templates/pod.yaml"]))), ""
}

// failure is what a template failed with, without where.
func failure(t *testing.T, err error) string {
	at := regexp.MustCompile(`^execution error at \([^)]*\): `).FindStringIndex(err.Error())
	require.NotNil(t, at, err.Error())
	return err.Error()[at[1]:]
}

const whole = `{{ include "nearside.inject" (dict "template" .Values.template "settings" .Values.nearside "capabilities" .Capabilities) }}`

func TestLibraryChart(t *testing.T) {
	c := app(t, whole)
	each(t, appVersion(t, "nearside-sidecar"), func(t *testing.T, e example) {
		pod, refusal := e.byGo(t)
		got, gotRefusal := e.byLibrary(t, c)
		require.Equal(t, refusal, gotRefusal)
		require.Equal(t, pod, got)
	})
}

// Who puts the parts together by hand gets what the whole has.
func TestLibraryParts(t *testing.T) {
	c := app(t, `
metadata:
  annotations: {nearside.dev/inject: "false"}
spec:
  initContainers:
    - {{- include "nearside.container" (dict "settings" .Values.nearside) | nindent 6 }}
  containers:
    - name: app
      image: example.com/app:1
      volumeMounts:
        {{- include "nearside.volumeMounts" . | nindent 8 }}
  volumes:
    {{- include "nearside.volumes" (dict "settings" .Values.nearside) | nindent 4 }}
`)
	for _, e := range examples(t, appVersion(t, "nearside-sidecar")) {
		if e.name != "plain" && e.name != "one_secret" {
			continue
		}
		out, err := render(t, c, current, map[string]any{"nearside": e.given})
		require.NoError(t, err)
		got := read(t, []byte(out["app/templates/pod.yaml"]))
		_, err = e.settings.Inject(&e.pod)
		require.NoError(t, err)
		require.Equal(t, e.pod.Spec, got.Spec)
	}
}

// A chart of an app gets the same help with its settings as an installation.
func TestLibrarySettings(t *testing.T) {
	c := app(t, whole)
	for given, want := range map[string]string{
		"{memroy: 1Gi, nats: {uri: x}}": "settings that are not known: memroy, nats.uri",
		"{memory: 128m}":                `setting memory is "128m": want a whole number of Mi or Gi, at least 32Mi, such as 128Mi`,
		"{admin: {port: 70000}}":        `setting admin.port is "70000": want a port from 1 to 65535, or 0 for none`,
	} {
		var settings map[string]any
		require.NoError(t, yaml.Unmarshal([]byte(given), &settings))
		_, err := render(t, c, current, map[string]any{"template": asMap(t, read(t, []byte("spec: {containers: [{name: app}]}"))), "nearside": settings})
		require.Error(t, err)
		require.Equal(t, want, failure(t, err))
	}
}

// A template that says no stays as it is, and words that are neither are refused.
func TestLibraryWish(t *testing.T) {
	c := app(t, whole)
	template := func(wish string) map[string]any {
		return map[string]any{"template": asMap(t, read(t, []byte("metadata: {annotations: {nearside.dev/inject: '"+wish+"'}}\nspec: {containers: [{name: app}]}")))}
	}
	out, err := render(t, c, current, template("false"))
	require.NoError(t, err)
	require.NotContains(t, out["app/templates/pod.yaml"], "nearside-socket")
	_, err = render(t, c, current, template("yes"))
	require.Error(t, err)
	require.Equal(t, `annotation nearside.dev/inject is "yes": want true or false`, failure(t, err))
}
