package native

import (
	"context"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/operation"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

func (s *Session) status(id uint32, _ *near.None) {
	s.answer(near.KindStatus.Answer(), id, descriptionOf(s.env.Status()))
}

func (s *Session) explain(id uint32, m *near.Explain) {
	if key := string(m.Key); !s.refused(id, operation.CheckKey(key)) {
		s.answer(near.KindExplain.Answer(), id, descriptionOf(s.env.Explain(key)))
	}
}

func descriptionOf(facts []operation.Fact) *near.Description {
	d := new(near.Description)
	for _, f := range facts {
		d.Facts = append(d.Facts, near.Fact{Name: f.Name, Value: f.Value})
	}
	return d
}

func (s *Session) policy(id uint32, m *near.Policy) {
	var state near.PolicyState
	if m.Namespace != "" {
		if s.refused(id, operation.CheckNamespace(m.Namespace)) {
			return
		}
		p := s.env.Policy(m.Namespace)
		state = near.PolicyState{Namespace: m.Namespace, Block: p.Block, Mode: p.Mode, Purges: p.Purges, Effects: p.Effects}
	}
	for _, t := range s.env.TogglesOf(m.Namespace) {
		state.Toggles = append(state.Toggles, near.ToggleState{
			Namespace: t.Namespace, Setting: string(t.Setting), Value: t.Value, Left: max(0, t.Left),
		})
	}
	s.answer(near.KindPolicy.Answer(), id, &state)
}

func (s *Session) toggle(id uint32, m *near.Toggle) {
	c := toggle.Change{Namespace: m.Namespace, Setting: toggle.Setting(m.Setting), Value: m.Value, For: m.For, By: s.who()}
	s.change(near.KindToggle, id, m.Namespace, len(m.Setting)+len(m.Value), func() (int, error) { return 1, s.env.Toggles.Set(c) })
}

func (s *Session) untoggle(id uint32, m *near.Untoggle) {
	namespace, by := m.Namespace, s.who()
	s.change(near.KindUntoggle, id, namespace, 0, func() (int, error) { return s.reset(namespace, by), nil })
}

func (s *Session) reset(namespace string, by audit.Who) int {
	return s.env.Toggles.Reset(namespace, by)
}

// change makes a change of toggles where blocking is allowed, for its record is written
// to a file, and answers how many there were. bytes is what it keeps besides the name.
func (s *Session) change(kind near.Kind, id uint32, namespace string, bytes int, change func() (int, error)) {
	if namespace != policy.AllNamespaces && s.refused(id, operation.CheckNamespace(namespace)) {
		return
	}
	var (
		n   int
		err error
	)
	s.await(id, len(namespace)+bytes, &waiting{
		run: func(context.Context) { n, err = change() },
		answer: func() bool {
			if err != nil {
				s.fail(id, near.BadValue, "%v", err)
				return false
			}
			s.answer(kind.Answer(), id, &near.Count{N: uint64(n)})
			return false
		},
	})
}

func (s *Session) settings(id uint32, _ *near.None) {
	s.answer(near.KindSettings.Answer(), id, &near.SettingsText{JSON: []byte(s.env.Settings())})
}
