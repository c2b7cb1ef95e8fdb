package session

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/purge"
)

var nearWriteCommands = []command{
	{"NEAR.INVALIDATE", -3, "write", 0, 0, 0, "Invalidates keys with versions, tags, a prefix or a namespace in every sidecar; answers a token", (*Session).nearInvalidate},
	{"NEAR.UPDATE", -4, "write", 1, 1, 1, "Sends the new value of a key to every sidecar; answers a token", (*Session).nearUpdate},
}

// Bounds of one NEAR.INVALIDATE.
const (
	maxWriteKeys = 100_000
	maxWriteTags = 1000
)

// nearInvalidate is NEAR.INVALIDATE [KEYS n (key version)…] [TAGS n t…] [PREFIX p]
// [NAMESPACE ns] [REFRESH] [EVENT-TIME ms] [ID id].
func (s *Session) nearInvalidate(args resp.Command) {
	words := words{rest: args[1:], usage: "NEAR.INVALIDATE [KEYS n (key version)…] [TAGS n tag…] [PREFIX p] [NAMESPACE name] [REFRESH] [EVENT-TIME ms] [ID id]"}
	var (
		w         cache.Write
		namespace string
	)
	for words.fault == "" && len(words.rest) > 0 {
		switch {
		case words.option("KEYS"):
			w.Keys = words.keyVersions()
		case words.option("TAGS"):
			w.Tags = words.list("tags", maxWriteTags)
		case words.option("PREFIX"):
			w.Prefix = words.key()
		case words.option("NAMESPACE"):
			namespace = words.namespace()
		case words.option("REFRESH"):
			w.Refresh = true
		case words.option("EVENT-TIME"):
			w.Time = time.UnixMilli(words.millis("EVENT-TIME").Milliseconds())
		case words.option("ID"):
			w.ID = string(words.next("the id"))
		default:
			words.end()
		}
	}
	fault := words.end()
	if fault == "" {
		fault = checkWrite(w, namespace)
	}
	if fault != "" {
		s.fail(fault)
		return
	}
	token := func(s *Session, r cache.Receipt) { s.text(r.Position.String()) }
	r := purge.Request{Tags: w.Tags, Prefix: w.Prefix, Namespace: namespace}
	if namespace != "" {
		s.parkPurge(r, func(ctx context.Context) (cache.Receipt, error) { return s.cache.Flush(ctx, namespace) }, token)
		return
	}
	s.parkPurge(r, func(ctx context.Context) (cache.Receipt, error) { return s.cache.Invalidate(ctx, w) }, token)
}

// checkWrite returns why a write makes no sense.
func checkWrite(w cache.Write, namespace string) (fault string) {
	named := len(w.Keys) > 0 || len(w.Tags) > 0 || w.Prefix != ""
	switch {
	case namespace != "" && named:
		return "ERR NAMESPACE purges all of it: name nothing else"
	case namespace == "" && !named:
		return "ERR nothing is named: want KEYS, TAGS, PREFIX or NAMESPACE"
	}
	if w.Prefix != "" && !strings.Contains(w.Prefix, ":") {
		return fmt.Sprintf("ERR prefix %.64q names no namespace: want one up to a ':' at least", w.Prefix)
	}
	return ""
}

// nearUpdate is NEAR.UPDATE key version [PX ms] [EVENT-TIME ms] [ID id] value.
func (s *Session) nearUpdate(args resp.Command) {
	words := words{rest: args[1 : len(args)-1], usage: "NEAR.UPDATE key version [PX ms] [EVENT-TIME ms] [ID id] value"}
	w := cache.Write{Update: true, Value: append([]byte(nil), args[len(args)-1]...)}
	w.Keys = []bus.KeyVersion{{Key: words.key(), Version: words.uint("the version")}}
	for words.fault == "" && len(words.rest) > 0 {
		switch {
		case words.option("PX"):
			w.TTL = words.millis("PX")
		case words.option("EVENT-TIME"):
			w.Time = time.UnixMilli(words.millis("EVENT-TIME").Milliseconds())
		case words.option("ID"):
			w.ID = string(words.next("the id"))
		default:
			words.end()
		}
	}
	fault := words.end()
	switch {
	case fault != "":
	case w.Keys[0].Version == 0:
		fault = "ERR the version is 0: an update needs the source's own version of the value; without one, NEAR.INVALIDATE"
	}
	if fault != "" {
		s.fail(fault)
		return
	}
	size := int64(len(w.Value))
	if !s.hold(size) {
		return
	}
	s.parkWrite(
		func(ctx context.Context) (cache.Receipt, error) { return s.cache.Invalidate(ctx, w) },
		func(s *Session, r cache.Receipt) { s.text(r.Position.String()) })
	s.wait.held = size
}

// keyVersions takes a count and as many pairs of key and version.
func (w *words) keyVersions() []bus.KeyVersion {
	n := w.uint("the number of keys")
	if w.fault == "" && (n < 1 || n > maxWriteKeys) {
		w.fail("%d keys: want 1 to %d", n, maxWriteKeys)
	}
	var all []bus.KeyVersion
	for range n {
		if w.fault != "" {
			return nil
		}
		all = append(all, bus.KeyVersion{Key: w.key(), Version: w.uint("the version of a key (0 for none)")})
	}
	return all
}

// namespace takes the name of one.
func (w *words) namespace() string {
	ns := string(w.next("the namespace"))
	if w.fault == "" && (ns == "" || len(ns) > bus.MaxNamespace) { // an empty one would be the domain
		w.fail("a namespace has %d bytes: want 1 to %d", len(ns), bus.MaxNamespace)
	}
	return ns
}
