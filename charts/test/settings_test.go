package charts_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/nearside-cache/nearside/kube/inject"
)

// What the chart renders, the injection reads: no value is unknown to it, and no
// setting is missing from the values.
func TestSettingsAreRead(t *testing.T) {
	each(t, func(t *testing.T, name string, _ cluster, files map[string]string) {
		for _, o := range objects(t, files) {
			config, ok := o.typed.(*corev1.ConfigMap)
			if !ok || o.file != "settings.yaml" {
				continue
			}
			s, err := inject.ReadSettings([]byte(config.Data["settings.yaml"]))
			require.NoError(t, err)
			if name == "defaults" {
				want := inject.Defaults()
				want.Image.Tag = "v0.1.0"
				require.Equal(t, want, s)
			}
		}
	})
}
