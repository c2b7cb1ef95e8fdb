package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// snippet finds a fence that says which tested file its code is from.
var snippet = regexp.MustCompile("(?s)<!-- snippet: (\\S+) -->\n```\\w+\n(.*?)```\n")

// region finds the lines of a file between its markers.
var region = regexp.MustCompile(`(?s)\n(?://|#) begin cache-aside\n(.*?)\n*(?://|#) end cache-aside\n`)

// What readers copy is what is tested.
func TestSnippetsAreTheTestedCode(t *testing.T) {
	page, err := os.ReadFile("clients.md")
	require.NoError(t, err)
	found := snippet.FindAllStringSubmatch(string(page), -1)
	require.Len(t, found, strings.Count(string(page), "<!-- snippet: "), "a snippet's marker stands right above its fence")
	require.NotEmpty(t, found)
	for _, m := range found {
		source, err := os.ReadFile(filepath.Join("..", m[1]))
		require.NoError(t, err)
		code, err := cut(string(source))
		require.NoError(t, err, m[1])
		require.Equal(t, code, m[2], "docs/clients.md shows other code than %s", m[1])
	}
}

// cut returns the marked lines of a source file.
func cut(source string) (string, error) {
	m := region.FindAllStringSubmatch(source, -1)
	if len(m) != 1 {
		return "", fmt.Errorf("%d regions between \"begin cache-aside\" and \"end cache-aside\", want 1", len(m))
	}
	return m[0][1] + "\n", nil
}

func TestCut(t *testing.T) {
	for source, want := range map[string]string{
		"a\n# begin cache-aside\nb\n\nc\n# end cache-aside\nd\n":    "b\n\nc\n",
		"a\n// begin cache-aside\nb\n\n// end cache-aside\nd\n":     "b\n",
		"a\n# begin cache-aside\nb\n":                               "",
		"a\nb\n":                                                    "",
		"\n# begin cache-aside\nb\n# end cache-aside\n# begin ca\n": "b\n",
	} {
		got, err := cut(source)
		require.Equal(t, want, got, source)
		require.Equal(t, want == "", err != nil, source)
	}
}

// The table names the versions that are pinned.
func TestClientVersionsAreThePinnedOnes(t *testing.T) {
	page, err := os.ReadFile("clients.md")
	require.NoError(t, err)
	for _, pin := range []struct{ client, file, version string }{
		{"redis-py", "redis-py/requirements.txt", `(?m)^redis==(\S+)$`},
		{"redis-py asyncio", "redis-py/requirements.txt", `(?m)^redis==(\S+)$`},
		{"node-redis", "node/package.json", `"redis": "([^"]+)"`},
		{"ioredis", "node/package.json", `"ioredis": "([^"]+)"`},
		{"go-redis", "go-redis/go.mod", `redis/go-redis/v9 v(\S+)`},
	} {
		file, err := os.ReadFile(filepath.Join("examples", "clients", pin.file))
		require.NoError(t, err)
		m := regexp.MustCompile(pin.version).FindSubmatch(file)
		require.NotNil(t, m, "no version of %s in %s", pin.client, pin.file)
		require.Regexp(t, fmt.Sprintf(`(?m)^\| \[%s\]\([^)]*\) \| %s \|`, pin.client, regexp.QuoteMeta(string(m[1]))), string(page))
	}
}
