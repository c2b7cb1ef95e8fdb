package coherence

import (
	"encoding/binary"
	"maps"
	"strings"
	"sync/atomic"

	"github.com/nearside-cache/nearside/bus"
)

// Horizon decides which entries are alive: those of this incarnation whose
// position is not below a wide purge that concerns them (C5). It is safe for
// concurrent use; what makes entries of it dead only ever grows.
type Horizon struct {
	incarnation uint64
	era         uint32 // counts epochs; seqs of different eras are not compared
	hash        func(string) uint64
	gens        *generations // of this era

	// resets are the ticks of the newest flush RESET of a namespace, or of the
	// domain under the empty name: versions known before it are void.
	resets map[string]uint64
}

// Alive reports whether an entry of the key with stamp s may be served, its own
// expiry aside. It does not allocate.
func (h *Horizon) Alive(key string, s Stamp) bool {
	return s.Incarnation == h.incarnation && s.Seq >= h.generation(key, s.Hangs)
}

// Incarnation is raised by every doubt and every change of epoch; entries and
// leases of another one are dead.
func (h *Horizon) Incarnation() uint64 { return h.incarnation }

// DependedOn reports whether an entry may depend on key, which the key's events then
// make stale, too. Only who may call the Core calls it.
func (h *Horizon) DependedOn(key string) bool { return h.gens.dependedOn(h.place(kindKey, key)) }

// generation returns the seq of the newest wide purge that concerns key and what
// its entry hangs on, or a later one (see generations).
func (h *Horizon) generation(key string, hangs Hangs) uint64 {
	g := h.gens
	seq := g.domain.Load()
	if g.wide.Load() {
		seq = max(seq, g.at(h.place(kindNamespace, bus.NamespaceOf(key))))
		for i := strings.IndexByte(key, ':') + 1; i > 0; {
			seq = max(seq, g.at(h.place(kindPrefix, key[:i])))
			next := strings.IndexByte(key[i:], ':') + 1
			if next == 0 {
				break
			}
			i += next
		}
	}
	for i := range hangs.len() {
		if p := hangs.at(i); p == onAnything {
			seq = max(seq, g.newest.Load())
		} else {
			seq = max(seq, g.at(p))
		}
	}
	return seq
}

// reset returns the tick below which the key's known versions are void.
func (h *Horizon) reset(key string) uint64 {
	if len(h.resets) == 0 {
		return 0
	}
	return max(h.resets[""], h.resets[bus.NamespaceOf(key)])
}

// place is where the generation of a name of a kind is kept.
func (h *Horizon) place(k kind, name string) place {
	// The kinds' spaces are told apart by an odd multiplier each, from the
	// fractional part of the golden ratio.
	p := place((h.hash(name) + uint64(k)) * (0x9e3779b97f4a7c15 + 2*uint64(k)))
	if p == onAnything {
		p++
	}
	return p
}

// kind is what a generation belongs to.
type kind uint8

const (
	kindTag       kind = iota + 1
	kindNamespace      // the whole of it
	kindPrefix         // ending in ':'
	kindKey            // on which others depend
)

// place is a hash that stands for a tag, namespace, prefix or key.
type place uint64

// onAnything is hung on by an entry that hangs on more than can be kept: every
// event of the domain makes it stale.
const onAnything place = 0

// Hangs is what an entry hangs on besides its namespace and prefixes: places of
// eight bytes each, as they are kept with the entry. It is immutable.
type Hangs []byte

const placeBytes = 8

// OnEverything reports whether every event of the domain makes the entry stale.
func (h Hangs) OnEverything() bool { return h.len() == 1 && h.at(0) == onAnything }

func (h Hangs) len() int       { return len(h) / placeBytes }
func (h Hangs) at(i int) place { return place(binary.LittleEndian.Uint64(h[i*placeBytes:])) }

// hangList collects what a fill hangs on, each place once, up to a bound.
type hangList struct {
	places []place
	full   bool
}

func (l *hangList) add(p place) {
	for _, have := range l.places {
		if have == p {
			return
		}
	}
	if l.full = l.full || len(l.places) >= MaxHangs || p == onAnything; !l.full {
		l.places = append(l.places, p)
	}
}

// hangs returns the list as it is kept.
func (l *hangList) hangs() Hangs {
	if l.full {
		return binary.LittleEndian.AppendUint64(nil, uint64(onAnything))
	}
	var h Hangs
	for _, p := range l.places {
		h = binary.LittleEndian.AppendUint64(h, uint64(p))
	}
	return h
}

// MaxHangs bounds the places that one entry hangs on, dependencies of
// dependencies included. An entry that would hang on more hangs on everything.
const MaxHangs = 64

// generations holds, for every place, the seq of its newest wide purge, in fixed
// memory and without ever forgetting one (C5, ADR 0005): a place has a slot in
// each of several rows, a purge raises all its slots, and the generation is the
// lowest of them. Other places' purges can only make it higher, so an entry may
// die too early, never too late.
//
// Slots are read without a lock. INVARIANT: they are raised before the position
// of the purge is reported as applied.
type generations struct {
	domain atomic.Uint64 // newest purge of everything
	newest atomic.Uint64 // newest event of any kind, pulses aside
	wide   atomic.Bool   // some namespace or prefix was purged
	rows   [generationRows][]atomic.Uint64

	// depended has a bit for every key that some entry depends on: the events of
	// other keys raise no generation.
	depended []atomic.Uint64
}

// With P places purged within an entry's life, and S slots a row, it dies too
// early with a chance of about (P / S)² a place.
const generationRows = 2

// newGenerations makes rows of at least slots slots of eight bytes each.
func newGenerations(slots int) *generations {
	n := 64
	for n < slots {
		n *= 2
	}
	g := &generations{depended: make([]atomic.Uint64, n/64)}
	for row := range g.rows {
		g.rows[row] = make([]atomic.Uint64, n)
	}
	return g
}

func (g *generations) slot(row int, p place) *atomic.Uint64 {
	slots := g.rows[row]
	return &slots[uint64(p)>>(24*row)&uint64(len(slots)-1)]
}

func (g *generations) at(p place) uint64 {
	seq := g.slot(0, p).Load()
	for row := 1; row < generationRows; row++ {
		seq = min(seq, g.slot(row, p).Load())
	}
	return seq
}

// raise is called by the core only, one call at a time.
func (g *generations) raise(p place, seq uint64) {
	for row := range generationRows {
		if s := g.slot(row, p); s.Load() < seq {
			s.Store(seq)
		}
	}
}

func (g *generations) depend(p place) {
	w, bit := g.mark(p)
	w.Store(w.Load() | bit)
}

func (g *generations) dependedOn(p place) bool {
	w, bit := g.mark(p)
	return w.Load()&bit != 0
}

func (g *generations) mark(p place) (word *atomic.Uint64, bit uint64) {
	return &g.depended[uint64(p)>>6&uint64(len(g.depended)-1)], 1 << (p & 63)
}

// flush purges a namespace, or the domain when namespace is empty, at seq. It
// takes as long whatever the number of entries.
func (c *Core) flush(namespace string, seq uint64, reset bool) {
	if namespace == "" {
		c.horizon.gens.domain.Store(max(seq, c.horizon.gens.domain.Load()))
	} else {
		c.horizon.gens.raise(c.horizon.place(kindNamespace, namespace), seq)
		c.horizon.gens.wide.Store(true)
	}
	if reset {
		c.reset(namespace)
	}
}

// reset voids the versions known of a namespace, or of the domain.
func (c *Core) reset(namespace string) {
	h := *c.horizon
	h.resets = maps.Clone(h.resets)
	if _, known := h.resets[namespace]; !known && len(h.resets) >= c.cfg.MaxNamespaces {
		namespace = "" // no room to keep it apart
	}
	if h.resets == nil {
		h.resets = make(map[string]uint64)
	}
	h.resets[strings.Clone(namespace)] = c.tick
	c.horizon = &h
}

// flushPrefix purges the keys that begin with prefix. Keys hang on their
// prefixes up to each ':', so a prefix that ends elsewhere purges the next
// shorter one that ends there, or the domain.
func (c *Core) flushPrefix(prefix string, seq uint64) {
	whole := prefix[:strings.LastIndexByte(prefix, ':')+1]
	if whole == "" {
		c.flush("", seq, false)
		return
	}
	c.horizon.gens.raise(c.horizon.place(kindPrefix, whole), seq)
	c.horizon.gens.wide.Store(true)
}

// purgeTags purges the entries that hang on any of the tags.
func (c *Core) purgeTags(tags []string, seq uint64) {
	for _, t := range tags {
		c.horizon.gens.raise(c.horizon.place(kindTag, t), seq)
	}
}

// purgeDependents purges the entries that depend on key.
func (c *Core) purgeDependents(key string, seq uint64) {
	if p := c.horizon.place(kindKey, key); c.horizon.gens.dependedOn(p) {
		c.horizon.gens.raise(p, seq)
	}
}
