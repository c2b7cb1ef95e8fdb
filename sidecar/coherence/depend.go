package coherence

import (
	"strings"

	"github.com/nearside-cache/nearside/bus"
)

// hangs works out what a fill hangs on (C5): its tags, and the keys that it
// depends on. A dependency that is resident and was filled before the lease brings
// what it hangs on itself, so that dependencies are transitive, also when it is dead
// by now: the load may have used it before. One that was filled or lost after the
// lease rejects the fill, for what hung on which is not known; one that is not
// resident since before is a leaf.
func (c *Core) hangs(f Fill) (Hangs, Verdict) {
	if len(f.Tags) == 0 && len(f.Depends) == 0 && len(f.Hangs) == 0 {
		return nil, Stored
	}
	var list hangList
	for i := range f.Hangs.len() {
		list.add(f.Hangs.at(i))
	}
	for _, t := range f.Tags {
		list.add(c.horizon.place(kindTag, t))
	}
	for _, key := range f.Depends {
		if v := c.dependOn(&list, key, f.Lease); v != Stored {
			return nil, v
		}
	}
	if list.full && c.horizon.gens.newest.Load() > f.Lease.Position.Seq {
		return nil, Flushed
	}
	for _, p := range list.places {
		if c.horizon.gens.at(p) > f.Lease.Position.Seq {
			return nil, Flushed
		}
	}
	return list.hangs(), Stored
}

func (c *Core) dependOn(list *hangList, key string, l Lease) Verdict {
	fence := c.fences.get(c.cfg.Hash(key))
	switch {
	case l.Tick < fence.voided:
		return Voided
	case fence.era == c.horizon.era && fence.seq > l.Position.Seq:
		return Invalidated
	case fence.tick > l.Tick:
		return Superseded // an entry that the reader may have found was lost, and with it what it hung on
	}
	list.add(c.horizon.place(kindKey, key))
	list.add(c.horizon.place(kindNamespace, bus.NamespaceOf(key)))
	for i, ch := range []byte(key) {
		if ch == ':' {
			list.add(c.horizon.place(kindPrefix, key[:i+1]))
		}
	}
	resident, held := c.entries.Stamp(key)
	if !held || resident.Incarnation != c.horizon.incarnation {
		return Stored // nobody found it under a lease that is still good
	}
	if resident.Tick > l.Tick {
		return Superseded
	}
	for i := range resident.Hangs.len() {
		list.add(resident.Hangs.at(i))
	}
	return Stored
}

// depended notes that a stored entry hangs on the keys, so that their events
// raise generations from now on. The events up to now were judged by fences.
func (c *Core) depended(keys []string) {
	for _, key := range keys {
		c.horizon.gens.depend(c.horizon.place(kindKey, strings.Clone(key)))
	}
}
