package nearside_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the documentation shows is what the tests run.
func TestDocumentedCodeIsRun(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/sdk-go.md")
	require.NoError(t, err)
	examples, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(doc, -1)
	require.Greater(t, len(blocks), 5)
	for _, b := range blocks {
		require.Contains(t, string(examples), string(b[1]))
	}
}
