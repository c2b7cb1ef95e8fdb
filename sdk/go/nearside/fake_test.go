package nearside_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sdk/go/nearside"
)

// elapsed is the clock of fakes and their clients: virtual under testing/synctest.
func elapsed() time.Duration { return time.Since(time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)) }

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// fake is a sidecar without a stream: what is written is applied at once. Tests change
// what it does by hook.
type fake struct {
	mu      sync.Mutex
	values  map[string]near.Value // what it holds
	fenced  map[string]uint64     // lowest version that a fill may have
	leases  int
	seq     uint64
	peers   []*peer
	dials   int
	away    error // dialling fails with it
	bound   time.Duration
	now     func() time.Duration
	welcome near.Welcome
	// hook may answer a request in the fake's place; it is called without the lock.
	hook func(p *peer, h near.Header, m near.Message) (done bool)
}

func newFake() *fake {
	return &fake{
		values: map[string]near.Value{}, fenced: map[string]uint64{}, seq: 1, bound: 30 * time.Second, now: elapsed,
		welcome: near.Welcome{Version: near.Version, BootID: bootID(), Limits: near.Limits{Value: 1 << 20, Frame: 1 << 24, Tracked: 65536}},
	}
}

// peer is a connection that a fake has accepted.
type peer struct {
	f       *fake
	nc      net.Conn
	mu      sync.Mutex // of writes
	tracks  bool
	watches bool
}

// dial connects a client to the fake.
func (f *fake) dial(context.Context) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials++
	if f.away != nil {
		return nil, f.away
	}
	client, server := net.Pipe()
	f.accept(server)
	return client, nil
}

func (f *fake) accept(nc net.Conn) {
	p := &peer{f: f, nc: nc}
	f.peers = append(f.peers, p)
	go p.serve()
}

// listen serves real connections until l is closed.
func (f *fake) listen(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.accept(nc)
		f.mu.Unlock()
	}
}

// leave makes the fake away: connections break, new ones are refused.
func (f *fake) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = errors.New("no such file or directory")
	for _, p := range f.peers {
		p.nc.Close()
	}
	f.peers = nil
}

func (f *fake) comeBack() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = nil
}

func (f *fake) hooked(hook func(p *peer, h near.Header, m near.Message) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

func (f *fake) dialled() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials
}

// open returns a client of the fake.
func (f *fake) open(t testing.TB, o nearside.Options) *nearside.Client {
	if o.Dial == nil {
		o.Dial = f.dial
	}
	if o.Clock == nil {
		o.Clock = elapsed
	}
	c, err := nearside.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func (p *peer) serve() {
	defer p.nc.Close()
	var buf []byte
	chunk := make([]byte, 64<<10)
	for {
		n, err := p.nc.Read(chunk)
		if err != nil {
			return
		}
		buf = append(buf, chunk[:n]...)
		for {
			h, body, err := near.Next(buf)
			if err != nil {
				break
			}
			m, known := near.New(h.Kind)
			if !known || near.Parse(append([]byte(nil), body...), m) != nil {
				panic(fmt.Sprintf("the client sent a broken %s", h.Kind))
			}
			buf = buf[h.Size():]
			p.handle(h, m)
		}
	}
}

// send sends a frame; a client that has gone is not told.
func (p *peer) send(k near.Kind, id uint32, m near.Message) { p.raw(near.Append(nil, k, id, m)) }

func (p *peer) raw(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nc.Write(b)
}

func (p *peer) fail(h near.Header, code near.Code) {
	p.send(near.KindError, h.ID, &near.Error{Code: code, Message: "as the test wants"})
}

func (f *fake) token() string { return fmt.Sprintf("1-0-%x", f.seq) }

func (p *peer) handle(h near.Header, m near.Message) {
	f := p.f
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook != nil && hook(p, h, m) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := func(m near.Message) { p.send(h.Kind.Answer(), h.ID, m) }
	switch m := m.(type) {
	case *near.Hello:
		w := f.welcome
		w.Clock = f.now()
		answer(&w)
	case *near.Get:
		v := f.read(p, string(m.Key), &m.Read)
		answer(&v)
	case *near.Gets:
		var all near.Values
		for _, k := range m.Keys {
			all.Items = append(all.Items, f.read(p, string(k), &m.Read))
		}
		answer(&all)
	case *near.Fill:
		answer(f.fill(m))
	case *near.Release:
		answer(&near.Count{N: 1})
	case *near.Invalidate:
		for _, k := range m.Keys {
			f.drop(string(k.Key), k.Version)
		}
		f.publish(m)
		answer(&near.Written{Token: f.token()})
	case *near.Update:
		f.drop(string(m.Key), m.Version)
		f.publish(&near.Invalidate{Keys: []near.KeyVersion{{Key: m.Key, Version: m.Version}}})
		f.values[string(m.Key)] = near.Value{Status: near.Hit, Value: m.Value, Version: m.Version}
		answer(&near.Written{Token: f.token()})
	case *near.Track:
		p.tracks = m.On
		answer(&near.Fresh{AsOf: f.now(), Applied: f.token()})
	case *near.Explain:
		answer(&near.Description{Facts: []near.Fact{{Name: "key", Value: string(m.Key)}}})
	case *near.None:
		p.handleBare(h)
	default:
		p.send(near.KindError, h.ID, &near.Error{Code: near.Unknown})
	}
}

func (p *peer) handleBare(h near.Header) {
	answers := map[near.Kind]near.Message{
		near.KindPing: &near.Pong{Clock: p.f.now()}, near.KindBarrier: &near.Written{Token: p.f.token()},
		near.KindSubscribe: &near.None{}, near.KindUnsubscribe: &near.None{},
		near.KindStatus: &near.Description{Facts: []near.Fact{{Name: "state", Value: "live"}}},
	}
	switch h.Kind {
	case near.KindSubscribe:
		p.watches = true
	case near.KindUnsubscribe:
		p.watches = false
	}
	p.send(h.Kind.Answer(), h.ID, answers[h.Kind])
}

// read answers a read, under the lock.
func (f *fake) read(p *peer, key string, r *near.Read) near.Value {
	v, held := f.values[key]
	if !held {
		f.leases++
		return near.Value{Status: near.Miss, Lease: fmt.Sprintf("%s/%d/%d", key, f.fenced[key], f.leases), Flags: near.Right}
	}
	v.AsOf, v.Bound = f.now(), f.bound
	if p.tracks && r.Flags&near.ForL0 != 0 {
		v.Flags |= near.Cacheable
	}
	if r.Flags&near.WithToken != 0 {
		v.Token = f.token()
	}
	return v
}

// fill keeps a value whose lease is as new as the newest event of the key.
func (f *fake) fill(m *near.Fill) *near.Filled {
	var fence uint64
	rest := strings.TrimPrefix(m.Lease, string(m.Key)+"/")
	if _, err := fmt.Sscanf(rest, "%d/", &fence); err != nil || fence < f.fenced[string(m.Key)] {
		return &near.Filled{Verdict: "event"}
	}
	v := near.Value{Status: near.Hit, Value: m.Value, Version: m.Version}
	if m.Negative {
		v = near.Value{Status: near.Negative}
	}
	f.values[string(m.Key)] = v
	return &near.Filled{Stored: true}
}

// drop drops a key and tells who tracks.
func (f *fake) drop(key string, _ uint64) {
	delete(f.values, key)
	f.fenced[key] = f.seq + 1
	for _, p := range f.peers {
		if p.tracks {
			p.send(near.KindInvalidated, 0, &near.Invalidated{Scope: near.Keys, Names: [][]byte{[]byte(key)}})
		}
	}
}

// publish makes an event of a write and tells who watches.
func (f *fake) publish(m *near.Invalidate) {
	f.seq++
	for _, p := range f.peers {
		if p.watches {
			p.send(near.KindEvent, 0, &near.Event{Seq: f.seq, Op: "invalidate", Keys: m.Keys, Tags: m.Tags, Position: f.token()})
		}
	}
}

// set puts a value in, as if somebody had filled it.
func (f *fake) set(key, value string, version uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values[key] = near.Value{Status: near.Hit, Value: []byte(value), Version: version}
}

// push sends a push to all that are connected.
func (f *fake) push(k near.Kind, m near.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.peers {
		p.send(k, 0, m)
	}
}

// fresh tells everybody that they know everything up to now.
func (f *fake) fresh() {
	f.mu.Lock()
	m := near.Fresh{AsOf: f.now(), Applied: f.token()}
	f.mu.Unlock()
	f.push(near.KindFresh, &m)
}
