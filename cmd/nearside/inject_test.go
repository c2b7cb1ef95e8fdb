package main

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
	"github.com/nearside-cache/nearside/kube/inject"
	"github.com/nearside-cache/nearside/kube/inject/manifest"
	"github.com/nearside-cache/nearside/sidecar"
)

// injected returns a pod whose only container is the sidecar, with everything that
// settings can add to it.
func injected(t *testing.T, mode string) manifest.Pod {
	s := inject.Defaults()
	s.Mode, s.Config = mode, "policies"
	s.NATS.JetStreamDomain = "hub"
	s.NATS.CredsSecret.Name, s.NATS.NKeySecret.Name, s.NATS.CASecret.Name, s.NATS.TLSSecret.Name = "a", "b", "c", "d"
	var pod manifest.Pod
	_, err := manifest.Edit([]byte("{apiVersion: v1, kind: Pod, spec: {}}"), func(p manifest.Pod) (bool, error) {
		pod = p
		return s.Inject(p.Pod)
	})
	require.NoError(t, err)
	return pod
}

// What is injected is what this binary reads: its variables, its words, its
// socket. kube/inject does not know the binary.
func TestInjectedVariables(t *testing.T) {
	flags := make(map[string]*pflag.Flag)
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	new(serveOptions).register(fs)
	fs.VisitAll(func(f *pflag.Flag) { flags[settings.Variable(f)] = f })
	env := injected(t, inject.ModeNative).Spec.InitContainers[0].Env
	require.Len(t, env, 15)
	for _, v := range env {
		require.Contains(t, flags, v.Name)
		require.NoError(t, fs.Set(flags[v.Name].Name, v.Value))
	}
	require.Equal(t, sidecar.DefaultConfig().Socket, inject.Socket)
	native := injected(t, inject.ModeNative).Spec.InitContainers[0]
	classic := injected(t, inject.ModeClassic).Spec.Containers[0]
	require.Equal(t, native.Args, classic.Args)
	for _, words := range [][]string{append([]string{"nearside"}, native.Args...), native.StartupProbe.Exec.Command, classic.Lifecycle.PostStart.Exec.Command} {
		root := newRoot()
		require.Equal(t, root.Name(), words[0])
		found, rest, err := root.Find(words[1:])
		require.NoError(t, err)
		require.NotEqual(t, root, found)
		require.NoError(t, found.ParseFlags(rest))
	}
}

// A domain that an annotation may name is one.
func TestInjectedDomains(t *testing.T) {
	for _, a := range inject.Annotations() {
		if a.Name != "domain" {
			continue
		}
		for _, domain := range []string{"", "a", "A", "a.b", "shop_eu-1", "-", strings.Repeat("a", bus.MaxDomain), strings.Repeat("a", bus.MaxDomain+1)} {
			_, err := bus.NewSubjects(domain)
			require.Equal(t, err == nil, a.Allowed.MatchString(domain), "%q", domain)
		}
	}
}
