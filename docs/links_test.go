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

// link finds [text](target) and ![text](target), with or without a title.
var link = regexp.MustCompile(`\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)`)

func TestDocuments(t *testing.T) {
	walk(t, ".md", func(path string) {
		text, err := os.ReadFile(filepath.Join("..", path))
		require.NoError(t, err)
		for _, fault := range faults(path, string(text), exists) {
			t.Error(fault)
		}
	})
}

func exists(path string) bool {
	_, err := os.Stat(filepath.Join("..", path))
	return err == nil
}

// faults returns the relative links of a document that lead nowhere, and the
// fences that are not closed. path is inside the repository.
func faults(path, text string, exists func(string) bool) []string {
	var found []string
	fence, opened := "", 0
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		marker := trimmed[:len(trimmed)-len(strings.TrimLeft(trimmed, "`"))]
		switch {
		case fence != "":
			if trimmed == marker && len(marker) >= len(fence) {
				fence = ""
			}
		case len(marker) >= 3:
			fence, opened = marker, i+1
		default:
			for _, target := range targets(line) {
				if to := resolve(path, target); to != "" && !exists(to) {
					found = append(found, fmt.Sprintf("%s:%d: the link to %s leads nowhere", path, i+1, target))
				}
			}
		}
	}
	if fence != "" {
		found = append(found, fmt.Sprintf("%s:%d: the fence is never closed: the rest of the document becomes code", path, opened))
	}
	return found
}

// targets returns where the links in a line lead, those in code left out.
func targets(line string) []string {
	parts := strings.Split(line, "`")
	var all []string
	for i, part := range parts {
		if i%2 == 1 && i < len(parts)-1 {
			parts[i] = strings.Repeat("x", len(part))
		}
	}
	for _, m := range link.FindAllStringSubmatch(strings.Join(parts, "`"), -1) {
		all = append(all, m[1])
	}
	return all
}

// resolve returns the path inside the repository that a link leads to, or ""
// if it leads to another site or within its own document.
func resolve(path, target string) string {
	target, _, _ = strings.Cut(target, "#")
	if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return ""
	}
	if strings.HasPrefix(target, "/") {
		return filepath.Clean(target[1:])
	}
	return filepath.Join(filepath.Dir(path), target)
}

func TestDocumentChecksCatch(t *testing.T) {
	there := func(path string) bool { return path == "docs/a.md" }
	for _, good := range []string{
		"[a](a.md)", "[a](../docs/a.md#x)", "[a](/docs/a.md \"title\")", "[a](#x)", "[a](https://example.com/x)",
		"`[a](none.md)`", "```\n[a](none.md)\n```", "```mermaid\ngraph LR\n```\n[a](a.md)", "````\n```\n````",
	} {
		require.Empty(t, faults("docs/b.md", good, there), good)
	}
	for _, bad := range []string{
		"[a](none.md)", "![a](none.png)", "[a](a.md) [b](b.md)", "[a](<none.md>)", "`x` [a](none.md) `y`",
		"```mermaid\ngraph LR\n", "````\n```\n", "```\n```\n[a](none.md)",
	} {
		require.Len(t, faults("docs/b.md", bad, there), 1, bad)
	}
}
