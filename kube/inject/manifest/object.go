package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kyaml "sigs.k8s.io/yaml"
)

// templates says where the kinds of objects have the template of their pods.
var templates = map[metav1.TypeMeta][]string{
	{APIVersion: "v1", Kind: "Pod"}:              {},
	{APIVersion: "apps/v1", Kind: "Deployment"}:  {"spec", "template"},
	{APIVersion: "apps/v1", Kind: "StatefulSet"}: {"spec", "template"},
	{APIVersion: "apps/v1", Kind: "DaemonSet"}:   {"spec", "template"},
	{APIVersion: "apps/v1", Kind: "ReplicaSet"}:  {"spec", "template"},
	{APIVersion: "batch/v1", Kind: "Job"}:        {"spec", "template"},
	{APIVersion: "batch/v1", Kind: "CronJob"}:    {"spec", "jobTemplate", "spec", "template"},
}

// editObject edits the pods of one object, in place.
func editObject(object *yaml.Node, edit func(Pod) (bool, error)) (bool, error) {
	kind := metav1.TypeMeta{APIVersion: textAt(object, "apiVersion"), Kind: textAt(object, "kind")}
	if kind.APIVersion == "v1" && kind.Kind == "List" {
		return editList(object, edit)
	}
	path, known := templates[kind]
	if !known {
		return false, nil
	}
	template := object
	for _, key := range path {
		if template = at(template, key); template == nil || template.Kind != yaml.MappingNode {
			return false, nil // the API server says what is missing
		}
	}
	name := strings.ToLower(kind.Kind) + "/" + textAt(object, "metadata", "name")
	pod := Pod{Object: name, Pod: new(corev1.Pod)}
	if len(path) > 0 {
		var holder metav1.PartialObjectMetadata
		if err := decode(object, &holder); err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		pod.Annotations = holder.Annotations
	}
	changed, err := editPod(template, pod, edit)
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	return changed, nil
}

// editList edits the objects of a List.
func editList(list *yaml.Node, edit func(Pod) (bool, error)) (bool, error) {
	items := at(list, "items")
	if items == nil || items.Kind != yaml.SequenceNode {
		return false, nil
	}
	some := false
	var errs []error
	for _, item := range items.Content {
		if item.Kind != yaml.MappingNode {
			continue
		}
		changed, err := editObject(item, edit)
		some = some || changed
		errs = append(errs, err)
	}
	return some, errors.Join(errs...)
}

// editPod edits the pod at a node. What the Go types do not know of stays.
func editPod(node *yaml.Node, pod Pod, edit func(Pod) (bool, error)) (bool, error) {
	if err := decode(node, pod.Pod); err != nil {
		return false, err
	}
	before, err := tree(pod.Pod)
	if err != nil {
		return false, err
	}
	if changed, err := edit(pod); err != nil || !changed {
		return false, err
	}
	after, err := tree(pod.Pod)
	if err != nil {
		return false, err
	}
	return true, merge(node, before, after)
}

// decode reads a node as Kubernetes reads YAML.
func decode(node *yaml.Node, into any) error {
	text, err := yaml.Marshal(node)
	if err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	if err := kyaml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("it is not what its kind says: %w", err)
	}
	return nil
}

// tree returns a value as the maps, lists and scalars of its JSON.
func tree(value any) (any, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("comparing it: %w", err)
	}
	var t any
	if err := yaml.Unmarshal(text, &t); err != nil { // whole numbers stay whole
		return nil, fmt.Errorf("comparing it: %w", err)
	}
	return t, nil
}

// at returns what a mapping has under a key, nil without.
func at(mapping *yaml.Node, key string) *yaml.Node {
	if mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// textAt returns the scalar at a path, empty without.
func textAt(node *yaml.Node, path ...string) string {
	for _, key := range path {
		if node = at(node, key); node == nil {
			return ""
		}
	}
	return node.Value
}
