package check_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/hashicorp/go-hclog"

	"github.com/nearside-cache/nearside/kube/check"
	"github.com/nearside-cache/nearside/kube/cluster/clustertest"
	"github.com/nearside-cache/nearside/kube/inject"
	"github.com/nearside-cache/nearside/kube/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hooksPath  = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/nearside"
	policyPath = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies/nearside"
	guardPath  = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/nearside"
	secretPath = "/api/v1/namespaces/nearside/secrets/nearside-injector-tls"
	jobPath    = "/apis/batch/v1/namespaces/nearside/jobs/nearside-stream-1"
	natsPath   = "/api/v1/namespaces/nearside/pods/nearside-nats-0"
	shop       = "/api/v1/namespaces/shop/pods/"
	sound      = "# HELP x y\nnearside_fresh_age_seconds 0.12\nnearside_connected 1\nnearside_toggles{setting=\"mode\"} 0\n"
)

// scene is a cluster in which all is in order, until a test changes something.
type scene struct {
	t       *testing.T
	server  *clustertest.Server
	version string
	denied  string            // rights whose resource this is are not there
	broken  string            // what the API server says to a pod that is tried
	trial   bool              // whether such a pod gets a sidecar
	metrics map[string]string // by pod
	target  check.Target
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, version: "v1.36.3", trial: true, metrics: map[string]string{"app-1": sound}}
	s.server = &clustertest.Server{Page: 1, Handle: http.HandlerFunc(s.handle), Admit: s.admit, Intercept: s.intercept}
	client, err := s.server.Client()
	require.NoError(t, err)
	s.target = check.Target{Cluster: client, Namespace: "nearside", Trial: "default", Version: "v1.2.3"}
	s.put(hooksPath, hooks())
	s.certificates()
	for i := range 2 {
		p := injector(i)
		s.put("/api/v1/namespaces/nearside/pods/"+p.Name, p)
	}
	s.put("/api/v1/namespaces/nearside/pods/nats-0", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "nats-0", Namespace: "nearside"}})
	s.put(jobPath, job(batchv1.JobComplete))
	s.put(natsPath, component("nearside-nats-0", "nats"))
	s.put(shop+"app-1", pod("app-1"))
	s.put(shop+"plain", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "plain", Namespace: "shop"}})
	return s
}

func (s *scene) put(path string, obj runtime.Object) { require.NoError(s.t, s.server.Put(path, obj)) }

// certificates has a real injector make them.
func (s *scene) certificates() {
	i, err := webhook.Listen(webhook.Config{
		Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", API: s.target.Cluster, Namespace: "nearside",
		Service: "nearside-injector", Secret: "nearside-injector-tls", Webhook: "nearside",
		Lives: webhook.DefaultLives(), Logger: hclog.NewNullLogger(),
	})
	require.NoError(s.t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- i.Run(ctx) }()
	require.Eventually(s.t, func() bool { return len(s.hooks().Webhooks[0].ClientConfig.CABundle) > 0 }, 20*time.Second, time.Millisecond)
	stop()
	require.NoError(s.t, <-ended)
}

// hooks reads the webhook's configuration.
func (s *scene) hooks() *admissionregistrationv1.MutatingWebhookConfiguration {
	var c admissionregistrationv1.MutatingWebhookConfiguration
	require.NoError(s.t, s.target.Cluster.Get(context.Background(), &c, named("nearside")))
	return &c
}

// hook changes the webhook.
func (s *scene) hook(change func(*admissionregistrationv1.MutatingWebhook)) {
	c := s.hooks()
	change(&c.Webhooks[0])
	s.put(hooksPath, c)
}

func hooks() *admissionregistrationv1.MutatingWebhookConfiguration {
	fail := admissionregistrationv1.Fail
	return &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "nearside"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "inject.nearside.dev", FailurePolicy: &fail,
			MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "asked", Expression: "true"}},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				Service: &admissionregistrationv1.ServiceReference{Namespace: "nearside", Name: "nearside-injector"},
			},
		}},
	}
}

// injector is one of its pods.
func injector(n int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("nearside-injector-%d", n), Namespace: "nearside", Labels: map[string]string{
			"app.kubernetes.io/part-of": "nearside", "app.kubernetes.io/component": "injector",
		}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "injector", Image: "ghcr.io/nearside-cache/nearside:1.2.3",
			Env: []corev1.EnvVar{{Name: "NEARSIDE_SECRET", Value: "nearside-injector-tls"}},
		}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

// job is the one that makes the stream. An empty condition stands for none.
func job(condition batchv1.JobConditionType) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: component("nearside-stream-1", "stream").ObjectMeta}
	if condition != "" {
		j.Status.Conditions = []batchv1.JobCondition{{Type: condition, Status: corev1.ConditionTrue}}
	}
	return j
}

// component is a pod of the release that is ready.
func component(name, component string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "nearside", Labels: map[string]string{
			"app.kubernetes.io/part-of": "nearside", "app.kubernetes.io/component": component, batchv1.JobNameLabel: "nearside-stream-1",
		}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

// pod is one with a sidecar that runs.
func pod(name string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Annotations: map[string]string{inject.AnnotationInject: "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}},
	}
	s := inject.Defaults()
	s.Version = "1.2.3"
	if _, err := s.Inject(p); err != nil {
		panic(err)
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, InitContainerStatuses: []corev1.ContainerStatus{{
		Name: inject.ContainerName, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}}
	return p
}

func (s *scene) handle(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/version" {
		fmt.Fprintf(w, `{"gitVersion":%q}`, s.version)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, shop)
	name, ok2 := strings.CutSuffix(name, ":9464/proxy/metrics")
	text, known := s.metrics[name]
	switch {
	case !ok || !ok2 || !known:
		http.Error(w, "dial tcp: connection refused", http.StatusServiceUnavailable)
	case text == "forbidden":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`)
	default:
		fmt.Fprint(w, text)
	}
}

// admit answers what this user may do, and injects into a pod that is tried.
func (s *scene) admit(resource string, o map[string]any) {
	if resource == "pods" && s.trial {
		o["spec"].(map[string]any)["initContainers"] = []any{map[string]any{"name": "nearside"}}
	}
	if resource == "selfsubjectaccessreviews" {
		asked := o["spec"].(map[string]any)["resourceAttributes"].(map[string]any)
		o["status"] = map[string]any{"allowed": s.denied == "" || asked["resource"] != s.denied}
	}
}

func (s *scene) intercept(r *http.Request) *metav1.Status {
	if s.broken != "" && r.URL.Query().Get("dryRun") == "All" {
		return &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: s.broken}
	}
	if s.denied != "" && r.Method == http.MethodGet && (strings.HasSuffix(r.URL.Path, "/"+s.denied) || strings.Contains(r.URL.Path, "/"+s.denied+"/")) {
		return clustertest.Forbidden()
	}
	return nil
}

// run returns the outcomes by ID.
func (s *scene) run(checks []check.Check) map[string]check.Outcome {
	all := map[string]check.Outcome{}
	count := check.Run(context.Background(), checks, func(o check.Outcome) { all[o.ID] = o })
	n := 0
	for _, c := range count {
		n += c
	}
	require.Equal(s.t, len(checks), n)
	return all
}

// all are the checks of an installation.
func (s *scene) all() map[string]check.Outcome {
	return s.run(append(check.Injector(s.target), check.DataPlane(s.target)[1:]...))
}
