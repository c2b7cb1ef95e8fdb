package inject_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/nearside-cache/nearside/kube/inject"
)

var update = flag.Bool("update", false, "write what the injection makes of testdata, and the tables made of the annotations")

// version is what the injection of the tests calls itself.
const version = "v1.2.3"

// example is a file of testdata/pods: settings, a pod, and what becomes of it,
// which is a pod, or an error.
type example struct {
	path     string
	archive  *txtar.Archive
	settings inject.Settings
	pod      corev1.Pod
}

func (e example) section(name string) []byte {
	for _, f := range e.archive.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

// want writes, or compares, what becomes of the pod.
func (e example) want(t *testing.T, name, got string) {
	if *update {
		e.archive.Files = slices.DeleteFunc(e.archive.Files, func(f txtar.File) bool { return f.Name == "injected" || f.Name == "error" })
		e.archive.Files = append(e.archive.Files, txtar.File{Name: name, Data: []byte(got)})
		require.NoError(t, os.WriteFile(e.path, txtar.Format(e.archive), 0o644))
	}
	require.Equal(t, string(e.section(name)), got, "%s: run this test with -update, and look at the difference", e.path)
}

// eachExample runs a test for every file of testdata/pods.
func eachExample(t *testing.T, run func(t *testing.T, e example)) {
	paths, err := filepath.Glob("testdata/pods/*.txtar")
	require.NoError(t, err)
	require.Greater(t, len(paths), 20)
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			e := example{path: path}
			e.archive, err = txtar.ParseFile(path)
			require.NoError(t, err)
			e.settings, err = inject.ReadSettings(e.section("settings"))
			require.NoError(t, err)
			e.settings.Version, e.settings.Kubernetes = version, string(bytes.TrimSpace(e.section("kubernetes")))
			require.NoError(t, yaml.UnmarshalStrict(e.section("pod"), &e.pod))
			run(t, e)
		})
	}
}

func text(t *testing.T, pod *corev1.Pod) string {
	b, err := yaml.Marshal(pod)
	require.NoError(t, err)
	return string(b)
}

func TestInject(t *testing.T) {
	eachExample(t, func(t *testing.T, e example) {
		pod := e.pod.DeepCopy()
		changed, err := e.settings.Inject(pod)
		if err != nil {
			require.False(t, changed)
			require.Equal(t, e.pod, *pod, "a pod that is refused was changed")
			e.want(t, "error", err.Error()+"\n")
			return
		}
		require.Equal(t, changed, text(t, &e.pod) != text(t, pod))
		e.want(t, "injected", text(t, pod))
	})
}

// Admission calls again when another webhook has changed the pod.
func TestInjectTwice(t *testing.T) {
	eachExample(t, func(t *testing.T, e example) {
		if _, err := e.settings.Inject(&e.pod); err != nil {
			return
		}
		once := e.pod.DeepCopy()
		e.settings.Memory, e.settings.Version = "999Mi", "v9"
		changed, err := e.settings.Inject(&e.pod)
		require.NoError(t, err)
		require.False(t, changed)
		require.Equal(t, once, &e.pod)
	})
}

func TestRemoveUndoesInject(t *testing.T) {
	eachExample(t, func(t *testing.T, e example) {
		if _, told := e.pod.Annotations[inject.AnnotationStatus]; told {
			return // it does not begin without
		}
		before := text(t, &e.pod)
		require.False(t, e.settings.Remove(&e.pod))
		require.Equal(t, before, text(t, &e.pod))
		if _, err := e.settings.Inject(&e.pod); err != nil {
			return
		}
		require.True(t, e.settings.Remove(&e.pod))
		require.Equal(t, before, text(t, &e.pod))
		require.False(t, e.settings.Remove(&e.pod))
	})
}
