package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

// MaxFile is the largest configuration file in bytes: what a ConfigMap can hold.
const MaxFile = 1 << 20

// The keys that are no flags: those of policies.
const (
	keyWindow     = "fill_window"
	keyDefaults   = "defaults"
	keyNamespaces = "namespaces"
)

// file is a configuration file while it is read.
type file struct {
	*Reader
	name string
}

// readFile sets what the file says. Every key must be known and given once.
func (r *Reader) readFile(name string, data []byte) {
	f := file{r, name}
	var document yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	switch err := d.Decode(&document); {
	case errors.Is(err, io.EOF):
		return // an empty file says nothing
	case err != nil:
		r.fault(name, "not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		r.fault(name, "want one YAML document, there is more after it")
	}
	f.readSettings(document.Content[0])
}

// readSettings reads the top of the file.
func (f file) readSettings(root *yaml.Node) {
	known := []string{keyWindow, keyDefaults, keyNamespaces}
	flags := make(map[string]*pflag.Flag)
	f.flags.VisitAll(func(flag *pflag.Flag) {
		if key := Key(flag); key != "" {
			flags[key] = flag
			known = append(known, key)
		}
	})
	policies := make(map[string]*yaml.Node)
	f.mapping("", root, known, func(key string, value *yaml.Node) {
		if flag := flags[key]; flag == nil {
			policies[key] = value
		} else if text, ok := f.scalar(key, value); ok {
			f.set(flag, f.at(value), text)
		}
	})
	f.readPolicies(policies)
}

// readPolicies reads the parts of the policies in the order in which they build
// on one another, which need not be that of the file.
func (f file) readPolicies(parts map[string]*yaml.Node) {
	p := f.policies
	if node := parts[keyWindow]; node != nil {
		f.value(keyWindow, node, reflect.ValueOf(&p.Window).Elem())
	}
	if node := parts[keyDefaults]; node != nil {
		f.block(keyDefaults, node, reflect.ValueOf(&p.Default).Elem())
	}
	node := parts[keyNamespaces]
	if node == nil {
		return
	}
	p.Namespaces = make(map[string]policy.Namespace)
	f.mapping(keyNamespaces, node, nil, func(name string, value *yaml.Node) {
		ns := p.Default
		f.block(keyNamespaces+"."+name, value, reflect.ValueOf(&ns).Elem())
		p.Namespaces[name] = ns
	})
}

// mapping calls each for every entry of a map. The keys must be among known,
// unless that is nil.
func (f file) mapping(path string, node *yaml.Node, known []string, each func(key string, value *yaml.Node)) {
	node = resolve(node)
	if isNull(node) {
		return
	}
	if node.Kind != yaml.MappingNode {
		f.fault(f.at(node), "%swant keys with values, not %s", prefix(path, " is "+describe(node)+": "), describe(node))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := resolve(node.Content[i]), resolve(node.Content[i+1])
		name := key.Value
		switch {
		case key.Kind != yaml.ScalarNode:
			f.fault(f.at(key), "%swant a name for a key, not %s", prefix(path, ": "), describe(key))
		case seen[name] != 0:
			f.fault(f.at(key), "%s%s is given twice, first in line %d: remove one", prefix(path, "."), name, seen[name])
		case known != nil && !slices.Contains(known, name):
			f.fault(f.at(key), "unknown key %s%s: %s", prefix(path, "."), name, advise(name, known))
		default:
			each(name, value)
		}
		seen[name] = max(1, key.Line)
	}
}

// scalar returns the text of a value that is neither list nor map. One that is
// left out is empty.
func (f file) scalar(path string, node *yaml.Node) (string, bool) {
	switch {
	case node.Kind != yaml.ScalarNode:
		f.fault(f.at(node), "%s is %s: want one value", path, describe(node))
		return "", false
	case isNull(node):
		return "", true
	}
	return node.Value, true
}

func (f file) at(node *yaml.Node) string { return fmt.Sprintf("%s:%d", f.name, node.Line) }

// resolve follows an alias. YAML allows none to an alias, nor to what holds it
// at the depth that is read here.
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" }

func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a map"
	default:
		return fmt.Sprintf("%q", node.Value)
	}
}

// prefix is path and what follows it, or nothing at the top of the file.
func prefix(path, then string) string {
	if path == "" {
		return ""
	}
	return path + then
}

// advise names the key that was meant, if it is one in another spelling.
func advise(name string, known []string) string {
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
	}
	for _, k := range known {
		if plain(k) == plain(name) {
			return "did you mean " + k + "?"
		}
	}
	slices.Sort(known)
	if len(known) > 10 {
		return "nearside config example lists the keys"
	}
	return "want one of " + strings.Join(known, ", ")
}
