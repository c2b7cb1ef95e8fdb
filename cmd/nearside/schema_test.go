package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// schemaFiles hold the same: one is built into the binary, the other is for
// editors and for people.
var schemaFiles = []string{"config.schema.json", filepath.Join("..", "..", "docs", "config.schema.json")}

// docs/config.schema.json is what the flags and the types of policies say.
func TestSchema(t *testing.T) {
	text, err := json.MarshalIndent(generate(t), "", "  ")
	require.NoError(t, err)
	text = append(text, '\n')
	for _, path := range schemaFiles {
		golden(t, path, string(text))
	}
}

// golden compares a file with what it must be, and writes it with -update.
func golden(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got), "%s is not what the code says: run this test with -update", path)
}

// generate returns the schema of a configuration file.
func generate(t *testing.T) *jsonschema.Schema {
	g := generator{comments(t, filepath.Join("..", "..", "sidecar", "policy"))}
	root := object()
	root.Schema = "https://json-schema.org/draft/2020-12/schema"
	root.ID = "https://raw.githubusercontent.com/nearside-cache/nearside/main/docs/config.schema.json"
	root.Title = "The configuration file of nearside serve"
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	flags.SortFlags = false
	new(serveOptions).register(flags)
	flags.VisitAll(func(f *pflag.Flag) {
		if key := settings.Key(f); key != "" {
			putKey(root, key, flagSchema(t, f))
		}
	})
	set := policy.DefaultSet()
	window := g.value(reflect.ValueOf(&set.Window).Elem(), true)
	window.Description = g.docs["Set.Window"].of("fill_window")
	putKey(root, "fill_window", window)
	putKey(root, "defaults", g.value(reflect.ValueOf(&set.Default).Elem(), true))
	root.Properties["defaults"].Description = "The policy of namespaces that have none of their own, and of what the others do not say."
	root.Defs = map[string]*jsonschema.Schema{"namespace": g.value(reflect.ValueOf(&set.Default).Elem(), false)}
	putKey(root, "namespaces", &jsonschema.Schema{
		Types: []string{"object", "null"}, AdditionalProperties: &jsonschema.Schema{Ref: "#/$defs/namespace"},
		Description:   `The policies of namespaces. A namespace is what stands before the first ":" in a key; without one it is "default".`,
		PropertyNames: &jsonschema.Schema{Pattern: "^[^:]{1,256}$"},
	})
	return root
}

// object returns the schema of a map with given keys, or of nothing.
func object() *jsonschema.Schema {
	return &jsonschema.Schema{
		Types: []string{"object", "null"}, Properties: make(map[string]*jsonschema.Schema),
		AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}},
	}
}

func putKey(to *jsonschema.Schema, key string, s *jsonschema.Schema) {
	to.Properties[key] = s
	to.PropertyOrder = append(to.PropertyOrder, key)
}

// Texts of values that YAML has no type for. A number without a unit is 0 for a
// duration, and bytes for a size.
const (
	durationPattern = `^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	sizePattern     = `^[0-9]+(\.[0-9]+)?( ?([kKmMgGtTpP]i?)?[bB]?)$`
)

func duration() *jsonschema.Schema {
	zero := 0.0
	return &jsonschema.Schema{Types: []string{"string", "integer"}, Pattern: durationPattern, Minimum: &zero, Maximum: &zero}
}

func size() *jsonschema.Schema {
	zero := 0.0
	return &jsonschema.Schema{Types: []string{"string", "integer"}, Pattern: sizePattern, Minimum: &zero}
}

func words(all []string) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, w := range all {
		s.Enum = append(s.Enum, w)
	}
	return s
}

// flagSchema returns the schema of a flag's value in a file.
func flagSchema(t *testing.T, f *pflag.Flag) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	var initial any = f.DefValue
	switch f.Value.Type() {
	case "string":
	case "word":
		s = words(settings.Words(f.Value))
	case "int":
		s = &jsonschema.Schema{Type: "integer"}
		initial = json.Number(f.DefValue)
	case "duration":
		s = duration()
		d, err := time.ParseDuration(f.DefValue)
		require.NoError(t, err)
		initial = settings.Duration(d)
	case "size":
		s = size()
	case "mode":
		s = &jsonschema.Schema{Types: []string{"string", "integer"}, Pattern: "^(0o?)?[0-7]{1,4}$"}
	case "uids":
		s = &jsonschema.Schema{Types: []string{"string", "integer"}, Pattern: "^([0-9]+( *, *[0-9]+)*)?$"}
	default:
		t.Fatalf("--%s has a type that has no schema: %s", f.Name, f.Value.Type())
	}
	s.Description, s.Default = f.Usage, asJSON(initial)
	return s
}

func asJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// generator makes schemas of the types of policies.
type generator struct{ docs map[string]doc }

// value returns the schema of a value, with what it is now as the default if
// that is asked for and it is anything.
func (g generator) value(v reflect.Value, defaults bool) *jsonschema.Schema {
	if v.Kind() == reflect.Pointer { // a block that need not be there
		return g.value(reflect.New(v.Type().Elem()).Elem(), false)
	}
	var s *jsonschema.Schema
	var initial any
	switch x := v.Interface().(type) {
	case time.Duration:
		s, initial = duration(), settings.Duration(x)
	case interface{ Words() []string }:
		s = words(x.Words())
		if !v.IsZero() {
			initial = v.String()
		}
	case policy.Size:
		s, initial = size(), x.String()
	case encoding.TextMarshaler:
		s = &jsonschema.Schema{Type: "string"}
	default:
		return g.kind(v, defaults)
	}
	if defaults && initial != nil {
		s.Default = asJSON(initial)
	}
	return s
}

// kind returns the schema of a value whose type says nothing of its own.
func (g generator) kind(v reflect.Value, defaults bool) *jsonschema.Schema {
	s, zero := new(jsonschema.Schema), 0.0
	switch v.Kind() {
	case reflect.Struct:
		return g.block(v, defaults)
	case reflect.Slice:
		return &jsonschema.Schema{Types: []string{"array", "null"}, Items: g.value(reflect.New(v.Type().Elem()).Elem(), false)}
	case reflect.Map:
		return &jsonschema.Schema{Types: []string{"object", "null"}, AdditionalProperties: g.value(reflect.New(v.Type().Elem()).Elem(), false)}
	case reflect.Bool:
		s.Type = "boolean"
	case reflect.Int, reflect.Int64:
		s.Type, s.Minimum = "integer", &zero
	case reflect.Float64:
		s.Type, s.Minimum = "number", &zero
	case reflect.String:
		s.Type = "string"
		defaults = defaults && !v.IsZero()
	default:
		panic(fmt.Sprintf("a policy has a field without a schema: %v", v.Type()))
	}
	if defaults {
		s.Default = asJSON(v.Interface())
	}
	return s
}

func (g generator) block(v reflect.Value, defaults bool) *jsonschema.Schema {
	s := object()
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if key := field.Tag.Get("yaml"); key != "" && key != "-" {
			child := g.value(v.Field(i), defaults)
			child.Description = g.docs[v.Type().Name()+"."+field.Name].of(key)
			if child.Description == "" {
				panic(fmt.Sprintf("%v.%s has no comment: it is what users read", v.Type(), field.Name))
			}
			putKey(s, key, child)
		}
	}
	return s
}

// doc is the comment of a field.
type doc struct {
	field string
	text  string
	keys  map[string]string // of the fields of all types, as files name them
}

var (
	ruleName  = regexp.MustCompile(` \([A-Z]\d+\w*\)`)
	fieldName = regexp.MustCompile(`\b[A-Z]\w*[a-z][A-Z]\w*\b|\b[A-Z]+[A-Z][a-z]\w*\b`)
)

// of words a comment for those who know a field as key.
func (d doc) of(key string) string {
	text := strings.Join(strings.Fields(d.text), " ")
	text = strings.TrimPrefix(strings.TrimPrefix(text, d.field+" "), "is ")
	text = ruleName.ReplaceAllString(text, "")
	text = fieldName.ReplaceAllStringFunc(text, func(name string) string {
		if key := d.keys[name]; key != "" {
			return key
		}
		return name
	})
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// comments returns the comments of the fields of a package's types, as
// "Type.Field".
func comments(t *testing.T, dir string) map[string]doc {
	docs, keys := make(map[string]doc), make(map[string]string)
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if of, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range of.Fields.List {
					for _, name := range f.Names {
						docs[spec.Name.Name+"."+name.Name] = doc{name.Name, f.Doc.Text(), keys}
						if f.Tag != nil {
							keys[name.Name] = reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("yaml")
						}
					}
				}
			}
			return true
		})
	}
	return docs
}

// faultsBySchema returns what the schema says of a file.
func faultsBySchema(t *testing.T, file []byte) error {
	var schema jsonschema.Schema
	require.NoError(t, json.Unmarshal(configSchema, &schema))
	resolved, err := schema.Resolve(&jsonschema.ResolveOptions{ValidateDefaults: true})
	require.NoError(t, err)
	var value any
	if err := yaml.Unmarshal(file, &value); err != nil {
		return err
	}
	text, err := json.Marshal(value)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &value))
	if value == nil {
		value = map[string]any{}
	}
	return resolved.Validate(value)
}

// Every configuration that is shown anywhere is good, by the schema and by what
// serve reads; the tests' bad ones are bad by both.
func TestExamplesFitTheSchema(t *testing.T) {
	clearEnvironment(t)
	for name, file := range exampleFiles(t) {
		t.Run(name, func(t *testing.T) {
			bySchema := faultsBySchema(t, []byte(file))
			_, byServe := load(t, file)
			if strings.Contains(name, "bad") || strings.Contains(name, "broken") {
				require.Error(t, bySchema)
				require.Error(t, byServe)
				return
			}
			require.NoError(t, bySchema)
			require.NoError(t, byServe)
		})
	}
}

var (
	fenced  = regexp.MustCompile("(?ms)^```ya?ml\n(.*?)^```")
	another = regexp.MustCompile(`(?m)^(apiVersion|services|kind):`) // Kubernetes, Compose
)

// exampleFiles returns the configurations of the documents and of the tests'
// scripts, and what "config example" prints.
func exampleFiles(t *testing.T) map[string]string {
	var example bytes.Buffer
	require.NoError(t, printExample(&example))
	bare := regexp.MustCompile(`(?m)^#((?:  )*[a-z_]+:)`).ReplaceAllString(example.String(), "$1")
	all := map[string]string{"config example": example.String(), "config example, its comments taken away": bare}
	documents := []string{filepath.Join("..", "..", "README.md")}
	require.NoError(t, filepath.WalkDir(filepath.Join("..", "..", "docs"), func(path string, d fs.DirEntry, err error) error {
		if filepath.Base(path) == "kubernetes" {
			return fs.SkipDir // there are values of charts, which charts/test looks at
		}
		if filepath.Ext(path) == ".md" {
			documents = append(documents, path)
		}
		return err
	}))
	for _, path := range documents {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for i, block := range fenced.FindAllStringSubmatch(string(text), -1) {
			if !another.MatchString(block[1]) {
				all[fmt.Sprintf("%s %d", filepath.Base(path), i+1)] = block[1]
			}
		}
	}
	scripts, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	require.NoError(t, err)
	for _, path := range scripts {
		for _, f := range archived(t, path) {
			if filepath.Ext(f.Name) == ".yaml" {
				all[filepath.Base(path)+" "+f.Name] = string(f.Data)
			}
		}
	}
	return all
}

// The schema and serve agree on what a value may look like.
func TestSchemaAgreesWithServe(t *testing.T) {
	clearEnvironment(t)
	for file, good := range map[string]bool{
		"":                                                true,
		"defaults:\nnamespaces:\n":                        true,
		"namespaces: {a: }":                               true,
		"namespaces: {'': {}}":                            false,
		"namespaces: {'a:b': {}}":                         false,
		"namespaces: {a: {ttl: 0}}":                       true,
		"namespaces: {a: {ttl: 5}}":                       false,
		"defaults: {ttl: 1h30m}":                          true,
		"defaults: {ttl: 1.5h}":                           true,
		"defaults: {ttl: -1s}":                            false,
		"defaults: {ttl: soon}":                           false,
		"defaults: {tll: 1s}":                             false,
		"defaults: {mode: shadow}":                        true,
		"defaults: {mode: on}":                            false,
		"defaults: {class: vital}":                        false,
		"defaults: {sensitive: true}":                     true,
		"defaults: {sensitive: 'true'}":                   false,
		"defaults: {sensitive: 1}":                        false,
		"defaults: {sensitive: yes}":                      false,
		"defaults: {max_value: 64KiB}":                    true,
		"defaults: {max_value: 65536}":                    true,
		"defaults: {max_value: 64 kilos}":                 false,
		"defaults: {max_value: -1}":                       false,
		"defaults: {tenant: 1}":                           true,
		"defaults: {tenant: '1'}":                         false,
		"defaults: {tenant: -1}":                          false,
		"defaults: {ttl_jitter: 0.2, refresh_ahead: 0}":   true,
		"defaults: {ttl_jitter: -0.2}":                    false,
		"defaults: {purge: {tags: deny}}":                 true,
		"defaults: {purge: {tags: no way}}":               false,
		"defaults: {purge: {tag: deny}}":                  false,
		"defaults: {purge: deny}":                         false,
		"defaults: {wide_purges: {per_minute: 6}}":        true,
		"defaults: {wide_purges: {per_minute: 6.5}}":      false,
		"defaults: {adaptive_ttl: {min: 1s, max: 1m}}":    true,
		"memory: 64 MiB\nlog_level: warn\nmax_age: 30m\n": true,
		"memory: 67108864\nsocket_mode: 0660\n":           true,
		"memory: much":                                    false,
		"log_level: loud":                                 false,
		"max_connections: 5":                              true,
		"max_connections: x":                              false,
		"allow_uids: 1, 2":                                true,
		"allow_uids: [1, 2]":                              false,
		"memroy: 1MiB":                                    false,
		"- a":                                             false,
		"config: other.yaml":                              false,
		"fill_window: 20s":                                true,
		"fill_window: twenty":                             false,
	} {
		bySchema := faultsBySchema(t, []byte(file))
		_, byServe := load(t, file)
		require.Equal(t, good, bySchema == nil, "the schema of %q: %v", file, bySchema)
		require.Equal(t, good, byServe == nil, "serve of %q: %v", file, byServe)
	}
}

// archived returns the files of a script.
func archived(t *testing.T, path string) []txtar.File {
	archive, err := txtar.ParseFile(path)
	require.NoError(t, err)
	return archive.Files
}
