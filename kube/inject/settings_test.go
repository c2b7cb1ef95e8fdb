package inject_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/nearside-cache/nearside/kube/inject"
)

func TestReadSettings(t *testing.T) {
	s, err := inject.ReadSettings(nil)
	require.NoError(t, err)
	require.Equal(t, inject.Defaults(), s)
	s, err = inject.ReadSettings([]byte("memory: 1Gi\nnats: {credsSecret: {name: nats}}\nadmin: {port: 0}\n"))
	require.NoError(t, err)
	require.Equal(t, "1Gi", s.Memory)
	require.Equal(t, inject.SecretKey{Name: "nats", Key: "nats.creds"}, s.NATS.CredsSecret, "what is not said has its default")
	require.Equal(t, "nats://nearside-nats.nearside.svc:4222", s.NATS.URL)
	require.Zero(t, s.Admin.Port)
}

// What is written is what is read.
func TestSettingsRoundTrip(t *testing.T) {
	text, err := yaml.Marshal(inject.Defaults())
	require.NoError(t, err)
	s, err := inject.ReadSettings(text)
	require.NoError(t, err)
	require.Equal(t, inject.Defaults(), s)
}

// Every fault is told at once, with its path.
func TestFaultySettings(t *testing.T) {
	_, err := inject.ReadSettings([]byte(`
memroy: 1Gi
memory: 128m
cpu: ""
domain: Shop
image: {repository: "", tag: "a b", pullPolicy: Sometimes, digest: x}
nats:
  url: ""
  uri: nats://x
  caSecret: {name: ca, key: ""}
  tlsSecret: {name: tls, key: tls.crt}
config: "-"
socketMode: "0999"
logLevel: loud
logFormat: xml
mode: sidecar
admin: {port: 65536}
extraEnv:
- {name: NEARSIDE_DOMAIN, value: x}
- {name: ""}
- {name: NEARSIDE_CONFIG, value: x}
- {name: NEARSIDE_MAX_VALUE, value: 1MiB}
`))
	require.Error(t, err)
	got := strings.Split(err.Error(), "\n")
	require.Equal(t, []string{
		`unknown field "image.digest"`,
		`unknown field "memroy"`,
		`unknown field "nats.tlsSecret.key"`,
		`unknown field "nats.uri"`,
		`image is ":a b": want the name of an image`,
		`memory is "128m": want a whole number of Mi or Gi, at least 32Mi, such as 128Mi`,
		`cpu is "": want a number of CPUs such as 50m or 0.5`,
		`domain is "Shop": want 1 to 32 characters of a-z, 0-9, _ and -`,
		`config is "-": want the name of a ConfigMap, or nothing`,
		`socketMode is "0999": want a file mode in octal digits such as 0666`,
		`logLevel is "loud": want trace, debug, info, warn or error`,
		`mode is "sidecar": want auto, native or classic`,
		`admin.port is "65536": want a port from 1 to 65535, or 0 for none`,
		`image.pullPolicy is "Sometimes": want Always, IfNotPresent or Never`,
		`logFormat is "xml": want text or json`,
		`nats.url is "": want NATS servers with commas between, such as nats://nats.example:4222`,
		`nats.caSecret.key is "": want a key of the Secret`,
		`extraEnv[0].name is "NEARSIDE_DOMAIN": want a variable that the injection does not set itself`,
		`extraEnv[1].name is "": want a variable that the injection does not set itself`,
		`extraEnv[2].name is "NEARSIDE_CONFIG": want a variable that the injection does not set itself`,
	}, got)
}

func TestUnreadableSettings(t *testing.T) {
	for text, want := range map[string]string{
		"memory: 1Gi\nmemory: 2Gi\n": "already set",
		"memory: [1Gi]":              "cannot unmarshal",
		"[":                          "cannot be read",
	} {
		_, err := inject.ReadSettings([]byte(text))
		require.ErrorContains(t, err, want)
	}
}

func TestWanted(t *testing.T) {
	s := inject.Defaults()
	for value, want := range map[string]bool{"true": true, "false": false, "": false} {
		got, err := s.Wanted(metav1.ObjectMeta{Annotations: map[string]string{inject.AnnotationInject: value}})
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	got, err := s.Wanted(metav1.ObjectMeta{})
	require.NoError(t, err)
	require.False(t, got)
	_, err = s.Wanted(metav1.ObjectMeta{Annotations: map[string]string{inject.AnnotationInject: "yes"}})
	require.EqualError(t, err, `annotation nearside.dev/inject is "yes": want true or false`)
}

// Quantities that the patterns let pass, Kubernetes reads.
func FuzzAnnotations(f *testing.F) {
	for _, seed := range []string{"32Mi", "1Gi", "0.5", "99.999", "999999m", "50m", "660", ""} {
		f.Add(seed, seed)
	}
	s := inject.Defaults()
	f.Fuzz(func(t *testing.T, memory, cpu string) {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
		pod.Annotations = map[string]string{inject.Prefix + "memory": memory, inject.Prefix + "cpu": cpu, inject.Prefix + "image": memory, inject.Prefix + "config": cpu}
		_, err := s.Inject(pod)
		if err != nil {
			require.NotContains(t, err.Error(), "\n", "a refusal is one line")
			return
		}
		status := make(map[string]string)
		require.NoError(t, json.Unmarshal([]byte(pod.Annotations[inject.AnnotationStatus]), &status))
		require.Equal(t, "nearside", status["container"])
	})
}

func FuzzReadSettings(f *testing.F) {
	f.Add([]byte("memory: 1Gi\nextraEnv: [{name: A}]\nnats: {caSecret: {name: x}}"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		s, err := inject.ReadSettings(data)
		if err != nil {
			return
		}
		// Settings that are good never make an injection fail, or panic.
		if _, err := s.Inject(&corev1.Pod{}); err != nil {
			panic(err)
		}
	})
}
