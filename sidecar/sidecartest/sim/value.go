package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/nearside-cache/nearside/sidecar/cache"
)

// part says that a value rests on one commit of a key.
type part struct {
	key    string
	n      int
	update bool // it came with an event
}

// content is what a value stands for.
type content struct {
	key     string
	version uint64
	parts   []part // the first is of key itself, the others of what it was made of
	text    []byte
	absent  bool // the word that there is no value

	tags, depends []string // what the origin says that it hangs on
}

// value makes the bytes of a value that nobody made before, and its number.
func (w *world) value(c content) (id int) {
	id = len(w.contents)
	if !c.absent {
		c.text = fmt.Appendf(nil, "%s %d", c.key, id)
	}
	w.contents = append(w.contents, c)
	return id
}

// contentOf tells what a value stands for; false: nobody ever made it (I10).
func (w *world) contentOf(value []byte) (id int, ok bool) {
	id, err := strconv.Atoi(string(value[bytes.LastIndexByte(value, ' ')+1:]))
	return id, err == nil && id >= 0 && id < len(w.contents) && bytes.Equal(w.contents[id].text, value)
}

func (w *world) own(id int) part { return w.contents[id].parts[0] }

// recipes say what derived values are made of, besides what is their own: of
// sources and of other derived values.
var recipes = map[string][]string{
	"d:a": {"v:a"},
	"d:b": {"d:a", "t:a", "u:a"},
	"d:c": {"d:b", "p:1:a"},
	"d:w": {"v:b"}, // and of fillers
	"d:x": {"d:w"},
	"l:b": {"u:a"},
}

// madeOf is the recipe of commit n of key. That of d:a changes with its commits, so
// that what another value hangs on depends on which d:a it was made of; that of s:a, so
// that not every value can be shared.
func madeOf(key string, n int) []string {
	if key == "d:a" && n%2 == 1 || key == "s:a" && n%4 == 3 {
		return []string{"u:b"}
	}
	return recipes[key]
}

// wide hangs on more than an entry can hang on, and so on everything (C5).
const wide = "d:w"

var fillers = func() (names []string) {
	for i := range 70 {
		names = append(names, fmt.Sprintf("f:%d", i))
	}
	return names
}()

// made is what a reader has loaded, and all that it knows to hang on.
type made struct {
	parts         []part
	tags, depends []string
}

// load reads all that makes the value of key: its own part from the origin, and
// what it is derived from through the cache, as any other reader does. What it
// finds there it names as DEPENDS, without knowing what that was made of; of what
// it loads itself it names that, too. A STRONG reader asks only the origin.
func (w *world) load(a *actor, p *process, key string, primary bool, r *rand.Rand) (m made, ok bool) {
	m.parts = []part{{key: key, n: w.origin.load(key, primary)}}
	if w.origin.absent(key, m.parts[0].n) {
		return m, true
	}
	m.tags = slices.Clone(tagsOf(key))
	if key == wide {
		m.depends = slices.Clone(fillers)
	}
	for _, of := range madeOf(key, m.parts[0].n) {
		if r.IntN(3) == 0 && !a.sleep(within(r, 0, 20*time.Millisecond)) {
			return m, false
		}
		m.depends = append(m.depends, of)
		sub, held, ok := w.part(a, p, of, primary, r)
		if !ok {
			return m, false
		}
		m.parts = append(m.parts, sub.parts...)
		if !held {
			m.tags = append(m.tags, sub.tags...)
			m.depends = append(m.depends, sub.depends...)
		}
	}
	return m, true
}

// part finds what another value is made of: held in the cache, or loaded and then
// perhaps filled.
func (w *world) part(a *actor, p *process, key string, primary bool, r *rand.Rand) (m made, held, ok bool) {
	if primary {
		m, ok = w.load(a, p, key, true, r)
		return m, false, ok
	}
	if !p.pass(a, 0) {
		return m, false, false
	}
	value, answer := p.cache.Near(key, cache.Mode{Kind: cache.Any}, false, false, nil)
	if found(answer) {
		id := w.check.hit(p, key, value, reading{at: w.now, bound: -1, old: answer.Status == cache.Stale})
		w.trace("a reader of %v finds %s", p, w.describe(id))
		return made{parts: w.contents[id].parts}, true, true
	}
	if m, ok = w.load(a, p, key, false, r); !ok || !p.pass(a, 0) {
		return m, false, false
	}
	if r.IntN(3) == 0 {
		w.fill(p, key, m, answer.Lease, r)
	}
	return m, false, true
}

// describe names a value for people.
func (w *world) describe(id int) string {
	c := w.contents[id]
	text := fmt.Sprintf("%s #%d of", c.key, id)
	if c.absent {
		text = fmt.Sprintf("absence of %s #%d of", c.key, id)
	}
	for _, x := range c.parts {
		text += fmt.Sprintf(" %s=%d", x.key, x.n)
	}
	if c.version != 0 {
		text += fmt.Sprintf(" version %d", c.version)
	}
	return text
}
