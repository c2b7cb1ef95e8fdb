package equal

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/nearside-cache/nearside/kube/inject"
	"github.com/nearside-cache/nearside/kube/inject/manifest"
)

// TestFilter puts each example into a workload, as YAML and as JSON, and has the
// filter inject it there.
func TestFilter(t *testing.T) {
	each(t, "v1.2.3", func(t *testing.T, e example) {
		pod, refusal := e.byGo(t)
		template := asMap(t, &e.pod)
		delete(template, "status")
		job := map[string]any{"apiVersion": "batch/v1", "kind": "Job", "metadata": map[string]any{"name": "shop"}, "spec": map[string]any{"template": template}}
		for name, marshal := range map[string]func(any) ([]byte, error){"yaml": yaml.Marshal, "json": json.Marshal} {
			text, err := marshal(job)
			require.NoError(t, err)
			out, err := manifest.Edit(text, func(p manifest.Pod) (bool, error) { return e.settings.Inject(p.Pod) })
			if refusal != "" {
				var fault *inject.Error
				require.True(t, errors.As(err, &fault), name)
				require.Equal(t, refusal, fault.Error(), name)
				continue
			}
			require.NoError(t, err, name)
			var got struct {
				Spec struct{ Template corev1.Pod }
			}
			require.NoError(t, yaml.Unmarshal(out, &got), name)
			require.Equal(t, pod, canonical(t, &got.Spec.Template), name)
		}
	})
}
