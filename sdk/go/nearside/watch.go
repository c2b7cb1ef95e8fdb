package nearside

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/nearside-cache/nearside/api/near"
)

// watchBuffer is how many events wait for a watcher. Beyond, they are left out.
const watchBuffer = 1024

// Event is one that the sidecar has applied.
type Event struct {
	Seq       uint64
	Position  Token  // reads that present it are at least as new
	Op        string // invalidate, refresh, update, flush
	Namespace string // empty: all of the domain
	Keys      []KeyVersion
	MoreKeys  uint64 // that are not named
	Tags      []string
	Prefix    string
	Writer    string
	Stored    time.Time // when the stream stored it, by its clock
	Lag       time.Duration
	Error     string // it could not be decoded: what it may have named was flushed
	// Lost is how many events before this one are left out because the watcher or the
	// client was too slow.
	Lost uint64
	// Gap: from here on events come, and what came before is not known. It is so at the
	// beginning, and after the connection was away; then there need be nothing else in
	// the event.
	Gap bool
}

// KeyVersion is a key, and the source's version of its new value; 0: none.
type KeyVersion struct {
	Key     string
	Version uint64
}

// watchers are the Watches of a client. The first link's connection brings the events.
type watchers struct {
	client *Client

	mu  sync.Mutex
	all []*watcher
	on  *conn // that events come on
}

type watcher struct {
	events chan Event
	lost   uint64
	gap    bool
}

// Watch returns the events that the sidecar applies from now on, as they come, until the
// context or the client ends. It begins with an event with a Gap, and with another one after each time
// that the connection was away.
func (c *Client) Watch(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		w := &watcher{events: make(chan Event, watchBuffer)}
		if !c.begin(c.links[0]) {
			return
		}
		c.watchers.add(w)
		defer c.watchers.remove(w)
		for {
			select {
			case e := <-w.events:
				if !yield(e) {
					return
				}
			case <-ctx.Done():
				return
			case <-c.ctx.Done():
				return
			}
		}
	}
}

// add begins a Watch; the first one subscribes.
func (ws *watchers) add(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.all = append(ws.all, w)
	switch {
	case len(ws.all) == 1:
		ws.say(ws.client.links[0].current.Load(), near.KindSubscribe)
	case ws.on != nil:
		w.events <- Event{Gap: true} // it is new and has room
	}
}

// remove ends a Watch; the last one unsubscribes.
func (ws *watchers) remove(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.all = slices.DeleteFunc(ws.all, func(o *watcher) bool { return o == w })
	if len(ws.all) == 0 {
		ws.on = nil
		ws.say(ws.client.links[0].current.Load(), near.KindUnsubscribe)
	}
}

// say sends a request without waiting. What cannot be sent now is said when there is a
// connection again.
func (ws *watchers) say(c *conn, kind near.Kind) {
	if c != nil {
		_ = c.send(&call{kind: kind, answer: &near.None{}, done: make(chan struct{}, 1)}, &near.None{}) // see above
	}
}

// connected takes up watching on a new connection.
func (ws *watchers) connected(l *link, c *conn) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if l == ws.client.links[0] && len(ws.all) > 0 {
		ws.say(c, near.KindSubscribe)
	}
}

// subscribed takes note of the answer to a SUBSCRIBE: events come after it.
func (ws *watchers) subscribed(c *conn) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if len(ws.all) > 0 && ws.on != c {
		ws.on = c
		ws.tell(Event{Gap: true})
	}
}

// event hands an event to all who watch.
func (ws *watchers) event(m *near.Event) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if len(ws.all) == 0 {
		return
	}
	e := Event{
		Seq: m.Seq, Position: Token(m.Position), Op: m.Op, Namespace: m.Namespace, MoreKeys: m.MoreKeys, Tags: m.Tags,
		Prefix: string(m.Prefix), Writer: m.Writer, Stored: time.Unix(0, int64(m.Stored)), Lag: m.Lag, Error: m.Error, Lost: m.Lost,
		Keys: make([]KeyVersion, len(m.Keys)),
	}
	for i, k := range m.Keys {
		e.Keys[i] = KeyVersion{string(k.Key), k.Version}
	}
	ws.tell(e)
}

// tell never waits: what a watcher has no room for is counted.
func (ws *watchers) tell(e Event) {
	for _, w := range ws.all {
		mine := e
		mine.Lost += w.lost
		mine.Gap = mine.Gap || w.gap
		select {
		case w.events <- mine:
			w.lost, w.gap = 0, false
		default:
			w.lost, w.gap = mine.Lost, mine.Gap
			if e.Op != "" {
				w.lost++
			}
			ws.client.counters.droppedEvents.Add(1)
		}
	}
}
