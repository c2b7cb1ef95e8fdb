package webhook_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/nearside-cache/nearside/kube/inject"
	"github.com/nearside-cache/nearside/kube/webhook"
)

var update = flag.Bool("update", false, "write the golden answers anew")

func settings() inject.Settings {
	s := inject.Defaults()
	s.Version = "1.2.3"
	return s
}

func post(h http.Handler, kind string, body io.Reader) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/mutate", body)
	r.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// shown is an answer, and where its patch does what. What it puts there is the
// injection's, which has tests of its own.
type shown struct {
	Answer *admissionv1.AdmissionReview `json:"answer"`
	Patch  []string                     `json:"patch,omitempty"`
}

func show(t *testing.T, answer *admissionv1.AdmissionReview) []byte {
	s := shown{Answer: answer}
	if answer.Response.Patch != nil {
		var ops []struct{ Op, Path string }
		require.NoError(t, json.Unmarshal(answer.Response.Patch, &ops))
		for _, o := range ops {
			s.Patch = append(s.Patch, o.Op+" "+o.Path)
		}
		answer.Response.Patch = nil
	}
	data, err := json.MarshalIndent(s, "", "  ")
	require.NoError(t, err)
	return append(data, '\n')
}

// ask answers a review and returns the answer.
func ask(t *testing.T, h http.Handler, review []byte) *admissionv1.AdmissionReview {
	w := post(h, "application/json", bytes.NewReader(review))
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	var answer admissionv1.AdmissionReview
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&answer))
	return &answer
}

// Every review in testdata/reviews gets the answer beside it.
func TestReviews(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "reviews", "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	h, _ := webhook.NewHandler(settings())
	for _, file := range files {
		if strings.HasSuffix(file, ".golden.json") {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			review, err := os.ReadFile(file)
			require.NoError(t, err)
			got := show(t, ask(t, h, review))
			golden := strings.TrimSuffix(file, ".json") + ".golden.json"
			if *update {
				require.NoError(t, os.WriteFile(golden, got, 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got), "run the test with -update")
		})
	}
}

// A pod that comes again, because another webhook changed it (reinvocation), is
// left alone; and what this binary does not know of it is still there.
func TestReviewAgain(t *testing.T) {
	h, registry := webhook.NewHandler(settings())
	text, err := os.ReadFile(filepath.Join("testdata", "reviews", "newer-api-server.json"))
	require.NoError(t, err)
	var review map[string]any
	require.NoError(t, json.Unmarshal(text, &review))
	request := review["request"].(map[string]any)
	injected := apply(t, toJSON(t, request["object"]), ask(t, h, text).Response.Patch)
	require.Equal(t, 3, strings.Count(string(injected), "fromTheFuture"))
	require.Contains(t, string(injected), `"name":"nearside"`)

	request["object"] = json.RawMessage(injected)
	again := ask(t, h, toJSON(t, review))
	require.True(t, again.Response.Allowed)
	require.Nil(t, again.Response.Patch)
	require.Nil(t, again.Response.PatchType)
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP nearside_injector_admissions_total Requests answered, by result.
# TYPE nearside_injector_admissions_total counter
nearside_injector_admissions_total{result="denied"} 0
nearside_injector_admissions_total{result="ignored"} 0
nearside_injector_admissions_total{result="injected"} 1
nearside_injector_admissions_total{result="malformed"} 0
nearside_injector_admissions_total{result="unchanged"} 1
`), "nearside_injector_admissions_total"))
}

// endless is a body that never ends and says so.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	if e.read > 2*webhook.MaxReview {
		return 0, errors.New("more was read than may be")
	}
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestRefusedRequests(t *testing.T) {
	h, registry := webhook.NewHandler(settings())
	good, err := os.ReadFile(filepath.Join("testdata", "reviews", "injected.json"))
	require.NoError(t, err)
	with := func(old, now string) io.Reader { return strings.NewReader(strings.Replace(string(good), old, now, 1)) }
	refused := 0
	for _, c := range []struct {
		name, kind string
		body       io.Reader
		code       int
	}{
		{"no type", "", bytes.NewReader(good), http.StatusUnsupportedMediaType},
		{"YAML", "application/yaml", bytes.NewReader(good), http.StatusUnsupportedMediaType},
		{"broken type", "application/json; x", bytes.NewReader(good), http.StatusUnsupportedMediaType},
		{"of a known length", "application/json", bytes.NewReader(make([]byte, webhook.MaxReview+1)), http.StatusRequestEntityTooLarge},
		{"of an unknown length", "application/json", &endless{}, http.StatusRequestEntityTooLarge},
		{"empty", "application/json", strings.NewReader(""), http.StatusBadRequest},
		{"no JSON", "application/json", strings.NewReader("{"), http.StatusBadRequest},
		{"v1beta1", "application/json", with("admission.k8s.io/v1", "admission.k8s.io/v1beta1"), http.StatusBadRequest},
		{"other kind", "application/json", with("AdmissionReview", "ConversionReview"), http.StatusBadRequest},
		{"no request", "application/json", with(`"request"`, `"response"`), http.StatusBadRequest},
		{"other case", "application/json", with(`"request"`, `"Request"`), http.StatusBadRequest},
		{"no uid", "application/json", with("705ab4f5-6393-11e8-b7cc-42010a800002", ""), http.StatusBadRequest},
		{"no pod", "application/json", with(`"containers": [`, `"containers": 1, "x": [`), http.StatusBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := post(h, c.kind, c.body)
			require.Equal(t, c.code, w.Code, w.Body.String())
			refused++
		})
	}
	require.Equal(t, http.StatusOK, post(h, "application/json; charset=utf-8", bytes.NewReader(good)).Code)
	require.InDelta(t, refused, value(t, registry, "malformed"), 0)
}

// FuzzDecode holds the decoder to answers that an API server can use, whatever
// somebody sends.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "reviews", "*.json"))
	require.NoError(f, err)
	for _, file := range files {
		if strings.HasSuffix(file, ".golden.json") {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(text)
	}
	s := settings()
	f.Fuzz(func(t *testing.T, data []byte) {
		review, err := webhook.Decode(data)
		if err != nil {
			return
		}
		a, result, err := webhook.Admit(s, review.Request)
		if err != nil {
			return
		}
		require.Equal(t, review.Request.UID, a.UID)
		require.Equal(t, result == "denied", !a.Allowed)
		require.Equal(t, result == "injected", a.Patch != nil)
		if a.Patch != nil {
			again := *review.Request
			typed, err := roundTrip(again.Object.Raw)
			require.NoError(t, err)
			again.Object.Raw = apply(t, typed, a.Patch)
			b, result, err := webhook.Admit(s, &again)
			require.NoError(t, err)
			require.Equal(t, "unchanged", result)
			require.True(t, b.Allowed)
		}
	})
}
