package rights

import "hash/maphash"

// Filled ends the right to key, whoever stored a value: all who wait read it.
func (t *Table) Filled(key string) {
	t.each(key, func(r *right) { t.end(r, Again) })
}

// Unfit ends the right to key because its value cannot be stored, ever: all who
// wait load on their own, for waiting again would be in vain.
func (t *Table) Unfit(key string) {
	t.each(key, func(r *right) { t.end(r, Alone) })
}

// Release gives up the right that number names, if it is still held: the load
// failed, or what it brought was refused. It reports whether it was held.
func (t *Table) Release(key string, number uint64) (held bool) {
	t.each(key, func(r *right) {
		if held = number != 0 && r.number == number; held {
			t.passOn(r, false)
		}
	})
	return held
}

// Brings says that the holder has loaded a version, and stores it once an event
// has named it: that event does not void the right.
func (t *Table) Brings(key string, number, version uint64) {
	t.each(key, func(r *right) {
		if number != 0 && r.number == number {
			r.brings = version
		}
	})
}

// Refused tells of a plain SET by h that was refused. It ends the right of a
// holder that answers by SET; see right.others for whose SET it is taken for.
func (t *Table) Refused(key string, h *Holder) {
	t.each(key, func(r *right) {
		switch {
		case r.held && r.claim.Holder == h:
			t.passOn(r, false)
		case r.others > 0:
			if r.others--; r.others == 0 && !r.held {
				t.remove(r)
			}
		case r.held && r.claim.Plain:
			t.passOn(r, false)
		}
	})
}

// Void tells of an event of key, with the version that it names or 0: the
// holder's lease is void, and nobody waits for it any longer.
func (t *Table) Void(key string, version uint64) {
	t.each(key, func(r *right) {
		if r.held && (version == 0 || version > r.brings) {
			t.passOn(r, true)
		}
	})
}

// VoidNamespace is Void for every key of a namespace; of a prefix within it, too,
// which may void more than it must. Rights know no tags: what is loaded for a tag
// that was purged meanwhile is refused, and the right passes on then.
func (t *Table) VoidNamespace(namespace string) {
	hash := maphash.String(t.seed, namespace)
	t.all(func(r *right) {
		if r.namespace == hash && r.held {
			t.passOn(r, true)
		}
	})
}

// VoidAll is Void for every key.
func (t *Table) VoidAll() {
	t.all(func(r *right) {
		if r.held {
			t.passOn(r, true)
		}
	})
}

// Doubt ends every right: nothing is stored for the time being, so that nobody
// has anything to wait for.
func (t *Table) Doubt() { t.all(func(r *right) { t.end(r, Alone) }) }

// Leave ends h, whose rights pass on. It may be called more than once.
func (t *Table) Leave(h *Holder) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h.gone = true
	for len(h.rights) > 0 { // the last one let go takes the map with it
		for r := range h.rights {
			t.passOn(r, false)
			break
		}
	}
}

// Close lets everybody go who waits, and gives no right from now on. It may be
// called more than once.
func (t *Table) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.Doubt()
}

// each does something with the right to key, if there is one.
func (t *Table) each(key string, do func(*right)) {
	if t.held.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.rights[maphash.String(t.seed, key)]; r != nil {
		do(r)
	}
}

// all does something with every right; do may change which there are.
func (t *Table) all(do func(*right)) {
	if t.held.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range append(ends(nil), t.ends...) {
		do(r)
	}
}
