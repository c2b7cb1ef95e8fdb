// Package manifest edits the pods in streams of Kubernetes manifests, YAML or
// JSON. Documents in which no pod changes come out as they went in, byte for
// byte; in the others everything but the change keeps its place and its comments.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	kyaml "sigs.k8s.io/yaml"
)

// Pod is a pod, or the template of pods, in a manifest.
type Pod struct {
	// Object is where it stands, such as "deployment/shop".
	Object string
	// Annotations are those of the object that holds the template, which are not
	// those of its pods. They are nil for an object that is a pod.
	Annotations map[string]string
	*corev1.Pod
}

// Edit returns a stream with every pod in it edited. edit changes the pod in
// place and reports whether it did. Edit does not keep data. The error joins
// what is wrong with any of the documents; nothing is returned then.
func Edit(data []byte, edit func(Pod) (changed bool, err error)) ([]byte, error) {
	if out, isJSON, err := editJSON(data, edit); isJSON {
		return out, err
	}
	var out bytes.Buffer
	var errs []error
	for i, document := range split(data) {
		edited, err := editYAML(document, edit)
		if err != nil {
			errs = append(errs, fmt.Errorf("document %d: %w", i+1, err))
		}
		out.Write(edited)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// split cuts a stream before each line that separates documents.
func split(data []byte) [][]byte {
	var documents [][]byte
	start := 0
	for at := 0; at < len(data); {
		end := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if isSeparator(data[at:end]) && at > start {
			documents = append(documents, data[start:at])
			start = at
		}
		at = end
	}
	return append(documents, data[start:])
}

func isSeparator(line []byte) bool {
	rest, found := bytes.CutPrefix(line, []byte("---"))
	return found && (len(rest) == 0 || strings.ContainsRune(" \t\r\n", rune(rest[0])))
}

// editYAML returns one document with its pods edited.
func editYAML(document []byte, edit func(Pod) (bool, error)) ([]byte, error) {
	root, err := parse(document)
	if err != nil || root == nil {
		return document, err
	}
	changed, err := editObject(root.Content[0], edit)
	if err != nil || !changed {
		return document, err
	}
	var out bytes.Buffer
	if first, _, _ := bytes.Cut(document, []byte("\n")); isSeparator(first) {
		out.Write(first)
		out.WriteByte('\n')
	}
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	e.CompactSeqIndent()
	if err := errors.Join(e.Encode(root), e.Close()); err != nil {
		return nil, fmt.Errorf("writing it: %w", err)
	}
	return out.Bytes(), nil
}

// parse returns a document's tree, nil for one that holds no object.
func parse(document []byte) (*yaml.Node, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, fmt.Errorf("it is no YAML: %w", err)
	}
	if len(root.Content) == 0 || root.Content[0].Kind != yaml.MappingNode {
		return nil, nil
	}
	if hasAliases(&root) {
		// What one alias gets, all would: each is written out. That costs the comments.
		var value any
		if err := root.Decode(&value); err != nil {
			return nil, fmt.Errorf("following its aliases: %w", err)
		}
		var plain yaml.Node
		if err := plain.Encode(value); err != nil {
			return nil, fmt.Errorf("writing out its aliases: %w", err)
		}
		root.Content = []*yaml.Node{&plain}
	}
	return &root, nil
}

func hasAliases(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode {
		return true
	}
	for _, child := range n.Content {
		if hasAliases(child) {
			return true
		}
	}
	return false
}

// editJSON edits a stream of JSON objects. It reports whether data is one.
func editJSON(data []byte, edit func(Pod) (bool, error)) (_ []byte, isJSON bool, _ error) {
	objects, isJSON := objectsOf(data)
	if !isJSON {
		return nil, false, nil
	}
	var out bytes.Buffer
	var errs []error
	rest := data
	for i, object := range objects {
		before, after, _ := bytes.Cut(rest, object)
		edited, err := editJSONObject(object, edit)
		if err != nil {
			errs = append(errs, fmt.Errorf("document %d: %w", i+1, err))
		}
		out.Write(before)
		out.Write(edited)
		rest = after
	}
	out.Write(rest)
	if err := errors.Join(errs...); err != nil {
		return nil, true, err
	}
	return out.Bytes(), true, nil
}

// objectsOf returns the objects of a stream of JSON. YAML may begin as JSON does:
// it is told by what follows.
func objectsOf(data []byte) ([]json.RawMessage, bool) {
	if start := bytes.TrimLeft(data, " \t\r\n"); len(start) == 0 || start[0] != '{' {
		return nil, false
	}
	var objects []json.RawMessage
	for d := json.NewDecoder(bytes.NewReader(data)); d.More(); {
		var object json.RawMessage
		if d.Decode(&object) != nil {
			return nil, false
		}
		objects = append(objects, object)
	}
	return objects, true
}

// editJSONObject returns one object with its pods edited. A changed one has its
// keys sorted, as kubectl writes them.
func editJSONObject(object []byte, edit func(Pod) (bool, error)) ([]byte, error) {
	root, err := parse(object)
	if err != nil || root == nil {
		return object, err
	}
	changed, err := editObject(root.Content[0], edit)
	if err != nil || !changed {
		return object, err
	}
	text, err := yaml.Marshal(root)
	if err != nil {
		return nil, fmt.Errorf("writing it: %w", err)
	}
	if text, err = kyaml.YAMLToJSON(text); err != nil {
		return nil, fmt.Errorf("writing it: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "    "); err != nil {
		return nil, fmt.Errorf("writing it: %w", err)
	}
	return out.Bytes(), nil
}
