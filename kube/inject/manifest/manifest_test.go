package manifest_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/nearside-cache/nearside/kube/inject"
	"github.com/nearside-cache/nearside/kube/inject/manifest"
)

var update = flag.Bool("update", false, "write testdata anew")

func injectAll(p manifest.Pod) (bool, error) { return inject.Defaults().Inject(p.Pod) }

func removeAll(p manifest.Pod) (bool, error) { return (inject.Settings{}).Remove(p.Pod), nil }

// mark makes a change that is easy to look at.
func mark(p manifest.Pod) (bool, error) {
	p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: "MARKED", Value: "0777"})
	p.Spec.InitContainers = append([]corev1.Container{{Name: "first", Image: "first:1"}}, p.Spec.InitContainers...)
	return true, nil
}

// Everything but the change stays: see testdata.
func TestEdit(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			require.NoError(t, err)
			got, err := manifest.Edit(a.Files[0].Data, mark)
			if err != nil {
				got = []byte("error: " + err.Error() + "\n")
			}
			if *update {
				a.Files = append(a.Files[:1], txtar.File{Name: "out", Data: got})
				require.NoError(t, os.WriteFile(path, txtar.Format(a), 0o644))
			}
			require.Equal(t, string(a.Files[1].Data), string(got))
		})
	}
}

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop # the shop
spec:
  template:
    spec:
      containers:
      # the app
      - name: app
        image: example.com/app:1
        env:
        - {name: A, value: "1"}
        - {name: A, value: "2"}
`

// What is taken away leaves what was there before it came, comments and all.
func TestRemoveUndoesInject(t *testing.T) {
	injected, err := manifest.Edit([]byte(deployment), injectAll)
	require.NoError(t, err)
	require.NotEqual(t, deployment, string(injected))
	again, err := manifest.Edit(injected, injectAll)
	require.NoError(t, err)
	require.Equal(t, string(injected), string(again))
	removed, err := manifest.Edit(injected, removeAll)
	require.NoError(t, err)
	require.Equal(t, deployment, string(removed))
}

// Documents in which nothing changes come out byte for byte.
func TestUntouchedBytes(t *testing.T) {
	never := func(manifest.Pod) (bool, error) { return false, nil }
	for _, text := range []string{
		"",
		"\n",
		"# nothing\n",
		"---\n",
		"--- # a comment\nkind:   X\n...\n---\n\n---",
		"a:   [1,2]   \r\n---\r\nb: {c: 'd' }",
		"just a word\n",
		"- a\n- list\n",
		"{\"kind\": \"X\",\n\t\"apiVersion\":\"v1\"}  {\"b\":1}\n",
		"{kind: flow}\n---\n{a: b}\n",
		"apiVersion: v1\nkind: List\nitems:\n-   apiVersion: v1\n    kind: Pod\n    spec: {containers: [ ]}\n- null\n",
		"apiVersion: apps/v1\nkind: Deployment\nspec: null\n",
		"text: |\n  --- not a separator\n  ---x\n",
		deployment,
	} {
		got, err := manifest.Edit([]byte(text), never)
		require.NoError(t, err, text)
		require.Equal(t, text, string(got))
	}
}

// Only the documents with pods are written anew.
func TestOthersStay(t *testing.T) {
	other := "---\n# a comment\nkind:   Service\nspec: { a: b }   # kept\n"
	got, err := manifest.Edit([]byte(other+"---\n"+deployment+other), injectAll)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(got), other))
	require.True(t, strings.HasSuffix(string(got), other))
	require.Contains(t, string(got), "nearside-socket")
}

// Every fault is told with its document, and nothing is returned.
func TestFaults(t *testing.T) {
	refuse := errors.New("refused")
	for text, want := range map[string]string{
		"a: b\n---\nx: [\n":               "document 2: it is no YAML",
		deployment + "---\n" + deployment: "document 1: deployment/shop: refused\ndocument 2: deployment/shop: refused",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: {}}\n": "document 1: pod/x: it is not what its kind says",
		"kind: {{ .Values.x }}y\n": "document 1: it is no YAML",
	} {
		got, err := manifest.Edit([]byte(text), func(manifest.Pod) (bool, error) { return false, refuse })
		require.ErrorContains(t, err, want)
		require.Nil(t, got)
	}
}

// The annotations of the object are told apart from those of its pods.
func TestAnnotationsOfTheObject(t *testing.T) {
	text := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, annotations: {x: object}}\nspec: {template: {metadata: {annotations: {x: pod}}}}\n"
	_, err := manifest.Edit([]byte(text), func(p manifest.Pod) (bool, error) {
		require.Equal(t, "deployment/a", p.Object)
		require.Equal(t, "object", p.Annotations["x"])
		require.Equal(t, "pod", p.Pod.Annotations["x"])
		return false, nil
	})
	require.NoError(t, err)
}

// Whatever is read, nothing that is not asked to change does, and what is
// injected can be taken away again.
func FuzzEdit(f *testing.F) {
	f.Add([]byte(deployment))
	f.Add([]byte("a: &x {b: c}\nd: *x\n---\n{}"))
	f.Add([]byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[{"name":"app"}]}}`))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  spec: {containers: [{name: a}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		same, err := manifest.Edit(data, func(manifest.Pod) (bool, error) { return false, nil })
		if err != nil {
			return
		}
		require.Equal(t, data, append([]byte{}, same...))
		injected, err := manifest.Edit(data, injectAll)
		if err != nil {
			return
		}
		again, err := manifest.Edit(injected, injectAll)
		require.NoError(t, err)
		require.Equal(t, string(injected), string(again))
		_, err = manifest.Edit(injected, removeAll)
		require.NoError(t, err)
	})
}
