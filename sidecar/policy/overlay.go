package policy

import "maps"

// AllNamespaces stands for every namespace in an Override.
const AllNamespaces = "*"

// Override is a setting of a namespace that was changed while serving. What is
// empty is not changed.
type Override struct {
	Mode   Mode
	Paused *bool
}

// With returns the policies with overrides by namespace on top. One of a
// namespace prevails over one of AllNamespaces.
func (s *Set) With(overrides map[string]Override) *Set {
	with := *s
	with.index, with.Namespaces = nil, maps.Clone(s.Namespaces)
	with.added = make(map[string]bool)
	if all, ok := overrides[AllNamespaces]; ok {
		all.apply(&with.Default)
		for name, n := range with.Namespaces {
			all.apply(&n)
			with.Namespaces[name] = n
		}
	}
	for name, o := range overrides {
		if name == AllNamespaces {
			continue
		}
		n := *with.Of(name)
		if _, own := s.Namespaces[name]; !own || s.added[name] {
			with.added[name] = true
		}
		o.apply(&n)
		if with.Namespaces == nil {
			with.Namespaces = make(map[string]Namespace)
		}
		with.Namespaces[name] = n
	}
	return &with
}

func (o Override) apply(n *Namespace) {
	if o.Mode != "" {
		n.Mode = o.Mode
	}
	if o.Paused != nil {
		n.WidePurges.Paused = *o.Paused
	}
}
