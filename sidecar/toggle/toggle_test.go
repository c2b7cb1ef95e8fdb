package toggle_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

// rig is a board that runs until the test ends.
type rig struct {
	*toggle.Board
	t        *testing.T
	file     string // of the audit
	registry *prometheus.Registry
	applied  atomic.Pointer[policy.Set]
}

var somebody = audit.Who{Peer: "uid 1000, pid 7", Client: "cli", ID: 3}

// bubble runs a test in virtual time.
func bubble(t *testing.T, test func(*rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, file: filepath.Join(t.TempDir(), "audit"), registry: prometheus.NewRegistry()}
		r.applied.Store(policy.DefaultSet())
		log, err := audit.Open(r.file, hclog.NewNullLogger(), r.registry)
		require.NoError(t, err)
		start := time.Now()
		r.Board = toggle.New(toggle.Config{
			Policies: r.applied.Load(), Apply: func(p *policy.Set) { r.applied.Store(p) }, Audit: log, Registerer: r.registry,
			Clock: func() time.Duration { return time.Hour + time.Since(start) },
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		synctest.Wait() // it waits for what is to come
		test(r)
		stop()
		require.NoError(t, <-ended)
	})
}

// records returns what the audit says, in short.
func (r *rig) records() (all []string) {
	f, err := os.Open(r.file)
	require.NoError(r.t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var a audit.Record
		require.NoError(r.t, json.Unmarshal(s.Bytes(), &a))
		until := ""
		if a.Until != nil {
			until = " for " + a.Until.Sub(a.Time).String()
		}
		all = append(all, fmt.Sprintf("%s %s %s %s→%s%s by %s", a.What, a.Namespace, a.Setting, a.Before, a.After, until, a.By.Peer))
	}
	return all
}

// metrics returns what is counted of toggles, by name and labels.
func (r *rig) metrics() map[string]float64 {
	families, err := r.registry.Gather()
	require.NoError(r.t, err)
	all := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			if len(m.Label) == 0 {
				continue
			}
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

func (r *rig) set(namespace, setting, value string, d time.Duration) {
	require.NoError(r.t, r.Set(toggle.Change{Namespace: namespace, Setting: toggle.Setting(setting), Value: value, For: d, By: somebody}))
}

func (r *rig) mode(namespace string) policy.Mode { return r.applied.Load().Of(namespace).Mode }

// after lets time pass, and the board do what is due.
func (r *rig) after(d time.Duration) {
	time.Sleep(d) // in virtual time
	synctest.Wait()
}

func TestToggleIsRolledBack(t *testing.T) {
	bubble(t, func(r *rig) {
		r.set("product", "mode", "shadow", 10*time.Minute)
		require.Equal(t, policy.Shadow, r.mode("product"))
		require.Equal(t, policy.Enforce, r.mode("price"))
		r.set("price", "purges", "pause", 2*time.Second)
		require.True(t, r.applied.Load().Of("price").WidePurges.Paused)
		require.Equal(t, []toggle.Toggle{
			{Namespace: "price", Setting: "purges", Value: "pause", Left: 2 * time.Second},
			{Namespace: "product", Setting: "mode", Value: "shadow", Left: 10 * time.Minute},
		}, r.Toggles())
		r.after(2 * time.Second)
		require.False(t, r.applied.Load().Of("price").WidePurges.Paused)
		r.after(10*time.Minute - 2*time.Second - 1)
		require.Equal(t, policy.Shadow, r.mode("product"))
		r.after(1)
		require.Equal(t, policy.Enforce, r.mode("product"))
		require.Empty(t, r.Toggles())
		require.Equal(t, []string{
			"toggle product mode enforce→shadow for 10m0s by uid 1000, pid 7",
			"toggle price purges resume→pause for 2s by uid 1000, pid 7",
			"rollback price purges pause→resume by nearside",
			"rollback product mode shadow→enforce by nearside",
		}, r.records())
		require.Equal(t, map[string]float64{
			"nearside_toggles mode": 0, "nearside_toggles purges": 0,
			"nearside_toggle_changes_total mode toggle": 1, "nearside_toggle_changes_total purges toggle": 1,
			"nearside_toggle_changes_total mode rollback": 1, "nearside_toggle_changes_total purges rollback": 1,
			"nearside_toggle_changes_total mode reset": 0, "nearside_toggle_changes_total purges reset": 0,
		}, r.metrics())
	})
}

// A later toggle of the same setting takes the place of the former, its end
// included.
func TestToggleReplacesTheFormer(t *testing.T) {
	bubble(t, func(r *rig) {
		r.set("product", "mode", "off", 2*time.Second)
		r.after(time.Second)
		r.set("product", "mode", "shadow", 0)
		r.after(24 * time.Hour)
		require.Equal(t, policy.Shadow, r.mode("product"))
		r.set("product", "mode", "enforce", time.Second)
		r.after(time.Second)
		require.Equal(t, policy.Enforce, r.mode("product"), "what the policy says, not the toggle before")
		require.Empty(t, r.Toggles())
	})
}

func TestTogglesSurviveNewPolicies(t *testing.T) {
	bubble(t, func(r *rig) {
		r.set("product", "mode", "off", 2*time.Second)
		next := policy.DefaultSet()
		next.Default.TTL = time.Second
		next.Default.Mode = policy.Shadow
		r.SetPolicies(next)
		require.Equal(t, policy.Off, r.mode("product"))
		require.Equal(t, time.Second, r.applied.Load().Of("product").TTL, "the rest is new")
		require.Equal(t, policy.Shadow, r.mode("price"))
		r.after(2 * time.Second)
		require.Equal(t, policy.Shadow, r.mode("product"), "back to the policy of now")
	})
}

func TestResetAndAll(t *testing.T) {
	bubble(t, func(r *rig) {
		r.set("*", "mode", "off", time.Hour)
		r.set("product", "mode", "enforce", 0)
		r.set("product", "purges", "pause", 0)
		require.Equal(t, policy.Off, r.mode("price"))
		require.Equal(t, policy.Enforce, r.mode("product"))
		require.Equal(t, 2, r.Reset("product", somebody))
		require.Equal(t, policy.Off, r.mode("product"))
		require.Zero(t, r.Reset("product", somebody))
		require.Equal(t, 1, r.Reset("*", somebody))
		require.Equal(t, policy.Enforce, r.mode("price"))
		require.Len(t, r.records(), 6)
		require.Contains(t, r.records(), "reset product mode enforce→off by uid 1000, pid 7")
	})
}

func TestRefusals(t *testing.T) {
	bubble(t, func(r *rig) {
		for want, c := range map[string]toggle.Change{
			`namespace ""`:                     {Setting: toggle.Mode, Value: "off"},
			`namespace "a:b"`:                  {Namespace: "a:b", Setting: toggle.Mode, Value: "off"},
			"want 1 to 256 bytes":              {Namespace: strings.Repeat("n", 257), Setting: toggle.Mode, Value: "off"},
			`setting "ttl"`:                    {Namespace: "a", Setting: "ttl", Value: "off"},
			"want one of enforce, shadow, off": {Namespace: "a", Setting: toggle.Mode, Value: "on"},
			"want one of pause, resume":        {Namespace: "a", Setting: toggle.Purges, Value: "off"},
			"want 1s to 720h0m0s":              {Namespace: "a", Setting: toggle.Mode, Value: "off", For: time.Millisecond},
			"for 721h0m0s":                     {Namespace: "a", Setting: toggle.Mode, Value: "off", For: 721 * time.Hour},
			"for -1s":                          {Namespace: "a", Setting: toggle.Mode, Value: "off", For: -time.Second},
		} {
			err := r.Set(c)
			require.ErrorIs(t, err, toggle.ErrRefused)
			require.ErrorContains(t, err, want)
		}
		require.Empty(t, r.records())
		for i := range 1000 {
			r.set(fmt.Sprint(i), "mode", "off", 0)
		}
		require.ErrorContains(t, r.Set(toggle.Change{Namespace: "x", Setting: toggle.Mode, Value: "off"}), "no room for more")
		r.set("7", "mode", "shadow", 0)
		require.Equal(t, policy.Shadow, r.mode("7"), "one that is there can still change")
	})
}
