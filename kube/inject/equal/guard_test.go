package equal

import (
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/nearside-cache/nearside/kube/inject"
)

// guarded is what a pod is told that nothing has injected.
const guarded = "nothing has injected one"

// first is the oldest Kubernetes that can have a guard. It has no policies that
// mutate.
const first = "v1.30.0"

// TestGuard: where the webhook injects, what it has injected passes, and a pod that
// asks and that nothing has injected is refused, whatever is wrong with it.
func TestGuard(t *testing.T) {
	guard := renderedPolicies(t, first, "webhook", map[string]any{}, release).refuser(t)
	each(t, release, func(t *testing.T, e example) {
		asks := e.pod.Annotations != nil
		bare := canonical(t, &e.pod)
		pod, fault := e.byGo(t)
		if asks && (fault != "" || pod != bare) {
			require.Contains(t, refusal(t, guard, &e.pod), guarded)
		} else {
			require.Empty(t, refusal(t, guard, &e.pod))
		}
		if fault == "" {
			require.Empty(t, refusal(t, guard, read(t, []byte(pod))))
		}
	})
}

// Marks alone are no sidecar, and a container alone is none of ours.
func TestGuardLooksAtContainers(t *testing.T) {
	guard := renderedPolicies(t, first, "webhook", map[string]any{}, release).refuser(t)
	for text, passes := range map[string]bool{
		"metadata: {labels: {nearside.dev/injected: 'true'}, annotations: {nearside.dev/inject: 'true', nearside.dev/status: '{}'}}\nspec: {containers: [{name: app}]}":       false,
		"metadata: {annotations: {nearside.dev/inject: 'true'}}\nspec: {containers: [{name: nearside}]}":                                                                      false,
		"metadata: {annotations: {nearside.dev/inject: 'true', nearside.dev/status: '{}'}}\nspec: {containers: [{name: nearside}]}":                                           true,
		"metadata: {annotations: {nearside.dev/inject: 'true', nearside.dev/status: '{}'}}\nspec: {initContainers: [{name: x}, {name: nearside}], containers: [{name: app}]}": true,
	} {
		require.Equal(t, passes, refusal(t, guard, read(t, []byte(text))) == "", text)
	}
}

// The API server of the oldest version takes every expression of the guard: it has
// fewer functions than the one of these tests.
func TestGuardIsOfItsVersion(t *testing.T) {
	v := renderedPolicies(t, first, "webhook", map[string]any{}, release).validating.Spec
	c, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(version.MustParseGeneric(first)))
	require.NoError(t, err)
	options := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	var all []cel.ExpressionAccessor
	for _, m := range v.MatchConditions {
		all = append(all, (*matchconditions.MatchCondition)(&m))
	}
	for _, x := range v.Variables {
		result := c.CompileAndStoreVariable(&validating.Variable{Name: x.Name, Expression: x.Expression}, options, environment.NewExpressions)
		require.Nil(t, result.Error, x.Name)
	}
	for _, x := range v.Validations {
		all = append(all, &matchconditions.MatchCondition{Expression: x.Expression})
	}
	for _, e := range all {
		require.Nil(t, c.CompileCELExpression(e, options, environment.NewExpressions).Error, e.GetExpression())
	}
}

// TestMatch: what the policy injects the guard looks at, what the guard looks at
// the webhook sees, and the guard looks at no pod that may do without.
func TestMatch(t *testing.T) {
	p, w := policiesOf(t, example{given: map[string]any{}}, release), renderedPolicies(t, current, "webhook", map[string]any{}, release)
	require.Equal(t, p.validating, w.validating, "a change of modes would touch the guard")
	match := func(conditions []admissionv1.MatchCondition) func(*corev1.Pod) bool {
		options := cel.OptionalVariableDeclarations{HasAuthorizer: true}
		m := matcher(compiler(t, nil, options), conditions, options)
		return func(pod *corev1.Pod) bool {
			result := m.Match(t.Context(), creation(t, pod).attributes, nil, nil)
			require.NoError(t, result.Error)
			return result.Matches
		}
	}
	policy, guard, webhook := match(p.mutating.Spec.MatchConditions), match(p.validating.Spec.MatchConditions), match(w.webhook.Webhooks[0].MatchConditions)
	compare := func(pod *corev1.Pod) {
		wanted, err := inject.Defaults().Wanted(pod.ObjectMeta)
		require.Equal(t, wanted, policy(pod), pod.Annotations)
		require.Equal(t, wanted || err != nil, guard(pod), pod.Annotations)
		if guard(pod) {
			require.True(t, webhook(pod), pod.Annotations)
		}
	}
	for _, e := range examples(t, release) {
		compare(&e.pod)
	}
	for _, wish := range []string{"true", "false", "", "True", "yes", " "} {
		compare(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{inject.AnnotationInject: wish}}})
	}
	compare(&corev1.Pod{})
}
