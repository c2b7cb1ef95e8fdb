// Package charts_test makes the documents of the charts from their values, and
// holds what they say of the program to it.
package charts_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the schema and the README anew")

// A value's comment holds what it is for, behind "--", and what it may be, behind
// "@schema", in the words of JSON Schema.
const (
	aboutMark  = "-- "
	schemaMark = "@schema "
)

// value is one value of a chart. Those with children are the folders of the tree.
type value struct {
	path     []string
	about    string         // what it is for
	schema   map[string]any // what it may be, as far as its comment says
	node     *yaml.Node
	children []*value
}

func (v *value) name() string { return strings.Join(v.path, ".") }

// TestReference compares the schema and the tables of the README with the
// comments of the values.
func TestReference(t *testing.T) {
	root := readValues(t, filepath.Join("nearside", "values.yaml"))
	compare(t, filepath.Join("nearside", "values.schema.json"), func([]byte) []byte { return schemaOf(t, root) })
	compare(t, filepath.Join("nearside", "README.md"), func(former []byte) []byte {
		return between(t, former, tables(t, root))
	})
}

func compare(t *testing.T, path string, want func(former []byte) []byte) {
	former, err := os.ReadFile(path)
	if !*update {
		require.NoError(t, err)
	}
	now := want(former)
	if *update {
		require.NoError(t, os.WriteFile(path, now, 0o644))
		return
	}
	require.Equal(t, string(former), string(now), "%s is not what values.yaml says: run go test ./charts -update", path)
}

// between replaces what stands between the marks of a README.
func between(t *testing.T, text []byte, table string) []byte {
	const from, to = "<!-- values -->\n", "<!-- /values -->"
	head, rest, ok := strings.Cut(string(text), from)
	require.True(t, ok, "no %s", from)
	_, tail, ok := strings.Cut(rest, to)
	require.True(t, ok, "no %s", to)
	return []byte(head + from + table + to + tail)
}

func readValues(t *testing.T, path string) *value {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var doc yaml.Node
	require.NoError(t, yaml.Unmarshal(data, &doc))
	root := &value{node: doc.Content[0], schema: map[string]any{}}
	root.read(t)
	return root
}

// read reads the children of v, unless its comment says what it holds.
func (v *value) read(t *testing.T) {
	isTree := v.node.Kind == yaml.MappingNode && len(v.node.Content) > 0
	if _, opaque := v.schema["$ref"]; opaque || v.schema["additionalProperties"] != nil || !isTree {
		require.NotEmpty(t, v.about, "%s says nowhere what it is for: give it a comment that begins with --", v.name())
		return
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := v.node.Content[i]
		child := &value{path: append(slices.Clone(v.path), key.Value), node: v.node.Content[i+1]}
		child.about, child.schema = parseComment(t, child.name(), key.HeadComment)
		child.read(t)
		v.children = append(v.children, child)
	}
}

// parseComment reads the comment above a value. Only the last paragraph is its own.
func parseComment(t *testing.T, name, comment string) (about string, schema map[string]any) {
	paragraphs := strings.Split(comment, "\n\n")
	var words []string
	schema = map[string]any{}
	for line := range strings.SplitSeq(paragraphs[len(paragraphs)-1], "\n") {
		line = strings.TrimSpace(strings.TrimPrefix(line, "#"))
		if text, ok := strings.CutPrefix(line, schemaMark); ok {
			require.NoError(t, yaml.Unmarshal([]byte("{"+text+"}"), &schema), "%s: %s", name, line)
			continue
		}
		if text, ok := strings.CutPrefix(line, aboutMark); ok {
			words = []string{text}
		} else if len(words) > 0 {
			words = append(words, line)
		}
	}
	return strings.Join(words, " "), schema
}

// tables writes a table for each top value that has others below, and one for the
// rest.
func tables(t *testing.T, root *value) string {
	var single, b strings.Builder
	for _, v := range root.children {
		if len(v.children) == 0 {
			row(t, &single, v)
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s", v.name(), tableHead)
		leaves(v, func(leaf *value) { row(t, &b, leaf) })
	}
	return tableHead + single.String() + b.String()
}

const tableHead = "| value | default | what it says |\n|---|---|---|\n"

func leaves(v *value, visit func(*value)) {
	if len(v.children) == 0 {
		visit(v)
	}
	for _, child := range v.children {
		leaves(child, visit)
	}
}

func row(t *testing.T, b *strings.Builder, v *value) {
	about := v.about
	if allowed, ok := v.schema["enum"].([]any); ok {
		words := make([]string, len(allowed))
		for i, word := range allowed {
			words[i] = fmt.Sprintf("`%v`", word)
		}
		about += " (" + strings.Join(words, ", ") + ")"
	}
	var standard any
	require.NoError(t, v.node.Decode(&standard))
	text, err := json.Marshal(standard)
	require.NoError(t, err)
	fmt.Fprintf(b, "| `%s` | `%s` | %s |\n", v.name(), text, strings.ReplaceAll(about, "|", `\|`))
}

// schemaOf returns the JSON Schema of the values. It is of draft 7, which every
// version of Helm 3 and 4 reads.
func schemaOf(t *testing.T, root *value) []byte {
	schema := describe(t, root)
	schema["$schema"] = "http://json-schema.org/draft-07/schema#"
	schema["title"] = "Values of the chart nearside"
	schema["$defs"] = definitions(t)
	// Helm puts these in for every chart.
	properties := schema["properties"].(map[string]any)
	properties["global"] = map[string]any{"type": "object", "description": "What Helm gives to every chart of a release."}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	require.NoError(t, e.Encode(schema))
	return out.Bytes()
}

func describe(t *testing.T, v *value) map[string]any {
	schema := map[string]any{}
	if v.about != "" {
		schema["description"] = v.about
	}
	if ref, ok := v.schema["$ref"]; ok {
		// Draft 7 reads nothing beside a $ref.
		return map[string]any{"$ref": ref}
	}
	if _, ok := v.schema["enum"]; !ok {
		schema["type"] = kind(t, v)
	}
	for keyword, says := range v.schema {
		schema[keyword] = says
	}
	if len(v.children) > 0 {
		properties := map[string]any{}
		for _, child := range v.children {
			properties[child.path[len(child.path)-1]] = describe(t, child)
		}
		schema["properties"], schema["additionalProperties"] = properties, false
	}
	return schema
}

func kind(t *testing.T, v *value) string {
	switch v.node.ShortTag() {
	case "!!str":
		return "string"
	case "!!int":
		return "integer"
	case "!!bool":
		return "boolean"
	case "!!seq":
		return "array"
	case "!!map":
		return "object"
	default:
		t.Fatalf("%s is %s: want a default of the type that it must have", v.name(), v.node.ShortTag())
		return ""
	}
}

// definitions returns what several values hold, and the policies, which are those
// of the configuration file.
func definitions(t *testing.T) map[string]any {
	quantities := map[string]any{"type": "object", "additionalProperties": map[string]any{"type": []string{"string", "integer", "number"}}}
	var config struct {
		Properties map[string]any `json:"properties"`
		Defs       map[string]any `json:"$defs"`
	}
	data, err := os.ReadFile(filepath.Join("..", "docs", "config.schema.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &config))
	policies := map[string]any{}
	for _, key := range []string{"fill_window", "defaults", "namespaces"} {
		require.Contains(t, config.Properties, key)
		policies[key] = config.Properties[key]
	}
	defs := map[string]any{
		"policies":  map[string]any{"type": "object", "properties": policies, "additionalProperties": false},
		"resources": map[string]any{"type": "object", "properties": map[string]any{"requests": quantities, "limits": quantities}, "additionalProperties": false},
	}
	for name, def := range config.Defs {
		defs[name] = def
	}
	return defs
}
