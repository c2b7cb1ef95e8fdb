package rights

// Waiter is a place in the queue of a right.
type Waiter = waiter

// Join is the part of Wait that does not block.
func (t *Table) Join(key string, c Claim) (*Waiter, uint64, Outcome) { return t.join(key, c) }

// GiveUp is what Wait does when its context ends.
func (t *Table) GiveUp(w *Waiter) (uint64, Outcome) { return t.leave(w) }

// Watch is what Wait does when its timer fires.
func (t *Table) Watch(w *Waiter) { t.left(w) }

// Woken tells what came of waiting, and false while it lasts.
func (w *waiter) Woken() (number uint64, o Outcome, ok bool) {
	select {
	case <-w.woken:
		return w.number, w.outcome, true
	default:
		return 0, Busy, false
	}
}

// Sizes tells how many rights and waiters there are.
func (t *Table) Sizes() (rights, waiting int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ends) != len(t.rights) || t.held.Load() != int64(len(t.rights)) {
		panic("rights: the heap, the count and the table differ")
	}
	return len(t.rights), t.waiting
}
