package main

import (
	_ "embed" // the schema
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// configSchema is the JSON Schema of the configuration file, made of the flags
// and of the types of policies by a test.
//
//go:embed config.schema.json
var configSchema []byte

// property is a part of the schema. YAML is read in order, and JSON is YAML.
type property struct {
	key  string
	node *yaml.Node
}

// member returns what a schema says under a keyword; nil if nothing.
func member(schema *yaml.Node, keyword string) *yaml.Node {
	for i := 0; i+1 < len(schema.Content); i += 2 {
		if schema.Content[i].Value == keyword {
			return schema.Content[i+1]
		}
	}
	return nil
}

// properties returns the parts of an object's schema, in their order.
func properties(schema *yaml.Node) []property {
	var all []property
	of := member(schema, "properties")
	for i := 0; of != nil && i+1 < len(of.Content); i += 2 {
		all = append(all, property{of.Content[i].Value, of.Content[i+1]})
	}
	return all
}

// text returns what a schema says under a keyword that is a string.
func (p property) text(keyword string) string {
	if n := member(p.node, keyword); n != nil {
		return n.Value
	}
	return ""
}

// hasDefault reports whether a property, or anything in it, has a default.
func (p property) hasDefault() bool {
	for _, child := range properties(p.node) {
		if child.hasDefault() {
			return true
		}
	}
	return member(p.node, "default") != nil
}

// example prints a property as a comment that says its default when the "#" at
// its front is taken away. What has no default stays a comment even then, with
// all that is in it.
func (p property) example(b *strings.Builder, indent string) {
	front := "#" + indent + "# "
	if indent == "" {
		front = "# "
	}
	fmt.Fprintf(b, "%s%s\n", front, strings.Join(wrap(p.text("description"), columns-len(front)), "\n"+front))
	if !p.hasDefault() && !strings.Contains(indent, "#") {
		indent += "#"
	}
	children, initial := properties(p.node), member(p.node, "default")
	switch {
	case len(children) > 0:
		fmt.Fprintf(b, "#%s%s:\n", indent, p.key)
	case initial != nil:
		fmt.Fprintf(b, "#%s%s: %s\n", indent, p.key, yamlText(initial.Value))
	default:
		fmt.Fprintf(b, "#%s%s: %s\n", indent, p.key, p.anyValue())
	}
	for _, child := range children {
		child.example(b, indent+"  ")
	}
}

// anyValue is one of the values that a property may have.
func (p property) anyValue() string {
	if words := member(p.node, "enum"); words != nil {
		return words.Content[0].Value
	}
	return "…"
}

// printExample prints a configuration file with every setting.
func printExample(w io.Writer) error {
	var root yaml.Node
	if err := yaml.Unmarshal(configSchema, &root); err != nil {
		return fmt.Errorf("the schema cannot be read: %w", err)
	}
	var b strings.Builder
	b.WriteString("# Settings of nearside serve, with their defaults. A flag, or NEARSIDE_<NAME>\n" +
		"# in the environment, prevails.\n")
	for _, p := range properties(root.Content[0]) {
		b.WriteString("\n")
		if p.key == "namespaces" {
			fmt.Fprintf(&b, "# %s\n#namespaces:\n#  product:\n#    ttl: 1h\n", strings.Join(wrap(p.text("description"), columns-2), "\n# "))
			continue
		}
		p.example(&b, "")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// yamlText is a default as YAML.
func yamlText(text string) string {
	if text == "" || strings.ContainsAny(text, ":#") {
		return fmt.Sprintf("%q", text)
	}
	return text
}
