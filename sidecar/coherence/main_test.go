package coherence_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// TestMain makes the random model run more histories than rapid's default,
// unless the command line says how many.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "3000"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
