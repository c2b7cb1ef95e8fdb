package manifest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// merge makes the change from before to after on a node that was read as before,
// and leaves everything else of it alone: order, comments, and what before, being
// typed, does not show.
func merge(node *yaml.Node, before, after any) error {
	if reflect.DeepEqual(before, after) {
		return nil
	}
	switch after := after.(type) {
	case map[string]any:
		if before, ok := before.(map[string]any); ok && node.Kind == yaml.MappingNode {
			return mergeMap(node, before, after)
		}
	case []any:
		if before, ok := before.([]any); ok && node.Kind == yaml.SequenceNode && len(node.Content) == len(before) {
			return mergeList(node, before, after)
		}
	}
	fresh, err := encode(after)
	if err != nil {
		return err
	}
	*node = *fresh
	return nil
}

func mergeMap(node *yaml.Node, before, after map[string]any) error {
	node.Content = slices.Clone(node.Content)
	for key := range before {
		if _, stays := after[key]; !stays {
			remove(node, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if child := at(node, key); child != nil {
			was := len(child.Content)
			if err := merge(child, before[key], after[key]); err != nil {
				return err
			}
			if was > 0 && len(child.Content) == 0 && child.Kind == yaml.MappingNode {
				remove(node, key) // such as metadata that had annotations only
			}
		} else if !reflect.DeepEqual(before[key], after[key]) {
			fresh, err := encode(after[key])
			if err != nil {
				return err
			}
			node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, fresh)
		}
	}
	return nil
}

// mergeList finds elements again by what Kubernetes tells them apart by.
func mergeList(node *yaml.Node, before, after []any) error {
	var content []*yaml.Node
	found := make([]bool, len(before))
	for _, element := range after {
		former := 0
		for former < len(before) && (found[former] || !same(before[former], element)) {
			former++
		}
		if former < len(before) {
			found[former] = true
			if err := merge(node.Content[former], before[former], element); err != nil {
				return err
			}
			content = append(content, node.Content[former])
			continue
		}
		fresh, err := encode(element)
		if err != nil {
			return err
		}
		content = append(content, fresh)
	}
	node.Content = content
	return nil
}

// same reports whether two elements of a list are one, changed or not.
func same(a, b any) bool {
	left, ok := a.(map[string]any)
	right, alsoOK := b.(map[string]any)
	if !ok || !alsoOK {
		return reflect.DeepEqual(a, b)
	}
	// Two mounts may be of one volume, but not in one place.
	if left["mountPath"] != nil || right["mountPath"] != nil {
		return left["mountPath"] == right["mountPath"]
	}
	return left["name"] == right["name"]
}

func remove(mapping *yaml.Node, key string) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			mapping.Content = slices.Delete(mapping.Content, i, i+2)
			return
		}
	}
}

func encode(value any) (*yaml.Node, error) {
	fresh := new(yaml.Node)
	if err := fresh.Encode(value); err != nil {
		return nil, fmt.Errorf("writing the change: %w", err)
	}
	return fresh, nil
}
