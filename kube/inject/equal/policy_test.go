package equal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// policies are those of the chart, as the API server has them, and its webhook.
type policies struct {
	mutating          admissionv1.MutatingAdmissionPolicy
	mutatingBinding   admissionv1.MutatingAdmissionPolicyBinding
	validating        admissionv1.ValidatingAdmissionPolicy
	validatingBinding admissionv1.ValidatingAdmissionPolicyBinding
	webhook           admissionv1.MutatingWebhookConfiguration
}

// policiesOf renders the chart, of a version, with the settings of an example.
func policiesOf(t *testing.T, e example, version string) policies {
	p := renderedPolicies(t, current, "policy", e.given, version)
	require.Equal(t, p.mutating.Name, p.mutatingBinding.Spec.PolicyName)
	require.NotEmpty(t, p.mutating.Spec.Mutations)
	return p
}

// renderedPolicies renders the chart for a version of Kubernetes.
func renderedPolicies(t *testing.T, kubernetes, mode string, settings map[string]any, version string) policies {
	c, err := loader.LoadDir(filepath.Join(chartsDir, "nearside"))
	require.NoError(t, err)
	c.Metadata.AppVersion = version
	// The other templates are the chart's own business.
	c.Templates = slices.DeleteFunc(c.Templates, func(f *chart.File) bool {
		name := filepath.Base(f.Name)
		return name != "_helpers.tpl" && name != "injector-webhook.yaml" && !strings.HasPrefix(strings.TrimPrefix(name, "_"), "injection")
	})
	out, err := render(t, c, kubernetes, map[string]any{
		"sidecar":   settings,
		"injection": map[string]any{"mode": mode},
	})
	require.NoError(t, err)
	var p policies
	for _, file := range []string{"injection-policy", "injection-guard", "injector-webhook"} {
		p.read(t, out["nearside/templates/"+file+".yaml"])
	}
	require.Equal(t, p.validating.Name, p.validatingBinding.Spec.PolicyName)
	require.Equal(t, []admissionv1.ValidationAction{admissionv1.Deny}, p.validatingBinding.Spec.ValidationActions)
	require.NotEmpty(t, p.validating.Spec.Validations)
	return p
}

// read takes what a file of the chart holds.
func (p *policies) read(t *testing.T, file string) {
	documents := utilyaml.NewYAMLReader(newReader(file))
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		if len(bytes.TrimSpace(text)) == 0 {
			continue // of the other mode
		}
		var kind metav1.TypeMeta
		require.NoError(t, yaml.Unmarshal(text, &kind))
		into := map[string]any{
			"MutatingAdmissionPolicy":          &p.mutating,
			"MutatingAdmissionPolicyBinding":   &p.mutatingBinding,
			"ValidatingAdmissionPolicy":        &p.validating,
			"ValidatingAdmissionPolicyBinding": &p.validatingBinding,
			"MutatingWebhookConfiguration":     &p.webhook,
		}[kind.Kind]
		require.NotNil(t, into, "%s", text)
		require.NoError(t, yaml.UnmarshalStrict(text, into), "%s", text)
	}
}

// request is the creation of a pod as admission sees it.
type request struct {
	resource   schema.GroupVersionResource
	attributes *admission.VersionedAttributes
	scheme     *runtime.Scheme
}

func creation(t *testing.T, pod *corev1.Pod) request {
	scheme := runtime.NewScheme()
	require.NoError(t, corev1.AddToScheme(scheme))
	resource := corev1.SchemeGroupVersion.WithResource("pods")
	kind := corev1.SchemeGroupVersion.WithKind("Pod")
	pod.SetGroupVersionKind(kind)
	a := admission.NewAttributesRecord(pod, nil, kind, "shop", pod.Name, resource, "", admission.Create, &metav1.CreateOptions{}, false, nil)
	return request{resource, &admission.VersionedAttributes{Attributes: a, VersionedKind: kind, VersionedObject: pod}, scheme}
}

// evaluators are the compiled policies.
type evaluators struct {
	asks    matchconditions.Matcher // of the policy that mutates
	patcher patch.Patcher
	context func(context.Context) cel.CompositionContext
	refuser validating.Validator
}

// compile does what the API server does when it gets the policies.
func (p policies) compile(t *testing.T) evaluators {
	options := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	m := p.mutating.Spec
	c := compiler(t, m.Variables, options)
	withPatches := options
	withPatches.HasPatchTypes = true
	require.Len(t, m.Mutations, 1)
	mutation := c.CompileMutatingEvaluator(&patch.JSONPatchCondition{Expression: m.Mutations[0].JSONPatch.Expression}, withPatches, environment.StoredExpressions)
	return evaluators{matcher(c, m.MatchConditions, options), patch.NewJSONPatcher(mutation), c.CreateContext, p.refuser(t)}
}

// refuser compiles the policy that validates.
func (p policies) refuser(t *testing.T) validating.Validator {
	options := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	v := p.validating.Spec
	c := compiler(t, v.Variables, options)
	var expressions, messages []cel.ExpressionAccessor
	for _, v := range v.Validations {
		expressions = append(expressions, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
		var message cel.ExpressionAccessor
		if v.MessageExpression != "" {
			message = &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}
		}
		messages = append(messages, message)
	}
	of := func(e []cel.ExpressionAccessor) cel.ConditionEvaluator {
		return c.CompileCondition(e, cel.OptionalVariableDeclarations{}, environment.StoredExpressions)
	}
	return validating.NewValidator(of(expressions), matcher(c, v.MatchConditions, options), of(nil), of(messages), v.FailurePolicy, nil)
}

// compiler knows the variables of a policy.
func compiler(t *testing.T, variables []admissionv1.Variable, options cel.OptionalVariableDeclarations) *cel.CompositedCompiler {
	c, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	require.NoError(t, err)
	for _, v := range variables {
		result := c.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, options, environment.StoredExpressions)
		require.Nil(t, result.Error, "variable %s: %s", v.Name, v.Expression)
	}
	return c
}

func matcher(c *cel.CompositedCompiler, conditions []admissionv1.MatchCondition, options cel.OptionalVariableDeclarations) matchconditions.Matcher {
	fail := admissionv1.Fail
	var expressions []cel.ExpressionAccessor
	for _, m := range conditions {
		expressions = append(expressions, (*matchconditions.MatchCondition)(&m))
	}
	return matchconditions.NewMatcher(c.CompileCondition(expressions, options, environment.StoredExpressions), &fail, "policy", "validate", "nearside")
}

// mutate does what the API server does with a MutatingAdmissionPolicy.
func (e evaluators) mutate(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	r := creation(t, pod)
	asks := e.asks.Match(t.Context(), r.attributes, nil, nil)
	require.NoError(t, asks.Error)
	if !asks.Matches {
		return pod
	}
	patched, err := e.patcher.Patch(e.context(t.Context()), patch.Request{
		MatchedResource:     r.resource,
		VersionedAttributes: r.attributes,
		ObjectInterfaces:    admission.NewObjectInterfacesFromScheme(r.scheme),
	}, celconfig.RuntimeCELCostBudget)
	require.NoError(t, err)
	return patched.(*corev1.Pod)
}

// refusal does what the API server does with a ValidatingAdmissionPolicy: it
// returns the first message, empty for a pod that passes.
func (e evaluators) refusal(t *testing.T, pod *corev1.Pod) string { return refusal(t, e.refuser, pod) }

func refusal(t *testing.T, by validating.Validator, pod *corev1.Pod) string {
	r := creation(t, pod)
	for _, d := range by.Validate(t.Context(), r.resource, r.attributes, nil, nil, celconfig.RuntimeCELCostBudget, nil).Decisions {
		require.NotEqual(t, validating.EvalError, d.Evaluation, d.Message)
		if d.Action == validating.ActionDeny {
			return d.Message
		}
	}
	return ""
}

// release is the version of the chart in the tests.
const release = "v1.2.3"

func TestPolicy(t *testing.T) {
	bySettings := make(map[string]evaluators)
	each(t, release, func(t *testing.T, e example) {
		if e.kubernetes != current {
			return // a cluster of that version has no such policies
		}
		if e.pod.Annotations == nil {
			return // it does not ask, and policies inject nobody else
		}
		settings, err := json.Marshal(e.given)
		require.NoError(t, err)
		p, known := bySettings[string(settings)]
		if !known {
			p = policiesOf(t, e, release).compile(t)
			bySettings[string(settings)] = p
		}
		pod, refusal := e.byGo(t)
		if refusal == "" && pod != canonical(t, &e.pod) {
			require.Contains(t, p.refusal(t, &e.pod), guarded, "nothing has injected it")
		}
		got := p.mutate(t, e.pod.DeepCopy())
		require.Equal(t, refusal, p.refusal(t, got))
		if refusal != "" {
			require.Equal(t, canonical(t, &e.pod), canonical(t, got), "a pod that is refused was changed")
			return
		}
		require.Equal(t, pod, canonical(t, got))
		require.Equal(t, pod, canonical(t, p.mutate(t, got)), "the second time changed something")
	})
}

// Pods that do not ask are left alone, and words that are neither are refused.
func TestPolicyWish(t *testing.T) {
	p := policiesOf(t, example{given: map[string]any{}}, release).compile(t)
	for wish, want := range map[string]string{
		"{}":                             "",
		"{nearside.dev/inject: 'false'}": "",
		"{nearside.dev/inject: ''}":      "",
		"{nearside.dev/memory: lots}":    "",
		"{nearside.dev/inject: 'yes'}":   `annotation nearside.dev/inject is "yes": want true or false`,
		"{nearside.dev/inject: 'True', nearside.dev/memory: lots}": `annotation nearside.dev/inject is "True": want true or false`,
	} {
		pod := read(t, []byte("metadata: {annotations: "+wish+"}\nspec: {containers: [{name: app}]}"))
		before := canonical(t, pod)
		require.Equal(t, before, canonical(t, p.mutate(t, pod)), wish)
		require.Equal(t, want, p.refusal(t, pod), wish)
	}
}

func newReader(text string) *bufio.Reader { return bufio.NewReader(bytes.NewReader([]byte(text))) }
