// Package address turns a key into the URL or the subject at which its value is
// loaded. Templates are checked when a policy is read; what a key brings in can
// then neither leave its place nor add to it.
package address

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nearside-cache/nearside/bus"
)

// Errors of templates and keys. They never carry the key, which may be secret.
var (
	// ErrBadTemplate says that a text is no template: nothing can be loaded by it.
	ErrBadTemplate = errors.New("bad template")
	// ErrBadKey says that a template has no address for a key.
	ErrBadKey = errors.New("the key does not fit the template")
)

// Names of the places in a template: {key} and so on. A number is the part of
// that number between the key's colons, the first is {1}.
const (
	placeKey       = "key"       // the whole key
	placeNamespace = "namespace" // what stands before its first colon
	placeRest      = "rest"      // what stands behind it; in the namespace default, the whole key
)

// maxPart is the highest number of a part that a template may name.
const maxPart = 64

// piece is literal text, or a place when that is set.
type piece struct {
	literal string
	place   string
	part    int // of a numbered place
}

// template is a text with places.
type template []piece

func parse(text string) (template, error) {
	var t template
	for text != "" {
		literal, rest, opened := strings.Cut(text, "{")
		if strings.Contains(literal, "}") {
			return nil, fmt.Errorf("%w: there is a } without its {", ErrBadTemplate)
		}
		if literal != "" {
			t = append(t, piece{literal: literal})
		}
		if !opened {
			break
		}
		place, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, fmt.Errorf("%w: there is a { without its }", ErrBadTemplate)
		}
		p := piece{place: place}
		if !slices.Contains([]string{placeKey, placeNamespace, placeRest}, place) {
			n, err := strconv.Atoi(place)
			if err != nil || n < 1 || n > maxPart || place[0] < '1' {
				return nil, fmt.Errorf("%w: {%.40s} is no place: want {key}, {namespace}, {rest}, {1} to {%d}", ErrBadTemplate, place, maxPart)
			}
			p.part = n
		}
		t = append(t, p)
		text = after
	}
	return t, nil
}

func (t template) fixed() bool {
	return !slices.ContainsFunc(t, func(p piece) bool { return p.place != "" })
}

// expand replaces the places by what they stand for in k, escaped.
func (t template) expand(k key, escape func(string) string) (string, error) {
	var b strings.Builder
	for _, p := range t {
		if p.place == "" {
			b.WriteString(p.literal)
			continue
		}
		text, err := k.at(p)
		if err != nil {
			return "", err
		}
		b.WriteString(escape(text))
	}
	return b.String(), nil
}

// coverage is which places a template has. Two keys that it cannot tell apart
// would share one value.
type coverage struct {
	whole bool // every part of the key is in it, at least behind the namespace
	named bool // so is the namespace
	parts int  // the highest part named, where it is not whole
}

func cover(templates ...template) (coverage, error) {
	var c coverage
	seen := make(map[int]bool)
	for _, t := range templates {
		for _, p := range t {
			c.whole = c.whole || p.place == placeKey || p.place == placeRest
			c.named = c.named || p.place == placeKey || p.place == placeNamespace || p.part == 1
			seen[p.part] = true
			c.parts = max(c.parts, p.part)
		}
	}
	if c.whole {
		return c, nil
	}
	if c.parts == 0 {
		return c, fmt.Errorf("%w: it names no part of the key, so that all keys would have one value: add {key}, {rest} or {2}", ErrBadTemplate)
	}
	for n := 2; n <= c.parts; n++ {
		if !seen[n] {
			return c, fmt.Errorf("%w: it names {%d} but not {%d}, so that several keys would have one value", ErrBadTemplate, c.parts, n)
		}
	}
	return c, nil
}

// admit refuses keys of which the template would drop a part.
func (c coverage) admit(k key) error {
	switch n := len(k.parts); {
	case c.whole:
		return nil
	case n != c.parts:
		return fmt.Errorf("%w: it has %d parts between colons, the template names %d", ErrBadKey, n, c.parts)
	case !c.named && k.parts[0] == "":
		return fmt.Errorf("%w: its first part is empty, and the template does not name it", ErrBadKey)
	}
	return nil
}

// inDefault reports whether a key is of the namespace that needs no name: there
// x, :x and default:x are three keys.
func inDefault(text string) bool { return bus.NamespaceOf(text) == bus.DefaultNamespace }

// key is one key and its parts.
type key struct {
	text  string
	parts []string
}

func split(text string) key { return key{text: text, parts: strings.Split(text, ":")} }

func (k key) at(p piece) (string, error) {
	switch p.place {
	case placeKey:
		return k.text, nil
	case placeNamespace:
		return bus.NamespaceOf(k.text), nil
	case placeRest:
		if rest, ok := strings.CutPrefix(k.text, bus.NamespaceOf(k.text)+":"); ok && !inDefault(k.text) {
			return rest, nil
		}
		return k.text, nil
	}
	if p.part > len(k.parts) {
		return "", fmt.Errorf("%w: it has %d parts between colons, the template names {%d}", ErrBadKey, len(k.parts), p.part)
	}
	return k.parts[p.part-1], nil
}
