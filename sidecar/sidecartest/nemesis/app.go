package nemesis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sdk/go/nearside"
)

// app is a program beside a sidecar that uses the SDK, with an L0. Its readers share the
// client. It is safe for concurrent use.
type app struct {
	sidecar *sidecar

	mu  sync.Mutex
	now *appClient // nil: there was none yet
}

// appClient is the app's client to one life of its sidecar: it finds no way to another
// one.
type appClient struct {
	life life
	sdk  *nearside.Client
}

// client returns that to the life that runs now.
func (a *app) client() (*appClient, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.sidecar.current()
	l.l0 = true
	if a.now != nil && a.now.life == l {
		return a.now, nil
	}
	if err := a.closeLocked(); err != nil {
		return nil, err
	}
	sdk, err := nearside.Open(nearside.Options{
		Name: "nemesis", WriteTimeout: patience, L0: &nearside.L0Options{},
		Dial: func(ctx context.Context) (net.Conn, error) { return a.sidecar.connect(ctx, l) },
	})
	if err != nil {
		return nil, err
	}
	a.now = &appClient{life: l, sdk: sdk}
	return a.now, nil
}

func (a *app) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closeLocked()
}

func (a *app) closeLocked() error {
	if a.now == nil {
		return nil
	}
	return a.now.sdk.Close()
}

// connect is a connection to one life of a sidecar.
func (s *sidecar) connect(ctx context.Context, l life) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.socket)
	if err != nil {
		return nil, err
	}
	if now := s.current(); now != l.sidecar() { // as in dial
		return nil, errors.Join(fmt.Errorf("%s was restarted meanwhile", s.name), conn.Close())
	}
	return conn, nil
}

func (c *appClient) of() life { return c.life }

// get reads under a mode. What it rests on is in the answer itself: of one by L0, the
// position up to which L0 had been told everything.
func (c *appClient) get(ctx context.Context, r read, _ bool) (a answer, applied bus.Position, err error) {
	options := []nearside.ReadOption{nearside.WithToken()}
	switch r.mode {
	case anyFresh:
		options = append(options, nearside.Any())
	case maxStale:
		options = append(options, nearside.MaxStale(r.bound))
	case atLeast:
		options = append(options, nearside.AtLeast(nearside.Token(r.token.text)))
	case strong, regular:
		options = append(options, nearside.Strong())
	}
	if r.wait >= 0 {
		options = append(options, nearside.Wait(r.wait))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	found, err := c.sdk.Get(ctx, r.key, options...)
	if err != nil {
		return a, applied, err
	}
	a = answer{
		status: found.Status.String(), value: string(found.Value), version: found.Version,
		token: string(found.Token), lease: string(found.Lease), byL0: found.FromL0,
	}
	if a.byL0 {
		p, err := near.ParseToken(a.token)
		if err != nil {
			return a, applied, fmt.Errorf("the token of an answer by L0: %w", err)
		}
		applied = bus.Position{Epoch: bus.Epoch{Created: p.Created, Fork: p.Fork}, Seq: p.Seq}
	}
	return a, applied, nil
}

func (c *appClient) fill(ctx context.Context, o offer) (stored bool, err error) {
	f := nearside.Fill{Key: o.key, Lease: nearside.Lease(o.lease), TTL: o.ttl.Truncate(time.Millisecond), Absent: o.absent}
	if !o.unversioned {
		f.Version = o.version
	}
	if !o.absent {
		f.Value = []byte(valueOf(o.found))
	}
	if len(o.hangs) > 0 {
		if names := o.hangs[2:]; o.hangs[0] == "TAGS" {
			f.Tags = names
		} else {
			f.Depends = names
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	filled, err := c.sdk.Fill(ctx, f)
	return filled.Stored, err
}

// invalidate says that a key has changed.
func (c *appClient) invalidate(ctx context.Context, key string, version uint64) (p bus.Position, text string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	token, err := c.sdk.Invalidate(ctx, nearside.Key(key, version))
	if err != nil {
		return p, "", err
	}
	p, err = bus.ParseToken(string(token))
	return p, string(token), err
}

// appReader reads through the SDK until ctx ends. An eager one never waits.
func (w *worker) appReader(ctx context.Context, a *app, eager bool) {
	for ctx.Err() == nil {
		c, err := a.client()
		if err == nil {
			err = w.readApp(ctx, c, eager)
		}
		if !answered(err) {
			w.counts.add("unreachable by the SDK", 1)
			wait(w.span(pause), ctx.Done())
		}
		wait(w.span(4*time.Millisecond), ctx.Done())
	}
}

// readApp reads some key in some mode.
func (w *worker) readApp(ctx context.Context, c *appClient, eager bool) error {
	key := w.key(w.near)
	switch n := w.rng.IntN(8); {
	case n == 0:
		return w.readPage(ctx, c, w.key(w.pages), eager)
	case n < 4:
		key = w.key(w.loaded)
	}
	m := modeOf(key, w.mode(eager))
	if spaceOf(key) != nil && w.chance(4) {
		m = classMode(key)
	}
	return w.readNear(ctx, c, key, m, eager && !m.linear() && m != regular)
}

// compareApp compares what L0 holds, once it has been told everything.
func (r *run) compareApp(ctx context.Context, a *app) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if _, err := c.sdk.Barrier(ctx); err != nil {
		return fmt.Errorf("by the SDK: %w", err)
	}
	for _, key := range r.keys() {
		found, err := c.sdk.Get(ctx, key, nearside.Any(), nearside.Wait(0))
		if err != nil {
			return fmt.Errorf("by the SDK: %w", err)
		}
		if found.FromL0 && found.Status.Found() {
			r.holds(c.life, key, string(found.Value))
		}
	}
	return nil
}
