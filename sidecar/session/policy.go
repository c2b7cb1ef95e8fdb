package session

import (
	"context"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/operation"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

var policyCommands = []command{
	{"NEAR.POLICY", -2, "", 0, 0, 0, "Tells what policies say, and toggles them for a while", (*Session).policyCommand},
}

// policyUsage is what NEAR.POLICY wants.
const policyUsage = "NEAR.POLICY GET [namespace] | SET namespace mode enforce|shadow|off [FOR duration] | SET namespace purges pause|resume [FOR duration] | RESET namespace | SETTINGS"

// policyCommand is NEAR.POLICY and its subcommands.
func (s *Session) policyCommand(args resp.Command) {
	w := words{rest: args[1:], usage: policyUsage}
	switch {
	case w.option("GET"):
		s.policyGet(&w)
	case w.option("SET"):
		s.policySet(&w)
	case w.option("RESET"):
		namespace := w.namespace()
		if fault := w.end(); fault != "" {
			s.fail(fault)
			return
		}
		s.parkToggle(func(by audit.Who) (int, error) { return s.env.Toggles.Reset(namespace, by), nil })
	case w.option("SETTINGS"):
		if fault := w.end(); fault != "" {
			s.fail(fault)
			return
		}
		s.text(s.env.Settings())
	default:
		s.fail(w.end())
	}
}

// policyGet tells what the policy of a namespace does, or which toggles there
// are.
func (s *Session) policyGet(w *words) {
	namespace := ""
	if len(w.rest) > 0 {
		namespace = w.namespace()
	}
	if fault := w.end(); fault != "" {
		s.fail(fault)
		return
	}
	toggles := s.env.TogglesOf(namespace)
	if namespace == "" {
		s.toggles(toggles)
		return
	}
	p := s.env.Policy(namespace)
	s.dict(6)
	for _, kv := range [][2]string{
		{"namespace", namespace}, {"block", p.Block}, {"mode", p.Mode}, {"purges", p.Purges},
	} {
		s.text(kv[0])
		s.text(kv[1])
	}
	s.text("effects")
	s.array(len(p.Effects))
	for _, e := range p.Effects {
		s.text(e)
	}
	s.text("toggles")
	s.toggles(toggles)
}

// toggles answers with a list of maps.
func (s *Session) toggles(all []toggle.Toggle) {
	s.array(len(all))
	for _, t := range all {
		s.facts([]operation.Fact{
			{Name: "namespace", Value: t.Namespace}, {Name: "setting", Value: string(t.Setting)},
			{Name: "value", Value: t.Value}, {Name: "left_ms", Value: t.Left.Milliseconds()},
		})
	}
}

// policySet is NEAR.POLICY SET namespace setting value [FOR duration].
func (s *Session) policySet(w *words) {
	c := toggle.Change{Namespace: w.namespace()}
	c.Setting = toggle.Setting(strings.ToLower(string(w.next("the setting"))))
	c.Value = strings.ToLower(string(w.next("its value")))
	if w.option("FOR") {
		text := string(w.next("the duration"))
		var err error
		if c.For, err = time.ParseDuration(text); (err != nil || c.For == 0) && w.fault == "" {
			w.fail("FOR is %.40q: want a duration such as 30s or 10m", text)
		}
	}
	if fault := w.end(); fault != "" {
		s.fail(fault)
		return
	}
	s.parkToggle(func(by audit.Who) (int, error) {
		c.By = by
		return 1, s.env.Toggles.Set(c)
	})
}

// parkToggle makes a change where blocking is allowed, for its record is written
// to a file, and answers how many toggles changed.
func (s *Session) parkToggle(change func(audit.Who) (int, error)) {
	var (
		by  = s.who()
		n   int
		err error
	)
	s.park(
		func(context.Context) { n, err = change(by) },
		func(s *Session) {
			if err != nil {
				s.fail("ERR " + err.Error())
				return
			}
			s.integer(int64(n))
		})
}

// Identify tells the session how to learn who is at the other end. It is called
// before the first Serve; peer is called by the goroutine of Serve, when somebody
// must be named in the audit.
func (s *Session) Identify(peer func() string) { s.peer = peer }

// who is the client, for the audit.
func (s *Session) who() audit.Who {
	w := audit.Who{Peer: "not known", Client: s.client.Name, ID: s.client.ID}
	if s.peer != nil {
		w.Peer = s.peer()
	}
	return w
}
