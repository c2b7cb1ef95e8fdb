package operation

import (
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

// PolicyState is what the policy of a namespace does.
type PolicyState struct {
	Block   string // of the configuration, that it stands in
	Mode    string
	Purges  string
	Effects []string // in words
}

// Policy tells what the policy of a namespace does; policy.AllNamespaces: of those
// without one of their own.
func (e *Env) Policy(namespace string) PolicyState {
	p := e.Cache.Policies()
	n := p.Of(namespace)
	if namespace == policy.AllNamespaces {
		n = &p.Default
	}
	s := PolicyState{Block: p.Block(namespace), Mode: string(policy.Enforce), Purges: toggle.Resume, Effects: n.Effects()}
	if !n.Enforces() {
		s.Mode = string(n.Mode)
	}
	if n.WidePurges.Paused {
		s.Purges = toggle.Pause
	}
	return s
}

// TogglesOf returns the toggles in force that concern a namespace; empty: all.
func (e *Env) TogglesOf(namespace string) (all []toggle.Toggle) {
	for _, t := range e.Toggles.Toggles() {
		if namespace == "" || t.Namespace == namespace || t.Namespace == policy.AllNamespaces {
			all = append(all, t)
		}
	}
	return all
}
