package session_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/session"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// pushed waits until something is to be pushed and returns it.
func (p *peer) pushed() []resp.Reply {
	p.t.Helper()
	for {
		select {
		case <-p.wake:
			if out := p.s.Pushes(nil); len(out) > 0 {
				return parse(p.t, out)
			}
		case <-time.After(sidecartest.Wait):
			p.t.Fatal("nothing is pushed")
		}
	}
}

func event(t testing.TB, r resp.Reply) (e session.Event) {
	t.Helper()
	require.Equal(t, resp.KindPush, r.Kind)
	require.Equal(t, "near.event", r.Elems[0].Str)
	require.NoError(t, json.Unmarshal([]byte(r.Elems[1].Str), &e))
	return e
}

func TestWatch(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	require.Equal(t, "-ERR NEAR.WATCH pushes messages: choose RESP3 with HELLO 3 first|", p.do("NEAR.WATCH"))
	p.do("HELLO 3")
	require.Equal(t, "+OK|", p.do("NEAR.WATCH"))
	require.Equal(t, "-ERR this connection is watching already|", p.do("NEAR.WATCH"))

	at := r.Publish(t, bus.Event{Keys: []bus.KeyVersion{{Key: "ns:a", Version: 7}}, Writer: "me"})
	all := p.pushed()
	require.Len(t, all, 1)
	e := event(t, all[0])
	require.Equal(t, session.Event{
		Seq: at.Seq, Position: at.String(), Op: "invalidate", Namespace: "ns", Keys: []session.EventKey{{Key: "ns:a", Version: 7}},
		Writer: "me", Stored: e.Stored, LagMicros: e.LagMicros,
	}, e)
	require.Empty(t, p.s.Pushes(nil), "once")

	keys := make([]bus.KeyVersion, 25)
	for i := range keys {
		keys[i] = key("k" + string(rune('a'+i)))
	}
	r.Event(t, keys...)
	e = event(t, p.pushed()[0])
	require.Len(t, e.Keys, 20)
	require.Equal(t, 5, e.MoreKeys)

	_, err := r.Stream.Publish("nearside.default.ev.ns", "", []byte("noise"))
	require.NoError(t, err)
	e = event(t, p.pushed()[0])
	require.NotEmpty(t, e.Error)
}

// After RESET, HELLO 2 and the end nothing more is pushed, not even what was
// waiting: the client takes it for an answer.
func TestWatchStops(t *testing.T) {
	for _, stop := range []string{"RESET", "HELLO 2", "HELLO 2 SETNAME x"} {
		t.Run(stop, func(t *testing.T) {
			r := newRig(t, nil)
			p := r.dial(t)
			p.do("HELLO 3")
			p.do("NEAR.WATCH")
			r.Event(t, key("a"))
			<-p.wake // and the client does not get it before
			p.do(stop)
			require.Empty(t, p.s.Pushes(nil))
			r.Event(t, key("a"))
			require.Empty(t, p.s.Pushes(nil))
			p.do("HELLO 3")
			require.Equal(t, "+OK|", p.do("NEAR.WATCH"), "it may watch again")
		})
	}
}

// A client that does not read loses events, and is told how many.
func TestWatcherThatDoesNotRead(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial(t)
	p.do("HELLO 3")
	p.do("NEAR.WATCH")
	room := 0
	for p.s.Push(func(out []byte) []byte { return append(out, make([]byte, 1000)...) }) {
		room += 1000
	}
	require.LessOrEqual(t, room, session.OutboxMax+1000)
	for _, k := range []string{"a", "b"} { // two events that find no room
		select {
		case <-p.wake:
		default:
		}
		r.Event(t, key(k))
		<-p.wake
	}
	p.s.Pushes(nil)
	r.Event(t, key("c"))
	e := event(t, p.pushed()[0])
	require.Equal(t, "c", e.Keys[0].Key)
	require.Equal(t, uint64(2), e.Lost)
	r.Event(t, key("d"))
	require.Zero(t, event(t, p.pushed()[0]).Lost)
}
