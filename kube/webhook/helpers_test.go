package webhook_test

import (
	"encoding/json"
	"io"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	kjson "k8s.io/apimachinery/pkg/util/json"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// roundTrip writes a pod as an API server does.
func roundTrip(data []byte) ([]byte, error) {
	var pod corev1.Pod
	if err := kjson.Unmarshal(data, &pod); err != nil {
		return nil, err
	}
	return json.Marshal(&pod)
}

// value is how many admissions ended with a result.
func value(t *testing.T, g prometheus.Gatherer, result string) float64 {
	families, err := g.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "nearside_injector_admissions_total" && l.GetValue() == result {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	t.Fatalf("no metric of the result %s", result)
	return 0
}

func decode(t *testing.T, r io.Reader, v any) { require.NoError(t, json.NewDecoder(r).Decode(v)) }
