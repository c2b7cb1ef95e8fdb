package charts_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chartutil"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	psaapi "k8s.io/pod-security-admission/api"
	psa "k8s.io/pod-security-admission/policy"
)

var update = flag.Bool("update", false, "write testdata/golden anew")

// TestGolden compares what is rendered with what a reviewer has seen. The policies
// are left out: they are made of the program's source, and tested there.
func TestGolden(t *testing.T) {
	each(t, func(t *testing.T, name string, c cluster, files map[string]string) {
		if c.version != newest.version && name != "defaults" {
			return
		}
		var b strings.Builder
		for _, file := range slices.Sorted(keys(files)) {
			if !strings.HasPrefix(file, "injection-") || c.version == guarded.version {
				b.WriteString("=== " + file + "\n" + strings.TrimSpace(files[file]) + "\n")
			}
		}
		golden := filepath.Join("testdata", "golden", name+"-"+c.version+".txt")
		if *update {
			require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Equal(t, string(want), b.String(), "run go test . -update, and read the difference")
	})
}

// Every object can be told apart, found by its labels, and is where it says.
func TestObjects(t *testing.T) {
	clusterWide := []string{"ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
	each(t, func(t *testing.T, name string, _ cluster, files map[string]string) {
		seen := map[string]bool{}
		for _, o := range objects(t, files) {
			id := o.kind + " " + o.meta.GetNamespace() + "/" + o.meta.GetName()
			require.False(t, seen[id], "%s is there twice", id)
			seen[id] = true
			require.Equal(t, slices.Contains(clusterWide, o.kind), o.meta.GetNamespace() == "", id)
			require.LessOrEqual(t, len(o.meta.GetName()), 63, id)
			if o.file == "extra.yaml" {
				continue
			}
			for _, label := range []string{"name", "instance", "component", "part-of", "version", "managed-by"} {
				require.Contains(t, o.meta.GetLabels(), "app.kubernetes.io/"+label, id)
			}
			if name == "production" {
				require.Equal(t, "platform", o.meta.GetLabels()["team"], id)
				require.Equal(t, "platform", o.meta.GetAnnotations()["example.com/owner"], id)
			}
		}
	})
}

// pods returns the pod templates of a release, by the kind of what makes them.
func pods(all []object) map[string]corev1.PodTemplateSpec {
	found := map[string]corev1.PodTemplateSpec{}
	for _, o := range all {
		switch x := o.typed.(type) {
		case *appsv1.Deployment:
			found[o.kind+" "+x.Name] = x.Spec.Template
		case *appsv1.StatefulSet:
			found[o.kind+" "+x.Name] = x.Spec.Template
		case *batchv1.Job:
			found[o.kind+" "+x.Name] = x.Spec.Template
		case *corev1.Pod:
			found[o.kind+" "+x.Name] = corev1.PodTemplateSpec{ObjectMeta: x.ObjectMeta, Spec: x.Spec}
		}
	}
	return found
}

// Every pod may run where pod security is restricted, says what it needs, and can
// pull its image.
func TestPods(t *testing.T) {
	evaluator, err := psa.NewEvaluator(psa.DefaultChecks(), nil)
	require.NoError(t, err)
	each(t, func(t *testing.T, name string, _ cluster, files map[string]string) {
		for id, pod := range pods(objects(t, files)) {
			level := psaapi.LevelVersion{Level: psaapi.LevelRestricted, Version: psaapi.LatestVersion()}
			for _, result := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
				if !pod.Spec.HostNetwork { // which no restricted namespace permits
					require.True(t, result.Allowed, "%s: %s", id, result.ForbiddenDetail)
				}
			}
			if name == "production" {
				require.Equal(t, []corev1.LocalObjectReference{{Name: "registry"}}, pod.Spec.ImagePullSecrets, id)
			}
			for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
				require.NotEmpty(t, c.Resources.Requests.Cpu().String(), id)
				require.False(t, c.Resources.Requests.Memory().IsZero(), "%s: %s", id, c.Name)
				require.False(t, c.Resources.Limits.Memory().IsZero(), "%s: %s", id, c.Name)
				require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem, "%s: %s", id, c.Name)
			}
		}
	})
}

// What selects pods selects those of one template.
func TestSelectors(t *testing.T) {
	each(t, func(t *testing.T, _ string, _ cluster, files map[string]string) {
		all := objects(t, files)
		templates := pods(all)
		matching := func(selector *metav1.LabelSelector) (ids []string) {
			s, err := metav1.LabelSelectorAsSelector(selector)
			require.NoError(t, err)
			for id, pod := range templates {
				if s.Matches(labels.Set(pod.Labels)) {
					ids = append(ids, id)
				}
			}
			return ids
		}
		for _, o := range all {
			switch x := o.typed.(type) {
			case *appsv1.Deployment:
				require.Equal(t, []string{"Deployment " + x.Name}, matching(x.Spec.Selector))
			case *appsv1.StatefulSet:
				require.Equal(t, []string{"StatefulSet " + x.Name}, matching(x.Spec.Selector))
			case *corev1.Service:
				require.Len(t, matching(&metav1.LabelSelector{MatchLabels: x.Spec.Selector}), 1, x.Name)
			case *policyv1.PodDisruptionBudget:
				require.Len(t, matching(x.Spec.Selector), 1, x.Name)
			}
		}
	})
}

// The injector may touch its own Secret and its own webhook, and nothing else: only
// creating a Secret cannot be bound to a name.
func TestInjectorRights(t *testing.T) {
	each(t, func(t *testing.T, _ string, _ cluster, files map[string]string) {
		for _, o := range objects(t, files) {
			var rules []rbacv1.PolicyRule
			switch x := o.typed.(type) {
			case *rbacv1.Role:
				rules = x.Rules
			case *rbacv1.ClusterRole:
				rules = x.Rules
			}
			for _, rule := range rules {
				require.NotContains(t, rule.Verbs, "*")
				if !slices.Equal(rule.Verbs, []string{"create"}) {
					require.NotEmpty(t, rule.ResourceNames, "%s %s", o.kind, o.meta.GetName())
				}
			}
		}
	})
}

// A webhook that fails pods shut is safe: it sees nobody else's, and its own
// namespace and the cluster's not at all.
func TestWebhookIsSafe(t *testing.T) {
	each(t, func(t *testing.T, _ string, _ cluster, files map[string]string) {
		for _, o := range objects(t, files) {
			config, ok := o.typed.(*admissionregistrationv1.MutatingWebhookConfiguration)
			if !ok {
				continue
			}
			require.Len(t, config.Webhooks, 1)
			w := config.Webhooks[0]
			require.Len(t, w.MatchConditions, 1)
			require.Contains(t, w.MatchConditions[0].Expression, "nearside.dev/inject")
			require.Contains(t, w.NamespaceSelector.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn,
				Values: w.NamespaceSelector.MatchExpressions[0].Values,
			})
			require.Subset(t, w.NamespaceSelector.MatchExpressions[0].Values, []string{"kube-system", namespace})
			require.LessOrEqual(t, *w.TimeoutSeconds, int32(5))
			require.Equal(t, admissionregistrationv1.SideEffectClassNone, *w.SideEffects)
			require.Equal(t, admissionregistrationv1.IfNeededReinvocationPolicy, *w.ReinvocationPolicy)
			require.Empty(t, w.ClientConfig.CABundle, "the injector writes it: an upgrade would take it away")
		}
	})
}

// What injects follows from the mode and the cluster.
func TestMode(t *testing.T) {
	for _, c := range []struct {
		mode string
		on   cluster
		want string
	}{
		{"auto", oldest, "MutatingWebhookConfiguration"}, {"auto", newest, "MutatingAdmissionPolicy"},
		{"webhook", newest, "MutatingWebhookConfiguration"}, {"policy", newest, "MutatingAdmissionPolicy"},
		{"none", oldest, ""}, {"none", newest, ""},
	} {
		files, err := render(t, c.on, map[string]any{"injection": map[string]any{"mode": c.mode}})
		require.NoError(t, err)
		var injects []string
		for _, o := range objects(t, files) {
			if o.kind == "MutatingWebhookConfiguration" || o.kind == "MutatingAdmissionPolicy" {
				injects = append(injects, o.kind)
			}
		}
		require.Equal(t, c.want, strings.Join(injects, " "), "%s on %s", c.mode, c.on.version)
	}
}

// A cluster that is too old for policies refuses them when the chart is rendered, not
// when its objects are created.
func TestPolicyNeedsItsKubernetes(t *testing.T) {
	policy := map[string]any{"injection": map[string]any{"mode": "policy"}}
	for _, c := range []cluster{oldest, guarded} {
		_, err := render(t, c, policy)
		require.ErrorContains(t, err, "injection.mode is policy, which needs Kubernetes 1.36 or later, and this cluster is "+c.version)
	}
	_, err := render(t, cluster{version: newest.version}, policy)
	require.NoError(t, err, "helm template knows no policies and may render them")
}

// The NATS servers are a list with commas between.
func TestNATSURLs(t *testing.T) {
	for _, url := range []string{"", "nats://a:4222", "tls://u:p@a:4222, tls://b", "ws://a/nats", "wss://a,wss://b,wss://c"} {
		_, err := render(t, newest, map[string]any{"sidecar": map[string]any{"nats": map[string]any{"url": url}}})
		require.NoError(t, err, url)
	}
}

// The steps of the test give the password that sidecars ask for, and nothing else of
// what sidecars are told.
func TestPasswordOfTheTest(t *testing.T) {
	password := map[string]any{"name": "NEARSIDE_PASSWORD", "valueFrom": map[string]any{"secretKeyRef": map[string]any{"name": "shop", "key": "password"}}}
	extra := []any{map[string]any{"name": "NEARSIDE_MAX_VALUE", "value": "2MiB"}, password}
	files, err := render(t, newest, map[string]any{"sidecar": map[string]any{"extraEnv": extra}})
	require.NoError(t, err)
	pod := pods(objects(t, map[string]string{"t": files["tests/injected.yaml"]}))["Pod nearside-test"]
	steps := slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
	require.Len(t, steps, 3)
	for _, c := range steps {
		require.Len(t, c.Env, 1, c.Name)
		require.Equal(t, "NEARSIDE_PASSWORD", c.Env[0].Name)
		require.Equal(t, "shop", c.Env[0].ValueFrom.SecretKeyRef.Name)
	}
}

// What the notes say of a test that failed shows its logs: a container that never
// started must not keep those of others away. An upgrade keeps the other values.
func TestNotes(t *testing.T) {
	files, err := render(t, newest, map[string]any{})
	require.NoError(t, err)
	require.Contains(t, files["NOTES.txt"], "nearside-test --all-containers --ignore-errors\n")
	require.Contains(t, files["NOTES.txt"], "helm upgrade nearside CHART --namespace "+namespace+" --reset-then-reuse-values")
}

// The guard stands wherever pods may wait for their sidecar and the cluster can have
// it, and a change of modes does not touch it: it covers the time between the two.
func TestGuard(t *testing.T) {
	guard := func(on cluster, injection map[string]any) string {
		files, err := render(t, on, map[string]any{"injection": injection})
		require.NoError(t, err)
		return files["injection-guard.yaml"]
	}
	const refuses = "- expression: variables.injected\n"
	off := map[string]any{"enabled": false}
	for _, on := range []cluster{guarded, newest} {
		webhook := guard(on, map[string]any{"mode": "webhook"})
		require.Contains(t, webhook, refuses)
		require.Equal(t, webhook, guard(on, map[string]any{"mode": "auto"}))
		require.Empty(t, guard(on, map[string]any{"mode": "webhook", "guard": off}))
		require.Empty(t, guard(on, map[string]any{"mode": "webhook", "failurePolicy": "Ignore"}))
		require.Empty(t, guard(on, map[string]any{"mode": "none"}))
	}
	require.Equal(t, guard(newest, map[string]any{"mode": "webhook"}), guard(newest, map[string]any{"mode": "policy"}))
	require.Empty(t, guard(oldest, map[string]any{"mode": "webhook"}), "there are no such policies")
	for _, without := range []map[string]any{{"mode": "policy", "guard": off}, {"mode": "policy", "failurePolicy": "Ignore"}} {
		faults := guard(newest, without)
		require.NotContains(t, faults, refuses)
		require.Contains(t, faults, "variables.faults.size() == 0", "who cannot be injected must be told")
	}
}

// Webhook, policy and guard are for the same pods.
func TestSamePods(t *testing.T) {
	matches := map[string]admissionregistrationv1.MatchResources{}
	for _, mode := range []string{"webhook", "policy"} {
		files, err := render(t, newest, map[string]any{"injection": map[string]any{
			"mode": mode, "excludedNamespaces": []any{"kube-system", "other"}, "namespaceSelector": map[string]any{
				"matchLabels": map[string]any{"injected": "yes"}, "matchExpressions": []any{map[string]any{"key": "team", "operator": "Exists"}},
			},
		}})
		require.NoError(t, err)
		for _, o := range objects(t, files) {
			switch x := o.typed.(type) {
			case *admissionregistrationv1.MutatingWebhookConfiguration:
				w := x.Webhooks[0]
				m := admissionregistrationv1.MatchResources{NamespaceSelector: w.NamespaceSelector, ObjectSelector: &metav1.LabelSelector{}, MatchPolicy: w.MatchPolicy}
				for _, r := range w.Rules {
					m.ResourceRules = append(m.ResourceRules, admissionregistrationv1.NamedRuleWithOperations{RuleWithOperations: r})
				}
				require.Nil(t, w.ObjectSelector)
				matches[o.kind] = m
			case *admissionregistrationv1.MutatingAdmissionPolicy:
				matches[o.kind] = *x.Spec.MatchConstraints
			case *admissionregistrationv1.ValidatingAdmissionPolicy:
				matches[o.kind] = *x.Spec.MatchConstraints
			}
		}
	}
	require.Len(t, matches, 3)
	want := matches["MutatingWebhookConfiguration"]
	require.Equal(t, map[string]string{"injected": "yes"}, want.NamespaceSelector.MatchLabels)
	require.Len(t, want.NamespaceSelector.MatchExpressions, 2)
	require.Equal(t, want, matches["MutatingAdmissionPolicy"])
	require.Equal(t, want, matches["ValidatingAdmissionPolicy"])
}

// A Job cannot be changed: a revision with another pod has another name.
func TestStreamJobName(t *testing.T) {
	name := func(v map[string]any) string {
		files, err := render(t, newest, map[string]any{"stream": v})
		require.NoError(t, err)
		all := objects(t, map[string]string{"stream.yaml": files["stream.yaml"]})
		require.Len(t, all, 1)
		return all[0].meta.GetName()
	}
	require.Equal(t, name(map[string]any{}), name(map[string]any{"retries": 3}))
	require.NotEqual(t, name(map[string]any{}), name(map[string]any{"replicas": 3}))
}

// TestSchema: a value that is not known, or is not what it may be, is refused by
// its name.
func TestSchema(t *testing.T) {
	for text, says := range map[string][]string{
		"replicaz: 1":                                       {"replicaz"},
		"sidecar: {memroy: 1Gi}":                            {"/sidecar", "memroy"},
		"sidecar: {memory: lots}":                           {"/sidecar/memory"},
		"sidecar: {memory: 16Mi}":                           {"/sidecar/memory", "at_least_32Mi"},
		"sidecar: {nats: {url: x}}":                         {"/sidecar/nats/url"},
		"sidecar: {nats: {url: 'http://x:4222'}}":           {"/sidecar/nats/url", "nats|tls"},
		"sidecar: {nats: {url: 'nats://x,http://y'}}":       {"/sidecar/nats/url"},
		"stream: {nats: {url: 'x:4222'}}":                   {"/stream/nats/url"},
		"sidecar: {nats: {urls: x}}":                        {"/sidecar/nats", "urls"},
		"sidecar: {admin: {port: 70000}}":                   {"/sidecar/admin/port"},
		"sidecar: {domain: Shop}":                           {"/sidecar/domain"},
		"injection: {mode: magic}":                          {"/injection/mode"},
		"injector: {replicas: 0}":                           {"/injector/replicas"},
		"injector: {replicas: two}":                         {"/injector/replicas"},
		"injector: {resources: {limit: {}}}":                {"/injector/resources", "limit"},
		"nats: {bundled: {replicas: 2}}":                    {"/nats/bundled/replicas"},
		"image: {digest: abc}":                              {"/image/digest"},
		"imagePullSecrets: [registry]":                      {"/imagePullSecrets/0"},
		"policies: {config: {namespace: {}}}":               {"/policies/config", "namespace"},
		"policies: {config: {defaults: {tll: 1m}}}":         {"/policies/config/defaults", "tll"},
		"policies: {config: {namespaces: {a: {ttl: ten}}}}": {"/policies/config/namespaces/a/ttl"},
		"metrics: {serviceMonitor: {enabled: true}}":        {"/metrics", "serviceMonitor"},
		"stream: {maxAge: 1 hour}":                          {"/stream/maxAge"},
	} {
		v, err := chartutil.ReadValues([]byte(text))
		require.NoError(t, err)
		_, err = render(t, newest, v)
		require.Error(t, err, text)
		for _, word := range says {
			require.ErrorContains(t, err, word, text)
		}
	}
}

// TestLint is "helm lint --strict".
func TestLint(t *testing.T) {
	for _, name := range cases(t) {
		for _, c := range clustersOf(t, name) {
			lint := action.NewLint()
			lint.Strict, lint.Namespace, lint.KubeVersion = true, namespace, &c.capabilities(t).KubeVersion
			result := lint.Run([]string{chartDir}, values(t, name))
			require.Empty(t, result.Errors, "%s on %s", name, c.version)
			for _, m := range result.Messages {
				require.Contains(t, m.Err.Error(), "icon is recommended", "%s on %s", name, c.version)
			}
		}
	}
}

// The bundled servers take their configuration, and form a cluster where they are
// three.
func TestNATSConfiguration(t *testing.T) {
	t.Setenv("POD_NAME", "nearside-nats-0")
	for name, servers := range map[string]int{"bundled": 1, "bundled_cluster": 3} {
		files, err := render(t, newest, values(t, name))
		require.NoError(t, err)
		for _, o := range objects(t, map[string]string{"nats.yaml": files["nats.yaml"]}) {
			config, ok := o.typed.(*corev1.ConfigMap)
			if !ok {
				continue
			}
			file := filepath.Join(t.TempDir(), "nats.conf")
			require.NoError(t, os.WriteFile(file, []byte(config.Data["nats.conf"]), 0o600))
			options, err := server.ProcessConfigFile(file)
			require.NoError(t, err)
			require.Equal(t, "nearside-nats-0", options.ServerName)
			require.True(t, options.JetStream)
			require.Equal(t, "/data", options.StoreDir)
			if servers > 1 {
				require.Len(t, options.Routes, servers)
				require.Equal(t, int64(256<<20), options.JetStreamMaxStore, "half of 512Mi")
			} else {
				require.Empty(t, options.Routes)
				require.Equal(t, int64(512<<20), options.JetStreamMaxStore, "half of 1Gi")
			}
		}
	}
}

// Every example of values in the documents is good.
func TestExamples(t *testing.T) {
	fenced := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")
	another := regexp.MustCompile(`(?m)^(apiVersion|ignoreDifferences):|type: ContainerResource`) // Kubernetes, Argo CD
	found := 0
	for _, page := range []string{"../../docs/kubernetes/install.md", "../../docs/kubernetes/production.md", "../../docs/kubernetes/values.md", "../nearside/README.md"} {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, block := range fenced.FindAllStringSubmatch(string(text), -1) {
			if another.MatchString(block[1]) {
				continue
			}
			found++
			v, err := chartutil.ReadValues([]byte(block[1]))
			require.NoError(t, err, block[1])
			files, err := render(t, newest, v)
			require.NoError(t, err, block[1])
			require.NotEmpty(t, objects(t, files))
		}
	}
	require.NotZero(t, found)
}
