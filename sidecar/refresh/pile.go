package refresh

import (
	"cmp"
	"container/heap"
)

// pile is a heap of items that know their place in it, so that any of them can be
// taken out.
type pile struct {
	items  []*item
	before func(a, b *item) bool
	place  func(*item) *int
}

// none is the place of an item that is in no pile.
const none = -1

func placeOf(it *item) *int { return &it.place }
func rankOf(it *item) *int  { return &it.rank }

// earlier orders by when items are due.
func earlier(a, b *item) bool {
	return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.number, b.number)) < 0
}

// hotter orders by priority; of equals, the one that was due first comes first.
func hotter(a, b *item) bool {
	if order := cmp.Compare(a.priority, b.priority); order != 0 {
		return order > 0
	}
	return earlier(a, b)
}

// colder orders by what is dropped first: the lowest priority, of equals the newest.
func colder(a, b *item) bool {
	return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(b.number, a.number)) < 0
}

// first returns the item before all others, nil of an empty pile.
func (p *pile) first() *item {
	if len(p.items) == 0 {
		return nil
	}
	return p.items[0]
}

func (p *pile) add(it *item)    { heap.Push(p, it) }
func (p *pile) remove(it *item) { heap.Remove(p, *p.place(it)) }
func (p *pile) mend(it *item)   { heap.Fix(p, *p.place(it)) }

// Len implements heap.Interface.
func (p *pile) Len() int { return len(p.items) }

// Less implements heap.Interface.
func (p *pile) Less(i, j int) bool { return p.before(p.items[i], p.items[j]) }

// Swap implements heap.Interface.
func (p *pile) Swap(i, j int) {
	p.items[i], p.items[j] = p.items[j], p.items[i]
	*p.place(p.items[i]), *p.place(p.items[j]) = i, j
}

// Push implements heap.Interface.
func (p *pile) Push(x any) {
	it := x.(*item)
	*p.place(it) = len(p.items)
	p.items = append(p.items, it)
}

// Pop implements heap.Interface.
func (p *pile) Pop() any {
	last := len(p.items) - 1
	it := p.items[last]
	p.items[last], p.items = nil, p.items[:last]
	*p.place(it) = none
	return it
}
