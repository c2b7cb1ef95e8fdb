package natsbus_test

import (
	"testing"

	"github.com/nearside-cache/nearside/bus/bustest"
)

func TestConformance(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Harness { return newHarness(t) })
}
