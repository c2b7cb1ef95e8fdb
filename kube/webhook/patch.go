package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// operation is one step of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value *any   `json:"value,omitempty"` // nil for remove
}

// difference returns the patch that makes before into after, nil when they are
// equal. Elements of lists that both have are told apart by name and left where
// they are: what this binary does not know of a container, because its API server
// is newer, survives.
func difference(before, after any) ([]byte, error) {
	old, err := plain(before)
	if err != nil {
		return nil, err
	}
	now, err := plain(after)
	if err != nil {
		return nil, err
	}
	var ops operations
	ops.compare("", old, now)
	if ops == nil {
		return nil, nil
	}
	patch, err := json.Marshal(ops)
	if err != nil {
		return nil, fmt.Errorf("write the patch: %w", err)
	}
	return patch, nil
}

// plain returns a value as maps, slices and scalars.
func plain(v any) (any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write the object as JSON: %w", err)
	}
	var p any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&p); err != nil {
		return nil, fmt.Errorf("read the object's JSON: %w", err)
	}
	return p, nil
}

type operations []operation

func (o *operations) add(path string, v any) { *o = append(*o, operation{"add", path, &v}) }
func (o *operations) remove(path string)     { *o = append(*o, operation{"remove", path, nil}) }

func (o *operations) compare(path string, before, after any) {
	switch now := after.(type) {
	case map[string]any:
		if old, ok := before.(map[string]any); ok {
			o.compareMaps(path, old, now)
			return
		}
	case []any:
		if old, ok := before.([]any); ok {
			o.compareLists(path, old, now)
			return
		}
	}
	if !reflect.DeepEqual(before, after) {
		*o = append(*o, operation{"replace", path, &after})
	}
}

func (o *operations) compareMaps(path string, before, after map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if now, ok := after[key]; ok {
			o.compare(path+"/"+escape(key), before[key], now)
		} else {
			o.remove(path + "/" + escape(key))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[key]; !ok {
			o.add(path+"/"+escape(key), after[key])
		}
	}
}

// compareLists walks both lists once. INVARIANT: the first at elements of the
// patched list are those of after.
func (o *operations) compareLists(path string, before, after []any) {
	to := map[string]int{} // how often a name is still to come in after
	for _, e := range after {
		to[nameOf(e)]++
	}
	for at := 0; at < len(after) || len(before) > 0; {
		place := path + "/" + strconv.Itoa(at)
		switch {
		case len(before) > 0 && at < len(after) && nameOf(before[0]) == nameOf(after[at]):
			o.compare(place, before[0], after[at])
			to[nameOf(after[at])]--
			before, at = before[1:], at+1
		case len(before) > 0 && to[nameOf(before[0])] == 0:
			o.remove(place)
			before = before[1:]
		default:
			o.add(place, after[at])
			to[nameOf(after[at])]--
			at++
		}
	}
}

// nameOf tells the elements of one list of a pod apart.
func nameOf(e any) string {
	if m, ok := e.(map[string]any); ok {
		// A volume may be mounted twice, and nothing twice on one path.
		for _, key := range []string{"mountPath", "name"} {
			if text, ok := m[key].(string); ok {
				return key + ":" + text
			}
		}
	}
	data, err := json.Marshal(e)
	if err != nil {
		panic("webhook: what was JSON is none: " + err.Error())
	}
	return string(data)
}

// escape writes a member's name as a part of a JSON pointer (RFC 6901).
func escape(key string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(key) }
