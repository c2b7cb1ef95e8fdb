package session

import (
	"time"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/operation"
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
	var w operation.Write
	for words.fault == "" && len(words.rest) > 0 {
		switch {
		case words.option("KEYS"):
			w.Keys = words.keyVersions()
		case words.option("TAGS"):
			w.Tags = words.list("tags", maxWriteTags)
		case words.option("PREFIX"):
			w.Prefix = words.key()
		case words.option("NAMESPACE"):
			w.Namespace = words.namespace()
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
	if fault := words.endWrite(w); fault != "" {
		s.fail(fault)
		return
	}
	s.parkWrite(w, func(s *Session, r cache.Receipt) { s.text(r.Position.String()) })
}

// endWrite is end, and checks what the words said.
func (w *words) endWrite(write operation.Write) (fault string) {
	if fault = w.end(); fault != "" {
		return fault
	}
	if fault = write.Check(); fault != "" {
		fault = "ERR " + fault
	}
	return fault
}

// nearUpdate is NEAR.UPDATE key version [PX ms] [EVENT-TIME ms] [ID id] value.
func (s *Session) nearUpdate(args resp.Command) {
	words := words{rest: args[1 : len(args)-1], usage: "NEAR.UPDATE key version [PX ms] [EVENT-TIME ms] [ID id] value"}
	w := operation.Write{}
	w.Update, w.Value = true, append([]byte(nil), args[len(args)-1]...)
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
	if fault := words.endWrite(w); fault != "" {
		s.fail(fault)
		return
	}
	size := int64(len(w.Value))
	if !s.hold(size) {
		return
	}
	s.parkWrite(w, func(s *Session, r cache.Receipt) { s.text(r.Position.String()) })
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
	if w.fault == "" {
		if fault := operation.CheckNamespace(ns); fault != "" {
			w.fail("%s", fault)
		}
	}
	return ns
}
