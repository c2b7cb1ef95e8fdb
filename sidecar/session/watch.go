package session

import (
	"encoding/json"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/operation"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// outboxMax bounds what waits to be pushed to a client that does not read.
const outboxMax = 1 << 20

// watch is what a session runs after NEAR.WATCH.
type watch struct {
	watcher *cache.Watcher
	stop    chan struct{} // closed by stopWatch
	done    chan struct{} // closed when the goroutine has ended
}

// startWatch is NEAR.WATCH: every event applied from now on is pushed as
// ["near.event", JSON], until RESET or the end of the connection.
func (s *Session) startWatch(resp.Command) {
	switch {
	case s.proto != resp.RESP3:
		s.fail("ERR NEAR.WATCH pushes messages: choose RESP3 with HELLO 3 first")
		return
	case s.watch != nil:
		s.fail("ERR this connection is watching already")
		return
	}
	w := &watch{watcher: s.cache.Watch(), stop: make(chan struct{}), done: make(chan struct{})}
	s.watch = w
	go w.run(s)
	s.ok()
}

func (s *Session) stopWatch() {
	if s.watch == nil {
		return
	}
	close(s.watch.stop)
	<-s.watch.done
	s.watch = nil
	s.mu.Lock()
	s.outbox = nil // of what was pushed nothing may follow the answer to RESET or HELLO 2
	s.mu.Unlock()
}

func (w *watch) run(s *Session) {
	defer close(w.done)
	defer w.watcher.Close()
	lost := uint64(0)
	for {
		select {
		case e := <-w.watcher.Events:
			lost += w.watcher.Lost()
			if s.Push(func(out []byte) []byte {
				out = resp.RESP3.AppendPush(out, 2)
				out = resp.AppendBulkString(out, "near.event")
				return resp.AppendBulk(out, describeEvent(e, lost, s.cache.Policies()))
			}) {
				lost = 0
			} else {
				lost++
			}
		case <-w.stop:
			return
		}
	}
}

// Push appends a message to what is to be sent, and reports whether there was
// room: not when the client has not read for long. Safe for concurrent use.
func (s *Session) Push(message func([]byte) []byte) bool {
	s.mu.Lock()
	room := len(s.outbox) < outboxMax
	if room {
		s.outbox = message(s.outbox)
	}
	s.mu.Unlock()
	s.wake()
	return room
}

// Event is what NEAR.WATCH pushes, as JSON. Fields are append-only.
type Event = operation.Event

// EventKey is one key of an Event.
type EventKey = operation.EventKey

func describeEvent(a cache.Applied, lost uint64, p *policy.Set) []byte {
	b, err := json.Marshal(operation.DescribeEvent(a, lost, p))
	if err != nil {
		panic("session: an event's description cannot be marshalled: " + err.Error())
	}
	return b
}
