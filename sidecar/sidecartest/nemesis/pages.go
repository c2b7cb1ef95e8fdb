package nemesis

import (
	"context"
	"fmt"
	"strings"

	"github.com/nearside-cache/nearside/bus"
)

// Pages are keys that are never named by the events of their writes: one of each
// group is filled with a tag, one with a key that it depends on, and one with
// nothing, so that only its prefix and its namespace can purge it (I11).
const (
	pageSpace  = "page"
	pageGroups = 4
)

var pageKinds = []string{"tagged", "dependent", "bare"}

func pageKey(group int, kind string) string { return pagePrefix(group) + kind }

func pagePrefix(group int) string { return fmt.Sprintf("%s:%d:", pageSpace, group) }

func isPage(key string) bool { return strings.HasPrefix(key, pageSpace+":") }

func pageNames() (all []string) {
	for g := range pageGroups {
		for _, kind := range pageKinds {
			all = append(all, pageKey(g, kind))
		}
	}
	return all
}

// hangsOn returns what a fill of the key says that it hangs on.
func hangsOn(key string) []string {
	if s := spaceOf(key); s != nil && s.tagged {
		return []string{"TAGS", "1", tagOf(key)}
	}
	switch group, kind, _ := strings.Cut(strings.TrimPrefix(key, pageSpace+":"), ":"); kind {
	case "tagged":
		return []string{"TAGS", "1", "group" + group}
	case "dependent":
		return []string{"DEPENDS", "1", "base:" + group}
	}
	return nil
}

// purges returns the keys of a wide write and the words of NEAR.INVALIDATE that
// purge them.
func (w *worker) purges() (name string, keys, words []string) {
	group := w.rng.IntN(pageGroups)
	switch n := w.rng.IntN(10); {
	case n < 3:
		return "TAGS", []string{pageKey(group, "tagged")}, []string{"TAGS", "1", fmt.Sprint("group", group)}
	case n < 6:
		return "DEPENDS", []string{pageKey(group, "dependent")}, []string{"KEYS", "1", fmt.Sprint("base:", group), "0"}
	case n < 9:
		for _, kind := range pageKinds {
			keys = append(keys, pageKey(group, kind))
		}
		return "PREFIX", keys, []string{"PREFIX", pagePrefix(group)}
	}
	return "NAMESPACE", pageNames(), []string{"NAMESPACE", pageSpace}
}

// writePages commits new versions of some pages and purges them.
func (w *worker) writePages(ctx context.Context, home int) {
	if w.chance(5) { // must not replace what hangs on a tag (C10)
		w.write(ctx, w.key(w.pages), home)
		return
	}
	name, keys, words := w.purges()
	w.purge(ctx, home, name, keys, words)
}

// purge commits new versions of the keys, which are of one namespace, and purges them
// by words.
func (w *worker) purge(ctx context.Context, home int, name string, keys, words []string) {
	c := change{name: name, versioned: versioned(keys[0])}
	for _, key := range keys {
		c.add(w.judge.writing(key, c.versioned))
	}
	for i := range c.writes {
		c.writes[i].version = w.origin.commit(c.writes[i].key)
	}
	c.send = func(ctx context.Context, to *client) (bus.Position, string, error) {
		return to.acknowledged(ctx, append([]string{"NEAR.INVALIDATE"}, words...))
	}
	w.announce(ctx, home, c)
}

// readPage reads a page, and loads and fills it on a miss.
func (w *worker) readPage(ctx context.Context, c reader, key string, eager bool) error {
	m := []mode{anyFresh, maxStale, maxStale, atLeast, regular}[w.rng.IntN(5)]
	if eager && m == regular {
		m = maxStale
	}
	return w.readNear(ctx, c, key, m, eager)
}
