package settings

import (
	"encoding"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// Setting is one setting as it is in effect.
type Setting struct {
	// Path leads to it in a configuration file.
	Path []string `json:"path"`
	// Value is what a file would say, and Masked in place of a secret.
	Value any `json:"value"`
	// Origin is where it was given, or OriginDefault.
	Origin string `json:"origin"`
}

const (
	// OriginDefault is the origin of what nobody has given.
	OriginDefault = "default"
	// Masked stands for a secret.
	Masked = "***"
)

// secret is the annotation of flags whose values must not be shown.
const secret = "nearside_secret"

// Secret says that a flag's value must not be shown.
func Secret(fs *pflag.FlagSet, name string) {
	if err := fs.SetAnnotation(name, secret, nil); err != nil {
		panic("settings: " + err.Error()) // there is no such flag
	}
}

// Flags returns the settings that are flags too, as they are in effect.
func (r *Reader) Flags() []Setting {
	var all []Setting
	r.flags.VisitAll(func(f *pflag.Flag) {
		if Key(f) == "" {
			return
		}
		value := flagValue(f)
		if _, isSecret := f.Annotations[secret]; isSecret {
			value = mask(value)
		}
		all = append(all, Setting{[]string{Key(f)}, withoutUserinfo(value), r.origin(f.Name)})
	})
	return all
}

// Policies returns the settings of the policies. Of a namespace it returns what
// that says itself: the rest is as in defaults.
func (r *Reader) Policies() []Setting {
	p := r.policies
	all := []Setting{{[]string{keyWindow}, Duration(p.Window), r.origin(keyWindow)}}
	all = r.describe(all, []string{keyDefaults}, reflect.ValueOf(&p.Default).Elem(), false)
	for _, name := range slices.Sorted(maps.Keys(p.Namespaces)) {
		n := p.Namespaces[name]
		all = r.describe(all, []string{keyNamespaces, name}, reflect.ValueOf(&n).Elem(), true)
	}
	return all
}

// origin returns where a setting was given, by the name that faults call it.
func (r *Reader) origin(name string) string {
	if where, ok := r.from[name]; ok {
		return where
	}
	return OriginDefault
}

// describe appends the settings of a block; with own those alone that it was
// given.
func (r *Reader) describe(all []Setting, path []string, block reflect.Value, own bool) []Setting {
	for _, f := range fieldsOf(block) {
		at := append(slices.Clone(path), f.name)
		value := f.value
		if value.Kind() == reflect.Pointer {
			if value.IsNil() {
				continue
			}
			value = value.Elem()
		}
		if _, isText := value.Addr().Interface().(encoding.TextUnmarshaler); value.Kind() == reflect.Struct && !isText {
			all = r.describe(all, at, value, own)
			continue
		}
		origin := r.origin(strings.Join(at, "."))
		if own && origin == OriginDefault {
			continue
		}
		shown := plain(value)
		if f.secret {
			shown = mask(shown)
		}
		all = append(all, Setting{at, withoutUserinfo(shown), origin})
	}
	return all
}

// plain returns a value as a file would give it.
func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plain(v.Index(i))
		}
		return list
	case reflect.Map:
		table := make(map[string]any, v.Len())
		for _, key := range v.MapKeys() {
			table[key.String()] = plain(v.MapIndex(key))
		}
		return table
	case reflect.String:
		return v.String()
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return Duration(x)
	case fmt.Stringer: // a size
		return x.String()
	default:
		return x
	}
}

// Duration writes a duration as people do in a file: 10m, and not 10m0s.
func Duration(d time.Duration) string {
	text := d.String()
	for _, none := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, none) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// flagValue returns a flag's value as a file would give it.
func flagValue(f *pflag.Flag) any {
	text := f.Value.String()
	switch f.Value.Type() {
	case "int":
		if n, err := strconv.Atoi(text); err == nil {
			return n
		}
	case "duration":
		if d, err := time.ParseDuration(text); err == nil {
			return Duration(d)
		}
	}
	return text
}

// mask hides what a secret says, and not whether it says anything.
func mask(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name := range v {
			v[name] = Masked
		}
		return v
	case []any:
		for i := range v {
			v[i] = Masked
		}
		return v
	}
	if value == "" {
		return value
	}
	return Masked
}

// userinfo is what one of several URLs, whose scheme may be left out, gives
// before its host.
var userinfo = regexp.MustCompile(`(^|[,\s])(\w+://)?[^/@,\s]+@`)

// withoutUserinfo hides who logs in by a URL, and by which password.
func withoutUserinfo(value any) any {
	if text, ok := value.(string); ok {
		return userinfo.ReplaceAllString(text, "${1}${2}"+Masked+"@")
	}
	return value
}

// Print writes settings as a configuration file, with their origins if asked for.
func Print(w io.Writer, all []Setting, origins bool) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range all {
		at := root
		for _, name := range s.Path[:len(s.Path)-1] {
			at = child(at, name)
		}
		value := new(yaml.Node)
		if err := value.Encode(s.Value); err != nil {
			return fmt.Errorf("%s cannot be written as YAML: %w", strings.Join(s.Path, "."), err)
		}
		if value.Style = yaml.FlowStyle; value.Kind == yaml.ScalarNode {
			value.Style = 0
		}
		if origins {
			value.LineComment = s.Origin
		}
		at.Content = append(at.Content, name(s.Path[len(s.Path)-1]), value)
	}
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil {
		return err
	}
	return e.Close()
}

func name(text string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(text)
	return n
}

// child returns the map under a name, which is made if it is not there.
func child(at *yaml.Node, key string) *yaml.Node {
	if n := len(at.Content); n > 0 && at.Content[n-2].Value == key {
		return at.Content[n-1]
	}
	next := &yaml.Node{Kind: yaml.MappingNode}
	at.Content = append(at.Content, name(key), next)
	return next
}

// Words lists the words that a flag may have, nil where it may have others.
func Words(v pflag.Value) []string {
	if c, ok := v.(choice); ok {
		return c.words
	}
	return nil
}
