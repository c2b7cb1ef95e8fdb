package session_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/purge"
	"github.com/nearside-cache/nearside/sidecar/session"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
	"github.com/nearside-cache/nearside/sidecar/toggle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a cache and what its sessions share.
type rig struct {
	*sidecartest.Cache
	env *session.Env
}

func newRig(t testing.TB, change func(*cache.Config)) *rig {
	c := sidecartest.NewCache(t, sidecartest.NewStream(t), change)
	registry := prometheus.NewRegistry()
	log, err := audit.Open("", hclog.NewNullLogger(), registry)
	require.NoError(t, err)
	return &rig{Cache: c, env: &session.Env{
		Cache: c.Cache, Clients: session.NewClients(), Version: "1.2.3", Started: time.Now(), Memory: 16 << 20, BarrierTimeout: sidecartest.Wait,
		Limits:   resp.Limits{MaxBulk: 1 << 20, MaxFrame: 4 << 20, MaxArgs: 1 << 16},
		Metrics:  session.NewMetrics(registry),
		Toggles:  toggle.New(toggle.Config{Policies: c.Policies(), Apply: c.SetPolicies, Clock: c.Clock.Now, Audit: log, Registerer: registry}),
		Purges:   purge.New(purge.Config{Policies: c.Policies, Clock: c.Clock.Now, Audit: log, Registerer: registry}),
		Settings: func() string { return "[]" },
	}}
}

// peer drives one session with bytes.
type peer struct {
	t     testing.TB
	s     *session.Session
	wake  chan struct{}
	in    []byte
	ended bool
	most  int // bytes of output that one Serve left, at most
}

func (r *rig) dial(t testing.TB) *peer {
	p := &peer{t: t, wake: make(chan struct{}, 1)}
	p.s = session.New(r.env, func() {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	})
	t.Cleanup(func() {
		p.s.Close()
		p.s.Close() // may be called twice
	})
	return p
}

// feed brings input and returns all that is answered to it, parked operations
// included.
func (p *peer) feed(in []byte) string {
	p.in = append(p.in, in...)
	var all []byte
	for {
		n, out, next := p.s.Serve(p.in, nil)
		p.in = p.in[n:]
		p.most = max(p.most, len(out))
		all = append(all, out...)
		switch next {
		case session.Input:
			return string(all)
		case session.End:
			p.ended = true
			return string(all)
		case session.Run:
			ctx, cancel := context.WithTimeout(context.Background(), sidecartest.Wait)
			p.s.Waiting().Run(ctx)
			cancel()
			all = p.s.Finish(all)
		}
	}
}

// do sends a command, given as words between blanks, and returns the answer with
// its line ends shown as |.
func (p *peer) do(command string) string {
	return shown(p.feed(resp.AppendCommand(nil, strings.Fields(command)...)))
}

// args is do for arguments that blanks do not separate.
func (p *peer) args(args ...string) string { return shown(p.feed(resp.AppendCommand(nil, args...))) }

func shown(answer string) string { return strings.ReplaceAll(answer, resp.CRLF, "|") }

// reply sends a command and returns its decoded answer.
func (p *peer) reply(command string) resp.Reply {
	p.t.Helper()
	all := parse(p.t, []byte(p.feed(resp.AppendCommand(nil, strings.Fields(command)...))))
	require.Len(p.t, all, 1, command)
	return all[0]
}

// parse decodes output, which must be whole replies.
func parse(t testing.TB, out []byte) []resp.Reply {
	t.Helper()
	var all []resp.Reply
	for r := bufio.NewReader(bytes.NewReader(out)); ; {
		reply, err := resp.ReadReply(r, resp.ReplyLimits{})
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err, "%.200q", out)
		all = append(all, reply)
	}
}

func key(k string) bus.KeyVersion { return bus.KeyVersion{Key: k} }
