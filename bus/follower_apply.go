package bus

import (
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Bounds of what a BatchHandler is given at once: a handler holds up others meanwhile.
const (
	dueMax     = 64
	dueKeysMax = 512 // more only where a single event has more
)

// due are deliveries that the handler is still to be given, in order.
type due struct {
	handler Handler
	all     BatchHandler // handler, if it is one
	list    []Delivery
	keys    []KeyVersion // of those in list; used anew when they have been given
}

func newDue(h Handler) due {
	d := due{handler: h, list: make([]Delivery, 0, dueMax)}
	if d.all, _ = h.(BatchHandler); d.all != nil {
		d.keys = make([]KeyVersion, 0, dueKeysMax)
	}
	return d
}

// add returns the place of one more.
func (d *due) add() *Delivery {
	d.list = append(d.list, Delivery{})
	return &d.list[len(d.list)-1]
}

// spare is where keys may be put.
func (d *due) spare() []KeyVersion { return d.keys[len(d.keys):] }

// full is told what was added, and reports whether that is enough.
func (d *due) full(added *Delivery) bool {
	if n := len(d.keys) + len(added.Event.Keys); n < cap(d.keys) {
		d.keys = d.keys[:n]
		return len(d.list) == dueMax
	}
	return true
}

// give empties the list, and keeps hold of nothing of it.
func (d *due) give() {
	if d.all != nil {
		d.all.ApplyAll(d.list)
	} else {
		for i := range d.list {
			d.handler.Apply(d.list[i])
		}
	}
	clear(d.list)
	clear(d.keys)
	d.list, d.keys = d.list[:0], d.keys[:0]
}

// apply has the message at applied+1 given to the handler. When something else was
// seen at that seq, live or in an acknowledgement, there are two histories:
// doubt instead.
func (f *Follower) apply(m Message) {
	if id, ok := f.acked[m.Seq]; ok && id != xxhash.Sum64String(m.MsgID) {
		f.doubt(ReasonForked)
		return
	}
	if other, ok := f.ahead[m.Seq]; ok && other.Digest() != m.Digest() {
		f.doubt(ReasonForked)
		return
	}
	delete(f.acked, m.Seq)
	f.dropAhead(m.Seq)
	f.applied = m.Seq
	t := traceOf(m)
	f.ring.put(m.Seq, t)
	f.setFork(max(f.epoch.Fork, ForkOf(f.config.Subjects, m)))
	d := f.due.add()
	f.deliver(d, m, t.digest, f.due.spare())
	if d.Err == nil && d.Event.Op == OpPulse {
		d.Fresh = f.hearPulse(d.Event.Pulse, m.Seq)
	}
	if f.due.full(d) {
		f.give()
	}
}

// give gives the handler what is due, and tells those who wait for it.
func (f *Follower) give() {
	ds := f.due.list
	if len(ds) == 0 {
		return
	}
	first, at := ds[0].Position.Seq, ds[len(ds)-1].Position
	f.position.Store(&at)
	f.due.give()
	f.answer(first, at.Seq)
}

// ask keeps a when its publisher waits. Of too many, some wait in vain.
func (f *Follower) ask(a Ack) {
	if a.Applied != nil && len(f.asking) < ackedMax {
		f.asking = append(f.asking, a)
	}
}

// answer tells the publishers of the messages from first to last the position.
func (f *Follower) answer(first, last uint64) {
	if len(f.asking) == 0 {
		return
	}
	f.asking = slices.DeleteFunc(f.asking, func(a Ack) bool {
		found := first <= a.Seq && a.Seq <= last
		if found {
			a.Applied <- f.at()
		}
		return found
	})
}

// deliver decodes m into d, its keys into spare where they fit. What cannot be
// decoded becomes a Delivery with Err set, for the namespace that its subject names
// or the domain.
func (f *Follower) deliver(d *Delivery, m Message, digest uint64, spare []KeyVersion) {
	d.Position, d.Time, d.Digest = Position{Epoch: f.epoch, Seq: m.Seq}, m.Time, digest
	kind, namespace, err := f.config.Subjects.Parse(m.Subject)
	if err == nil {
		d.Namespace = namespace
		d.Event, err = decode(kind, m.Data, spare)
	}
	if err != nil {
		clear(spare[:cap(spare)]) // it may have got as far as some keys
		d.Event, d.Err = Event{}, fmt.Errorf("event at seq %d on %.120q: %w", m.Seq, m.Subject, err)
		return
	}
	if m.MsgID != "" {
		d.Event.ID = m.MsgID
	}
}
