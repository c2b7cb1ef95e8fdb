package settings

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

// field is a setting of a block: a field of a struct with a yaml name.
type field struct {
	name   string
	secret bool // its value must not be shown
	value  reflect.Value
}

// fieldsOf returns the settings of a block in the order of their declaration.
func fieldsOf(block reflect.Value) []field {
	var all []field
	for i := range block.NumField() {
		tag := block.Type().Field(i).Tag
		if name := tag.Get("yaml"); name != "" && name != "-" {
			all = append(all, field{name: name, secret: tag.Get("secret") != "", value: block.Field(i)})
		}
	}
	return all
}

// block reads a map of settings into a struct. What it does not say stays as it
// is, so that a namespace takes it from defaults.
func (f file) block(path string, node *yaml.Node, into reflect.Value) {
	fields := make(map[string]reflect.Value)
	for _, field := range fieldsOf(into) {
		fields[field.name] = field.value
	}
	f.from[path] = f.at(node)
	f.mapping(path, node, slices.Sorted(maps.Keys(fields)), func(key string, value *yaml.Node) {
		f.value(path+"."+key, value, fields[key])
	})
}

// value reads a setting of any type that a policy may have.
func (f file) value(path string, node *yaml.Node, into reflect.Value) {
	node = resolve(node)
	_, isText := into.Addr().Interface().(encoding.TextUnmarshaler)
	switch {
	case isText:
		f.text(path, node, into)
	case into.Kind() == reflect.Struct:
		f.block(path, node, into)
	case into.Kind() == reflect.Pointer:
		f.optional(path, node, into)
	case into.Kind() == reflect.Slice:
		f.list(path, node, into)
	case into.Kind() == reflect.Map:
		f.table(path, node, into)
	default:
		f.text(path, node, into)
	}
}

// optional reads a block that need not be there. Null takes away what defaults
// say. The block of defaults is never changed by that of a namespace.
func (f file) optional(path string, node *yaml.Node, into reflect.Value) {
	if isNull(node) {
		into.SetZero()
		f.from[path] = f.at(node)
		return
	}
	own := reflect.New(into.Type().Elem())
	if !into.IsNil() {
		own.Elem().Set(into.Elem())
	}
	into.Set(own)
	f.value(path, node, own.Elem())
}

// list reads a list, which replaces that of defaults.
func (f file) list(path string, node *yaml.Node, into reflect.Value) {
	if node.Kind != yaml.SequenceNode && !isNull(node) {
		f.fault(f.at(node), "%s is %s: want a list", path, describe(node))
		return
	}
	list := reflect.MakeSlice(into.Type(), len(node.Content), len(node.Content))
	for i, element := range node.Content {
		f.value(fmt.Sprintf("%s[%d]", path, i), element, list.Index(i))
	}
	into.Set(list)
	f.from[path] = f.at(node)
}

// table reads a map by name, which replaces that of defaults.
func (f file) table(path string, node *yaml.Node, into reflect.Value) {
	table := reflect.MakeMap(into.Type())
	f.mapping(path, node, nil, func(key string, value *yaml.Node) {
		element := reflect.New(into.Type().Elem()).Elem()
		f.value(path+"."+key, value, element)
		table.SetMapIndex(reflect.ValueOf(key), element)
	})
	into.Set(table)
	f.from[path] = f.at(node)
}

// text reads a value that is neither list nor map.
func (f file) text(path string, node *yaml.Node, into reflect.Value) {
	text, ok := f.scalar(path, node)
	if !ok {
		return
	}
	if want := parse(text, node, into); want != "" {
		f.fault(f.at(node), "%s is %q: want %s", path, text, want)
		return
	}
	f.from[path] = f.at(node)
}

// parse sets a value from a node and its text. It returns what is wanted
// instead, in words, when they are not that.
func parse(text string, node *yaml.Node, into reflect.Value) (want string) {
	if target, ok := into.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := target.UnmarshalText([]byte(text)); err != nil {
			return err.Error()
		}
		return ""
	}
	if into.Type() == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(text)
		if err != nil {
			return wantDuration
		}
		into.SetInt(int64(d))
		return ""
	}
	if into.Kind() == reflect.String {
		into.SetString(text)
		return ""
	}
	words := map[reflect.Kind]string{
		reflect.Bool: wantBool, reflect.Float64: "a number such as 0.1", reflect.Int: "a whole number", reflect.Int64: "a whole number",
	}[into.Kind()]
	if words == "" {
		panic(fmt.Sprintf("settings: a policy has a field of type %v", into.Type()))
	}
	// YAML's decoder would cut off a fraction, and take "yes" for true.
	if into.CanInt() && node.ShortTag() != "!!int" || into.Kind() == reflect.Bool && node.ShortTag() != "!!bool" {
		return words
	}
	if isNull(node) || node.Decode(into.Addr().Interface()) != nil {
		return words
	}
	return ""
}
