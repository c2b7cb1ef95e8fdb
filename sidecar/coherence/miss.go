package coherence

import "time"

// miss is one or more outstanding misses of a key that are judged alike.
type miss struct {
	at    time.Duration // of the newest of them
	lease Lease         // of the oldest of them
	count uint32
}

// missTable holds the outstanding misses of plain clients by key, oldest first.
// Losing a key's oldest miss would let its reader be judged by a newer one, so
// nothing is ever evicted: what does not fit is reported, and ages out.
type missTable struct {
	keys map[uint64][]miss
	max  int
	// queue holds the hashes in the order in which they entered keys, for
	// ageing out; its head is at next.
	queue []queued
	next  int
}

type queued struct {
	hash uint64
	at   time.Duration
}

// missesPerKey bounds the list of one key. Further misses join the newest one
// and take its older lease.
const missesPerKey = 4

// queuePerKey bounds the queue, in multiples of the bound on keys: how often the
// table may turn over in one window.
const queuePerKey = 8

func newMissTable(maxKeys int) missTable {
	return missTable{keys: make(map[uint64][]miss), max: max(1, maxKeys)}
}

// add records m and reports whether there was room. Misses older than window
// make room first.
func (t *missTable) add(hash uint64, m miss, window time.Duration) bool {
	t.age(m.at - window)
	list, known := t.keys[hash]
	if !known {
		if len(t.keys) >= t.max || len(t.queue)-t.next >= queuePerKey*t.max {
			return false
		}
		t.queue = append(t.queue, queued{hash, m.at})
	}
	if last := len(list) - 1; last >= 0 && (list[last].lease == m.lease || len(list) >= missesPerKey) {
		list[last].count++
		list[last].at = m.at
		return true
	}
	m.count = 1
	t.keys[hash] = append(list, m)
	return true
}

// oldest returns the lease of the oldest miss that is younger than since.
func (t *missTable) oldest(hash uint64, since time.Duration) (l Lease, ok bool) {
	list := live(t.keys[hash], since)
	if len(list) == 0 {
		return Lease{}, false
	}
	return list[0].lease, true
}

// strike strikes out the newest miss, if one is younger than since.
func (t *missTable) strike(hash uint64, since time.Duration) {
	list := live(t.keys[hash], since)
	if len(list) == 0 {
		return
	}
	last := len(list) - 1
	for i := range last { // it was the oldest's SET, or the newest's: each stands for the next too, and for as long
		list[i].at = list[i+1].at
	}
	if list[last].count--; list[last].count == 0 {
		list = list[:last]
	}
	t.put(hash, list)
}

// put keeps what is left of a key's list. The queue notices later that a key has
// gone; a key that has come again stands in it twice.
func (t *missTable) put(hash uint64, list []miss) {
	if len(list) == 0 {
		delete(t.keys, hash)
		return
	}
	t.keys[hash] = list
}

// live cuts off the misses that are older than since.
func live(list []miss, since time.Duration) []miss {
	for len(list) > 0 && list[0].at < since {
		list = list[1:]
	}
	return list
}

// age forgets keys whose every miss is older than since. It does a bounded
// amount of work a call, yet more than one call can add.
func (t *missTable) age(since time.Duration) {
	for range 4 {
		if t.next == len(t.queue) || t.queue[t.next].at >= since {
			break
		}
		head := t.queue[t.next]
		t.next++
		list, known := t.keys[head.hash]
		if list = live(list, since); len(list) > 0 {
			t.queue = append(t.queue, queued{head.hash, list[len(list)-1].at})
		}
		if known {
			t.put(head.hash, list)
		}
	}
	if t.next > len(t.queue)/2 && t.next > 64 {
		t.queue = append(t.queue[:0], t.queue[t.next:]...)
		t.next = 0
	}
}

// outstanding returns how many misses of a key await their SET.
func (t *missTable) outstanding(hash uint64, since time.Duration) int {
	n := 0
	for _, m := range live(t.keys[hash], since) {
		n += int(m.count)
	}
	return n
}
