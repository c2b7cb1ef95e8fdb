package sidecar

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nearside-cache/nearside/sidecar/session"
)

// echo answers each byte with itself, in the steps that it is told to take.
type echo struct {
	served int  // calls of Serve
	most   int  // bytes that one was given
	steps  bool // a byte at a time, as long answers are
	begun  bool // a command that is never completed
	hoards bool // whatever comes is not yet enough
	ahead  int  // bytes last looked ahead at

	onServe func()
}

func (e *echo) Serve(in, out []byte) (int, []byte, session.Next) {
	e.served++
	if e.onServe != nil {
		e.onServe()
	}
	e.most = max(e.most, len(in))
	if e.hoards {
		return 0, out, session.Input
	}
	if e.steps && len(in) > 1 {
		return 1, append(out, in[0]), session.Flush
	}
	return len(in), append(out, in...), session.Input
}

func (e *echo) Ahead(in []byte, keys []string) []string {
	e.ahead = len(in)
	return keys
}

func (*echo) Pushes(out []byte) []byte { return append(out, '!') }
func (*echo) WantMore() int            { return 0 }
func (e *echo) Begun() bool            { return e.begun }
func (*echo) Received() uint64         { return 0 }
func (*echo) Fault() bool              { return false }
func (*echo) Waiting() *session.Wait   { return nil }
func (*echo) Finish(out []byte) []byte { return out }
func (*echo) Pending() int             { return 0 }
func (*echo) Close()                   {}

func (*echo) Refuse(out []byte, words string) []byte { return append(out, "-ERR "+words+"\r\n"...) }

// rig is a loop whose steps the test takes.
type rig struct {
	t testing.TB
	s *server
	l *loop
}

func newRig(t testing.TB) *rig {
	cfg := DefaultConfig()
	s := newServer(cfg, &session.Env{}, prometheus.NewRegistry())
	l, err := newLoop(context.Background(), s)
	require.NoError(t, err)
	l.clock = func() time.Duration { return 0 }
	t.Cleanup(func() { require.NoError(t, l.close()) })
	return &rig{t, s, l}
}

// step takes a step that does not wait.
func (r *rig) step() {
	r.l.mail.ring()
	r.l.step()
}

// dial connects a client that converses with e; it never blocks.
func (r *rig) dial(e *echo) (client int, c *line) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { unix.Close(fds[0]) })
	c = newLine(r.l, fds[1], func() string { return "test" })
	c.talk = e
	r.s.open++
	r.s.left.Add(1)
	r.s.conns[c] = struct{}{}
	c.start()
	r.step()
	r.t.Cleanup(func() {
		c.kill()
		r.step()
		require.True(r.t, c.closed)
	})
	return fds[0], c
}

func (r *rig) write(fd int, b []byte) {
	r.t.Helper()
	n, err := unix.Write(fd, b)
	require.NoError(r.t, err)
	require.Equal(r.t, len(b), n)
}

// arrived is what a client can read now.
func (r *rig) arrived(fd int) []byte {
	b := make([]byte, 1<<20)
	n, err := unix.Read(fd, b)
	if err == unix.EAGAIN {
		return nil
	}
	require.NoError(r.t, err)
	return b[:n]
}

// A client with much on its way gets its share of a turn, and no more; another is
// answered in the turn in which its request comes.
func TestDeepPipelineStarvesNobody(t *testing.T) {
	r := newRig(t)
	deep, shallow := &echo{}, &echo{}
	one, _ := r.dial(deep)
	other, _ := r.dial(shallow)
	r.write(one, bytes.Repeat([]byte("x"), 4*turnInput))
	for turn := 1; turn <= 4; turn++ {
		r.write(other, []byte("y"))
		r.step()
		require.Equal(t, turn, deep.served)
		require.Equal(t, turn, shallow.served)
		require.Len(t, r.arrived(one), turnInput)
		require.Equal(t, "y", string(r.arrived(other)))
	}
	require.Equal(t, turnInput, deep.most)
}

// Nor does one whose answers are long.
func TestLongAnswersStarveNobody(t *testing.T) {
	r := newRig(t)
	long, short := &echo{steps: true}, &echo{}
	one, _ := r.dial(long)
	other, _ := r.dial(short)
	r.write(one, []byte("12345"))
	for turn := 1; turn <= 5; turn++ {
		r.write(other, []byte("y"))
		r.step()
		require.Equal(t, turn, long.served)
		require.Equal(t, "12345"[turn-1:turn], string(r.arrived(one)))
		require.Equal(t, "y", string(r.arrived(other)))
	}
}

// Who does not read is not served either: nothing piles up, and the loop waits for
// nobody.
func TestUnreadAnswersAreBounded(t *testing.T) {
	r := newRig(t)
	slow, quick := &echo{}, &echo{}
	one, c := r.dial(slow)
	other, _ := r.dial(quick)
	sent := 0
	for !c.blocked {
		n, err := unix.Write(one, bytes.Repeat([]byte("x"), turnInput))
		require.NoError(t, err)
		sent += n
		r.step()
	}
	served := slow.served
	r.write(one, []byte("more"))
	c.wake() // and what is pushed waits as well
	for range 10 {
		r.write(other, []byte("y"))
		r.step()
		require.Equal(t, "y", string(r.arrived(other)))
	}
	require.Equal(t, served, slow.served)
	require.LessOrEqual(t, cap(c.out.bytes), 2*turnInput)
	require.NotNil(t, c.writeBy.in)

	got := 0
	for got < sent+len("more")+1 {
		got += len(r.arrived(one))
		r.step()
	}
	require.Equal(t, sent+len("more")+1, got)
	require.False(t, c.blocked)
	require.Nil(t, c.writeBy.in)
	require.Zero(t, cap(c.out.bytes))
	require.Zero(t, r.s.buffers.used.Load())
}

// What all connections of a turn are about to read is looked at before any is served.
func TestTurnLooksAhead(t *testing.T) {
	r := newRig(t)
	a, b := &echo{}, &echo{}
	one, _ := r.dial(a)
	other, _ := r.dial(b)
	seen := 0
	look := func() {
		require.Equal(t, []int{1, 2}, []int{a.ahead, b.ahead})
		seen++
	}
	a.onServe, b.onServe = look, look
	r.write(one, []byte("x"))
	r.write(other, []byte("yy"))
	r.step()
	require.Equal(t, 2, seen)
}

// What was held for a connection that finds no more memory is there for another of the
// same turn: not both are refused.
func TestOneCrowdedOutMakesRoom(t *testing.T) {
	r := newRig(t)
	const kept = turnInput - firstBuffer // reserved for each after the first turn
	r.s.buffers.limit = 2 * (kept + firstBuffer/2)
	one, first := r.dial(&echo{hoards: true})
	other, second := r.dial(&echo{hoards: true})
	r.write(one, make([]byte, turnInput+firstBuffer*3/4))
	r.write(other, make([]byte, turnInput+firstBuffer*3/4))
	for range 5 {
		r.step()
	}
	require.Equal(t, endBuffers, first.end)
	require.True(t, first.closed)
	require.False(t, second.closed)
	require.Len(t, second.in.bytes, turnInput+firstBuffer*3/4)
}

// What comes while a client does not read is not forgotten: a push, and the end of an
// operation.
func TestBlockedLineGoesOn(t *testing.T) {
	r := newRig(t)
	client, c := r.dial(&echo{})
	sent, got := 0, 0
	block := func() {
		for !c.blocked {
			n, err := unix.Write(client, bytes.Repeat([]byte("x"), turnInput/2)) // leaves nothing to read
			require.NoError(t, err)
			sent += n
			r.step()
		}
	}
	drain := func() {
		for got < sent {
			got += len(r.arrived(client))
			r.step()
		}
	}
	block()
	c.wake()
	r.step()
	sent++ // the push
	drain()

	block()
	c.parked = true
	c.finished.Store(true)
	r.l.mail.post(c)
	r.step()
	require.True(t, c.parked)
	drain()
	r.step()
	require.False(t, c.parked)
}

// A connection ends once, whatever comes late; its place is another's then.
func TestLateMailIsForNobody(t *testing.T) {
	r := newRig(t)
	client, c := r.dial(&echo{})
	place := c.place
	require.NoError(t, unix.Close(client))
	r.step()
	r.step()
	require.True(t, c.closed)
	require.Zero(t, r.s.opened())
	c.wake()
	c.kill()
	r.step()
	require.InDelta(t, 1, testutil.ToFloat64(r.s.closed.WithLabelValues(string(endClient))), 0)
	require.InDelta(t, 0, testutil.ToFloat64(r.s.closed.WithLabelValues(string(endDrain))), 0)
	_, next := r.dial(&echo{})
	require.Equal(t, place, next.place)
}

// Bytes and the end of input that come together are both seen.
func TestLastWords(t *testing.T) {
	r := newRig(t)
	client, c := r.dial(&echo{})
	r.write(client, []byte("bye"))
	require.NoError(t, unix.Shutdown(client, unix.SHUT_WR))
	r.step()
	require.Equal(t, "bye", string(r.arrived(client)))
	r.step()
	require.True(t, c.closed)
	require.Equal(t, endClient, c.end)
}

// A command whose time is over while there is more to be read is judged after that.
func TestLateCommandIsSeenWhenMoreIsWaitedFor(t *testing.T) {
	r := newRig(t)
	r.l.frames.each = 0
	client, c := r.dial(&echo{begun: true})
	r.write(client, make([]byte, 2*turnInput))
	r.step()
	require.True(t, c.overdue)
	require.Len(t, r.arrived(client), turnInput)
	r.step()
	require.False(t, c.closed)
	require.Len(t, r.arrived(client), turnInput)
	r.step()
	require.Equal(t, "-ERR "+lateText+"\r\n", string(r.arrived(client)))
	require.Equal(t, endFrame, c.end)
	require.True(t, c.closed)
}

// A turn allocates nothing.
func TestTurnDoesNotAllocate(t *testing.T) {
	r := newRig(t)
	client, _ := r.dial(&echo{})
	request, answer := []byte("request"), make([]byte, 100)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, _ = unix.Write(client, request)
		r.step()
		if n, _ := unix.Read(client, answer); n != len(request) {
			t.Error("no answer")
		}
	}))
}

func TestDeadlines(t *testing.T) {
	ds := deadlines{each: 10}
	a, b, c := &line{}, &line{}, &line{}
	for i, l := range []*line{a, b, c} {
		l.frameBy.line = l
		ds.begin(&l.frameBy, time.Duration(i))
	}
	b.frameBy.end()
	b.frameBy.end()
	ds.begin(&a.frameBy, 5) // anew, behind c
	require.Equal(t, time.Duration(10), ds.left(2))
	require.Nil(t, ds.due(11))
	require.Same(t, c, ds.due(14))
	require.Nil(t, ds.due(14))
	require.Same(t, a, ds.due(15))
	require.Equal(t, forever, ds.left(15))
}
