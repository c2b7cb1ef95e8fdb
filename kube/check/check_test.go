package check_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nearside-cache/nearside/kube/check"
	"github.com/nearside-cache/nearside/kube/inject"
)

func named(name string) types.NamespacedName { return types.NamespacedName{Name: name} }

var asks = map[string]string{inject.AnnotationInject: "true"}

func TestAllInOrder(t *testing.T) {
	s := newScene(t)
	for id, o := range s.all() {
		require.Equal(t, check.OK, o.Result, "%s: %s %v", id, o.Summary, o.Items)
		require.Empty(t, o.Hint+o.Link)
	}
}

// deployment is one whose own metadata and template have these annotations.
func deployment(own, template map[string]string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "app", Namespace: "shop", Annotations: own},
		Spec:       appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: template}}},
	}
}

const deploymentPath = "/apis/apps/v1/namespaces/shop/deployments/app"

// What is wrong is found by the check that is for it, with what it is about; the
// others find nothing.
func TestWhatIsWrongIsFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*scene)
		id     string
		want   check.Result
		says   string
	}{
		{"too old", func(s *scene) { s.version = "v1.27.9" }, "kubernetes-version", check.Failed, "v1.27.9 is too old"},
		{"no native sidecars", func(s *scene) { s.version = "v1.28.9+k3s1" }, "kubernetes-version", check.Warning, "mode classic"},
		{"odd version", func(s *scene) { s.version = "nightly" }, "kubernetes-version", check.Warning, "nightly"},
		{"no replica ready", func(s *scene) {
			for i := range 2 {
				p := injector(i)
				p.Status.Conditions = nil
				s.put("/api/v1/namespaces/nearside/pods/"+p.Name, p)
			}
		}, "injector-ready", check.Failed, "nearside/nearside-injector-1 is not ready"},
		{"a replica not ready", func(s *scene) {
			p := injector(0)
			p.Status.Conditions = nil
			s.put("/api/v1/namespaces/nearside/pods/"+p.Name, p)
		}, "injector-ready", check.Warning, "1 of 2"},
		{"one replica", func(s *scene) { s.server.Remove("/api/v1/namespaces/nearside/pods/nearside-injector-0") }, "injector-ready", check.Warning, "one replica only"},
		{"no caBundle", func(s *scene) {
			s.hook(func(h *admissionregistrationv1.MutatingWebhook) { h.ClientConfig.CABundle = nil })
		}, "injector-certificate", check.Failed, "caBundle is empty"},
		{"another caBundle", func(s *scene) {
			s.hook(func(h *admissionregistrationv1.MutatingWebhook) { h.ClientConfig.CABundle = []byte("other") })
		}, "injector-certificate", check.Failed, "caBundle is not what the Secret"},
		{"no Secret", func(s *scene) { s.server.Remove(secretPath) }, "injector-certificate", check.Failed, "secrets"},
		{"empty Secret", func(s *scene) { s.put(secretPath, &corev1.Secret{}) }, "injector-certificate", check.Failed, "no certificates"},
		{"fails for all", func(s *scene) {
			s.hook(func(h *admissionregistrationv1.MutatingWebhook) { h.MatchConditions = nil })
		}, "injector-narrow", check.Warning, "no pod at all"},
		{"not reached", func(s *scene) { s.broken = `failed calling webhook "inject.nearside.dev": no route` }, "injection-works", check.Failed, "no route"},
		{"refused by the guard", func(s *scene) { s.broken = "denied request: the pod asks for a sidecar and nothing has injected one" }, "injection-works", check.Failed, "nothing has injected"},
		{"refused by another", func(s *scene) { s.broken = "exceeded quota" }, "injection-works", check.Warning, "exceeded quota"},
		{"not injected", func(s *scene) { s.trial = false }, "injection-works", check.Failed, "without a sidecar"},
		{"annotation on the Deployment", func(s *scene) { s.put(deploymentPath, deployment(asks, nil)) }, "annotation-on-template", check.Failed,
			"Deployment shop/app has nearside.dev/inject on itself, and not on its pod template"},
		{"on the CronJob", func(s *scene) {
			s.put("/apis/batch/v1/namespaces/shop/cronjobs/nightly", &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "nightly", Namespace: "shop", Annotations: asks}})
		}, "annotation-on-template", check.Failed, "CronJob shop/nightly"},
		{"on the namespace", func(s *scene) {
			s.put("/api/v1/namespaces/shop", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: asks}})
		}, "annotation-on-template", check.Failed, "Namespace shop"},
		{"wrong value", func(s *scene) {
			s.put(deploymentPath, deployment(nil, map[string]string{inject.AnnotationInject: "true", "nearside.dev/memory": "much"}))
		}, "annotation-values", check.Failed, "Deployment shop/app: annotation nearside.dev/memory"},
		{"neither true nor false", func(s *scene) {
			s.put(deploymentPath, deployment(nil, map[string]string{inject.AnnotationInject: "yes"}))
		}, "annotation-values", check.Failed, `is "yes"`},
		{"annotations without the one that asks", func(s *scene) {
			s.put(deploymentPath, deployment(nil, map[string]string{"nearside.dev/memory": "64Mi"}))
		}, "annotation-names", check.Warning, `Deployment shop/app: it has nearside.dev/memory, and does not ask for a sidecar: want the annotation nearside.dev/inject: "true"`},
		{"another case", func(s *scene) {
			s.put(deploymentPath, deployment(nil, map[string]string{"nearside.dev/Inject": "true"}))
		}, "annotation-names", check.Warning, "the annotation nearside.dev/Inject is not known: did you mean nearside.dev/inject?"},
		{"a typing error", func(s *scene) {
			s.put(deploymentPath, deployment(nil, map[string]string{"nearsid.dev/injetc": "true"}))
		}, "annotation-names", check.Warning, "the annotation nearsid.dev/injetc is not known: did you mean nearside.dev/inject?"},
		{"nothing like it", func(s *scene) {
			s.put(deploymentPath, deployment(nil, map[string]string{"nearside.dev/sidecars": "2", "example.com/inject": "true"}))
		}, "annotation-names", check.Warning, "Deployment shop/app: the annotation nearside.dev/sidecars is not known"},
		{"a label", func(s *scene) {
			d := deployment(nil, nil)
			d.Spec.Template.Labels = asks
			s.put(deploymentPath, d)
		}, "annotation-names", check.Warning, `the label nearside.dev/inject has no effect: want the annotation nearside.dev/inject: "true"`},
		{"a label of a pod that nothing made", func(s *scene) {
			s.put(shop+"plain", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "plain", Namespace: "shop", Labels: asks}})
		}, "annotation-names", check.Warning, "Pod shop/plain: the label nearside.dev/inject"},
		{"the Job gave up", func(s *scene) { s.put(jobPath, job(batchv1.JobFailed)) }, "stream-job", check.Failed, "Job nearside/nearside-stream-1 has failed"},
		{"the Job's pod fails", func(s *scene) {
			s.put(jobPath, job(""))
			p := component("nearside-stream-1-x", "stream")
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 3, Message: "first\nnearside: not connected to NATS\n",
			}}}}
			s.put("/api/v1/namespaces/nearside/pods/"+p.Name, p)
		}, "stream-job", check.Failed, "Job nearside/nearside-stream-1 fails: exit code 3: nearside: not connected to NATS"},
		{"the Job runs", func(s *scene) { s.put(jobPath, job("")) }, "stream-job", check.Warning, "has not ended yet"},
		{"the bundled NATS has no image", func(s *scene) {
			p := component("nearside-nats-0", "nats")
			p.Status.Conditions = nil
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}}}
			s.put(natsPath, p)
		}, "stream-job", check.Failed, "nearside/nearside-nats-0 is not ready: ErrImagePull"},
		{"a Secret is missing", func(s *scene) {
			p := pod("app-1")
			p.Status.Phase = corev1.PodPending
			p.Status.InitContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}
			s.put(shop+"app-1", p)
			for i, of := range []string{"app-1", "app-2"} {
				s.put(fmt.Sprintf("/api/v1/namespaces/shop/events/%d", i), &corev1.Event{
					ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), Namespace: "shop"}, InvolvedObject: corev1.ObjectReference{Name: of},
					Type: corev1.EventTypeWarning, Reason: "FailedMount", Message: fmt.Sprintf("secret %q not found", of),
				})
			}
		}, "sidecars-running", check.Failed, `it waits: PodInitializing; FailedMount: secret "app-1" not found`},
		{"no sidecar", func(s *scene) {
			p := pod("app-1")
			p.Spec.InitContainers, p.Status.InitContainerStatuses = nil, nil
			s.put(shop+"app-1", p)
		}, "pods-injected", check.Failed, "shop/app-1 has no container nearside"},
		{"crashes", func(s *scene) {
			p := pod("app-1")
			p.Status.InitContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
			s.put(shop+"app-1", p)
		}, "sidecars-running", check.Failed, "CrashLoopBackOff"},
		{"never started", func(s *scene) {
			p := pod("app-1")
			p.Status.InitContainerStatuses, p.Status.Phase = nil, corev1.PodPending
			s.put(shop+"app-1", p)
		}, "sidecars-running", check.Failed, "the pod is Pending"},
		{"out of memory", func(s *scene) {
			p := pod("app-1")
			p.Status.InitContainerStatuses[0].RestartCount = 3
			p.Status.InitContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{Reason: "OOMKilled"}
			s.put(shop+"app-1", p)
		}, "sidecars-running", check.Warning, "restarted 3 times, lastly after OOMKilled"},
		{"without NATS", func(s *scene) { s.metrics["app-1"] = "nearside_fresh_age_seconds 95\nnearside_connected 0\n" }, "sidecars-fresh", check.Failed, "not connected to NATS, and is fresh as of 1m35s ago"},
		{"never fresh", func(s *scene) { s.metrics["app-1"] = "nearside_fresh_age_seconds +Inf\nnearside_connected 0\n" }, "sidecars-fresh", check.Failed, "not connected to NATS, and was never fresh since it started"},
		{"never fresh, with NATS", func(s *scene) { s.metrics["app-1"] = "nearside_fresh_age_seconds +Inf\nnearside_connected 1\n" }, "sidecars-fresh", check.Failed, "it was never fresh since it started: in bypass"},
		{"in bypass", func(s *scene) { s.metrics["app-1"] = "nearside_fresh_age_seconds 31\nnearside_connected 1\n" }, "sidecars-fresh", check.Failed, "in bypass"},
		{"behind", func(s *scene) { s.metrics["app-1"] = "nearside_fresh_age_seconds 2.5\nnearside_connected 1\n" }, "sidecars-fresh", check.Warning, "behind"},
		{"toggled", func(s *scene) { s.metrics["app-1"] = strings.Replace(sound, "} 0", "} 2", 1) }, "sidecars-fresh", check.Warning, "toggles"},
		{"other program", func(s *scene) { s.metrics["app-1"] = "up 1\n" }, "sidecars-fresh", check.Warning, "no sidecar"},
		{"does not answer", func(s *scene) { delete(s.metrics, "app-1") }, "sidecars-fresh", check.Warning, "cannot be read"},
		{"no right to ask", func(s *scene) { s.metrics["app-1"] = "forbidden" }, "sidecars-fresh", check.Skipped, "pods/proxy"},
		{"on loopback", func(s *scene) {
			p := pod("app-1")
			for i, v := range p.Spec.InitContainers[0].Env {
				if v.Name == "NEARSIDE_ADMIN" {
					p.Spec.InitContainers[0].Env[i].Value = "127.0.0.1:9464"
				}
			}
			s.put(shop+"app-1", p)
		}, "sidecars-fresh", check.Skipped, "no admin port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			c.change(s)
			for id, o := range s.all() {
				if id != c.id {
					require.NotEqual(t, check.Failed, o.Result, "%s: %s %v", id, o.Summary, o.Items)
					continue
				}
				require.Equal(t, c.want, o.Result, o.Summary)
				require.Contains(t, o.Summary+" "+strings.Join(o.Items, "; "), c.says)
				if c.want != check.Skipped {
					require.NotEmpty(t, o.Hint)
					require.Equal(t, check.Document+"#"+c.id, o.Link)
				}
			}
		})
	}
}

// Where nothing injects any more, a restart gives no pod its sidecar.
func TestHintWhereNothingInjects(t *testing.T) {
	s := newScene(t)
	p := pod("app-1")
	p.Spec.InitContainers, p.Status.InitContainerStatuses = nil, nil
	s.put(shop+"app-1", p)
	require.Contains(t, s.all()["pods-injected"].Hint, "kubectl rollout restart")
	s.server.Remove(hooksPath)
	require.Contains(t, s.all()["pods-injected"].Hint, "nothing injects in this cluster")
	require.NotContains(t, s.all()["pods-injected"].Hint, "rollout restart")
}

// A namespace that does not exist has no pods, which is no good news.
func TestPodsInANamespaceThatDoesNotExist(t *testing.T) {
	s := newScene(t)
	s.target.Pods = "nosuch"
	all := s.all()
	require.Equal(t, check.Failed, all["pods-found"].Result)
	require.Equal(t, "there is no namespace nosuch", all["pods-found"].Summary)
	require.Equal(t, check.Skipped, all["sidecars-fresh"].Result)
	s.put("/api/v1/namespaces/nosuch", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "nosuch"}})
	require.Equal(t, check.OK, s.all()["pods-found"].Result)
	s.server.Remove("/api/v1/namespaces/nosuch")
	s.denied = "namespaces"
	require.NotContains(t, s.all()["pods-found"].Summary, "no namespace")
}

// A release that runs neither the Job nor NATS has nothing to look at.
func TestNothingRunsForTheStream(t *testing.T) {
	s := newScene(t)
	s.server.Remove(jobPath)
	require.Equal(t, check.OK, s.all()["stream-job"].Result)
	s.server.Remove(natsPath)
	require.Equal(t, check.Skipped, s.all()["stream-job"].Result)
}

// Versions other than this program's are told.
func TestVersionSkew(t *testing.T) {
	s := newScene(t)
	s.target.Version = "v1.3.0"
	all := s.all()
	require.Equal(t, check.Warning, all["injector-version"].Result)
	require.Contains(t, all["injector-version"].Items[0], "is 1.2.3")
	require.Equal(t, check.Warning, all["sidecars-version"].Result)
	require.Equal(t, []string{"shop/app-1 is 1.2.3, injected by 1.2.3"}, all["sidecars-version"].Items)
	s.target.Version = "dev"
	require.Equal(t, check.Skipped, s.all()["sidecars-version"].Result)
}

// Pods that are done, or about to go, are nobody's concern.
func TestPodsThatAreDone(t *testing.T) {
	s := newScene(t)
	p := pod("job")
	p.Spec.InitContainers, p.Status.Phase = nil, corev1.PodSucceeded
	s.put(shop+"job", p)
	p = pod("going")
	p.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	p.Status.InitContainerStatuses = nil
	s.put(shop+"going", p)
	old := injector(2)
	old.DeletionTimestamp, old.Status.Conditions = &metav1.Time{Time: time.Now()}, nil
	s.put("/api/v1/namespaces/nearside/pods/"+old.Name, old)
	for id, o := range s.all() {
		require.Equal(t, check.OK, o.Result, id)
	}
}

// With an admission policy there is no injector to look at, and injection is tried.
func TestPolicyMode(t *testing.T) {
	s := newScene(t)
	s.server.Remove(hooksPath)
	all := s.all()
	require.Equal(t, check.Warning, all["injection-registered"].Result)
	require.Equal(t, check.Skipped, all["injection-works"].Result)
	s.put(policyPath, &admissionregistrationv1.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "nearside", Labels: map[string]string{
		"app.kubernetes.io/part-of": "nearside", "app.kubernetes.io/component": "policy",
	}}})
	all = s.all()
	require.Equal(t, check.OK, all["injection-registered"].Result)
	require.Equal(t, check.OK, all["injection-works"].Result)
	require.Equal(t, check.Skipped, all["injector-ready"].Result)
}

// Whether there is a guard is told, and none is no fault.
func TestGuardIsTold(t *testing.T) {
	s := newScene(t)
	require.Contains(t, s.all()["injection-registered"].Summary, ", without a guard")
	guard := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "nearside", Labels: map[string]string{
		"app.kubernetes.io/part-of": "nearside", "app.kubernetes.io/component": "policy", // of faults alone
	}}}
	s.put(guardPath, guard)
	require.Contains(t, s.all()["injection-registered"].Summary, ", without a guard")
	guard.Labels["app.kubernetes.io/component"] = "guard"
	s.put(guardPath, guard)
	require.Contains(t, s.all()["injection-registered"].Summary, ", with a guard")
	s.denied = "validatingadmissionpolicies"
	told := s.all()["injection-registered"]
	require.Equal(t, check.OK, told.Result)
	require.Contains(t, told.Summary, "not known")
}

// Who may not see something is told so, and nothing fails for it.
func TestMissingRights(t *testing.T) {
	for resource, skipped := range map[string]string{
		"pods": "pods-found", "secrets": "injector-certificate", "mutatingwebhookconfigurations": "injection-registered", "deployments": "annotation-on-template",
	} {
		t.Run(resource, func(t *testing.T) {
			s := newScene(t)
			s.denied = resource
			all := s.all()
			require.Equal(t, check.Skipped, all[skipped].Result, all[skipped].Summary)
			for id, o := range all {
				require.NotEqual(t, check.Failed, o.Result, id)
			}
		})
	}
}

func TestPre(t *testing.T) {
	s := newScene(t)
	all := s.run(check.Pre(s.target))
	require.Equal(t, check.OK, all["rights-to-install"].Result)
	require.Equal(t, check.Warning, all["not-installed"].Result)
	s.server.Remove(hooksPath)
	s.denied = "clusterroles"
	all = s.run(check.Pre(s.target))
	require.Equal(t, check.OK, all["not-installed"].Result)
	require.Equal(t, check.Failed, all["rights-to-install"].Result)
	require.Equal(t, []string{"no right to create clusterroles"}, all["rights-to-install"].Items)
}

// Without an API server one check fails, and those that need it are skipped.
func TestNoAPIServer(t *testing.T) {
	s := newScene(t)
	s.version = "\x00" // no JSON
	failed := 0
	for id, o := range s.all() {
		switch o.Result {
		case check.Failed:
			failed++
		default:
			require.Equal(t, check.Skipped, o.Result, id)
		}
	}
	require.Equal(t, 1, failed)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	count := check.Run(ctx, check.Pre(s.target), func(check.Outcome) {})
	require.Equal(t, map[check.Result]int{check.Skipped: 3}, count)
}

// Every check is explained, under its ID.
func TestEveryCheckIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "kubernetes", "check.md"))
	require.NoError(t, err)
	var target check.Target
	for _, c := range append(append(check.Pre(target), check.Injector(target)...), check.DataPlane(target)...) {
		require.Contains(t, string(text), "\n### "+c.ID+"\n")
		require.NotEmpty(t, c.Hint)
	}
}
