package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
)

// docs/configuration.md is made of the schema.
func TestConfigurationReference(t *testing.T) {
	s := generate(t)
	var b strings.Builder
	b.WriteString(configurationHead)
	b.WriteString("\n## Settings\n\n| key | default | what it says |\n|---|---|---|\n")
	policies := []string{"fill_window", "defaults", "namespaces"}
	for _, key := range s.PropertyOrder {
		if !slices.Contains(policies, key) {
			row(&b, key, s.Properties[key])
		}
	}
	b.WriteString(policiesHead)
	for _, key := range policies {
		row(&b, key, s.Properties[key])
	}
	b.WriteString("\n### The policy of a namespace\n\n| key | default | what it says |\n|---|---|---|\n")
	rows(&b, "", s.Properties["defaults"])
	golden(t, filepath.Join("..", "..", "docs", "configuration.md"), b.String())
}

const configurationHead = `# Configuration

Written by ` + "`go test ./cmd/nearside -run 'TestSchema|TestConfigurationReference' -update`" + ` from
the flags and the types that the binary reads; a test compares it. The same, for editors
and for CI, is [config.schema.json](config.schema.json), a JSON Schema: put
` + "`# yaml-language-server: $schema=https://raw.githubusercontent.com/nearside-cache/nearside/main/docs/config.schema.json`" + `
into the first line of the file, or write the schema of your binary with
` + "`nearside config schema`" + `.

` + "`nearside serve --config FILE`" + ` reads the file. Each setting is a flag too (` + "`--max-value`" + ` for
` + "`max_value`" + `) and a variable (` + "`NEARSIDE_MAX_VALUE`" + `); the flag prevails, then the variable, then
the file. Unknown keys, keys given twice and bad values are faults, and a file with one is
refused whole. SIGHUP and a change of the file read the policies anew, and everything else
at the next start.

| command | tells |
|---|---|
| ` + "`nearside config validate FILE`" + ` | every fault, with its line |
| ` + "`nearside config show --origin`" + ` | what is in effect, and where each setting was given |
| ` + "`nearside config explain product:42`" + ` | which policy applies to a key and what it does, in words |
| ` + "`nearside config example`" + ` | a file with every setting and its default |

` + "```yaml" + `
memory: 256MiB
defaults:
  ttl: 10m
  wide_purges: {per_minute: 6, burst: 2}
namespaces:
  product:
    ttl: 1h
    soft_ttl: 5m
    stale_while_revalidate: 10s
  session:
    class: critical
    sensitive: true
  order:
    tenant: 1
    purge: {prefix: allow}
` + "```" + `
`

const policiesHead = `
## Policies

A duration is written as 30s, 10m or 1h30m, a size as 64KiB or 65536.

| key | default | what it says |
|---|---|---|
`

func rows(b *strings.Builder, path string, of *jsonschema.Schema) {
	for _, key := range of.PropertyOrder {
		child := of.Properties[key]
		row(b, path+key, child)
		if child.Properties != nil {
			rows(b, path+key+".", child)
		}
	}
}

func row(b *strings.Builder, key string, s *jsonschema.Schema) {
	initial := ""
	if s.Default != nil {
		initial = "`" + strings.Trim(string(s.Default), `"`) + "`"
		if initial == "``" {
			initial = ""
		}
	}
	text := strings.ReplaceAll(s.Description, "|", `\|`)
	if len(s.Enum) > 0 {
		var all []string
		for _, w := range s.Enum {
			all = append(all, fmt.Sprintf("`%v`", w))
		}
		text += " (" + strings.Join(all, ", ") + ")"
	}
	fmt.Fprintf(b, "| `%s` | %s | %s |\n", key, initial, text)
}
