package equal

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/nearside-cache/nearside/kube/webhook"
)

// injector runs an injector with the settings of an example, and returns where it
// answers reviews.
func injector(t *testing.T, e example) string {
	dir := t.TempDir()
	settings, err := yaml.Marshal(e.given)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "settings.yaml"), settings, 0o600))
	certificate(t, dir)
	s, err := webhook.Listen(webhook.Config{
		Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", CertDir: dir, Settings: filepath.Join(dir, "settings.yaml"),
		Version: e.settings.Version, Kubernetes: e.kubernetes, Logger: hclog.NewNullLogger(),
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	require.Eventually(t, func() bool {
		answer, err := http.Get("http://" + s.AdminAddr() + "/readyz")
		if err != nil {
			return false
		}
		return answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	}, 20*time.Second, 5*time.Millisecond)
	return "https://" + s.Addr() + "/mutate"
}

// certificate writes one for the tests of TLS servers into a folder.
func certificate(t *testing.T, dir string) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	c := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: c.Certificate[0]},
		"tls.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
}

// review asks an injector as an API server does, and applies its answer.
func review(t *testing.T, url string, pod *corev1.Pod) (patched, refusal string) {
	text, err := json.Marshal(pod)
	require.NoError(t, err)
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: types.UID("1"), Operation: admissionv1.Create, Namespace: "shop", Name: pod.Name,
			Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Object:   runtime.RawExtension{Raw: text},
		},
	})
	require.NoError(t, err)
	// Whom to trust is none of this test's business.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	answer, err := client.Post(url, "application/json", bytes.NewReader(body))
	require.NoError(t, err)
	defer answer.Body.Close()
	var r admissionv1.AdmissionReview
	require.NoError(t, json.NewDecoder(answer.Body).Decode(&r))
	if !r.Response.Allowed {
		return "", r.Response.Result.Message
	}
	if len(r.Response.Patch) > 0 {
		patch, err := jsonpatch.DecodePatch(r.Response.Patch)
		require.NoError(t, err)
		text, err = patch.Apply(text)
		require.NoError(t, err)
	}
	return canonical(t, read(t, text)), ""
}

func TestWebhook(t *testing.T) {
	urls := make(map[string]string) // by settings and version of Kubernetes
	for _, e := range examples(t, release) {
		if e.pod.Annotations == nil {
			continue // it does not ask, and the injector injects nobody else
		}
		settings, err := json.Marshal(e.given)
		require.NoError(t, err)
		key := string(settings) + e.kubernetes
		if urls[key] == "" {
			urls[key] = injector(t, e)
		}
		t.Run(e.name, func(t *testing.T) {
			pod, refusal := e.byGo(t)
			got, gotRefusal := review(t, urls[key], &e.pod)
			require.Equal(t, refusal, gotRefusal)
			require.Equal(t, pod, got)
		})
	}
}
