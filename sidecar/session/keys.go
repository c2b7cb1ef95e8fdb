package session

import (
	"context"
	"strconv"
	"strings"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/operation"
)

var keyCommands = []command{
	{"DEL", -2, "write", 1, -1, 1, "Invalidates keys in every sidecar", (*Session).del},
	{"UNLINK", -2, "write fast", 1, -1, 1, "As DEL", (*Session).del},
	{"EXISTS", -2, "readonly fast", 1, -1, 1, "Counts the keys that are held here", (*Session).exists},
	{"TTL", 2, "readonly fast", 1, 1, 1, "Returns the seconds until a key expires here", (*Session).ttl},
	{"PTTL", 2, "readonly fast", 1, 1, 1, "Returns the milliseconds until a key expires here", (*Session).ttl},
	{"EXPIRE", -3, "write fast", 1, 1, 1, "Changes a key's TTL here, in seconds", (*Session).expire},
	{"PEXPIRE", -3, "write fast", 1, 1, 1, "Changes a key's TTL here, in milliseconds", (*Session).expire},
	{"PERSIST", 2, "write fast", 1, 1, 1, "Takes away a key's TTL here", (*Session).persist},
	{"TYPE", 2, "readonly fast", 1, 1, 1, "Returns string, or none", (*Session).kind},
	{"SCAN", -2, "readonly", 0, 0, 0, "Walks through the keys held here", (*Session).scan},
	{"DBSIZE", 1, "readonly fast", 0, 0, 0, "Returns the number of entries held here", (*Session).dbsize},
	{"FLUSHDB", -1, "write", 0, 0, 0, "Invalidates everything in every sidecar, where policy allows it", (*Session).flush},
	{"FLUSHALL", -1, "write", 0, 0, 0, "As FLUSHDB", (*Session).flush},
}

func (s *Session) del(args resp.Command) {
	keys := make([]bus.KeyVersion, 0, len(args)-1)
	for _, k := range args[1:] {
		keys = append(keys, bus.KeyVersion{Key: view(k)})
	}
	s.invalidate(keys, func(s *Session, r cache.Receipt) { s.integer(int64(r.Alive)) })
}

// invalidate parks the command until the stream has acknowledged and this
// sidecar has applied the invalidation (C8). keys may be views.
func (s *Session) invalidate(keys []bus.KeyVersion, answer func(*Session, cache.Receipt)) {
	keys = append([]bus.KeyVersion(nil), keys...)
	for i := range keys {
		keys[i].Key = strings.Clone(keys[i].Key)
	}
	s.parkWrite(operation.Write{Write: cache.Write{Keys: keys}}, answer)
}

// parkWrite parks a command that publishes, and words its failures.
func (s *Session) parkWrite(w operation.Write, answer func(*Session, cache.Receipt)) {
	var (
		by      audit.Who
		receipt cache.Receipt
		err     error
	)
	if w.Purge().Wide() {
		by = s.who()
	}
	s.park(
		func(ctx context.Context) { receipt, err = s.env.Publish(ctx, w, by) },
		func(s *Session) {
			if err != nil {
				s.writeFailed(err)
				return
			}
			answer(s, receipt)
		})
}

// writeFailed words the failure of something that had to be published.
func (s *Session) writeFailed(err error) {
	failure, words := operation.Explain(err)
	s.fail(string(failure) + " " + words)
}

func (s *Session) exists(args resp.Command) {
	n := int64(0)
	for _, k := range args[1:] {
		if _, held := s.head(view(k)); held {
			n++
		}
	}
	s.integer(n)
}

func (s *Session) kind(args resp.Command) {
	if _, held := s.head(view(args[1])); held {
		s.simple("string")
	} else {
		s.simple("none")
	}
}

func (s *Session) dbsize(resp.Command) { s.integer(int64(s.cache.Len())) }

// scan is SCAN cursor [MATCH pattern] [COUNT n] [TYPE t].
func (s *Session) scan(args resp.Command) {
	cursor, err := strconv.ParseUint(view(args[1]), 10, 64)
	if err != nil {
		s.fail("ERR invalid cursor")
		return
	}
	pattern, count, none := "*", int64(10), false
	for i := 2; i < len(args); i += 2 {
		ok := i+1 < len(args)
		switch {
		case ok && is(args[i], "MATCH"):
			pattern = view(args[i+1])
		case ok && is(args[i], "COUNT"):
			count, ok = parseInt(args[i+1])
			ok = ok && count > 0
		case ok && is(args[i], "TYPE"):
			none = !is(args[i+1], "STRING")
		default:
			ok = false
		}
		if !ok {
			s.fail(errSyntax)
			return
		}
	}
	keys, next, err := s.cache.Scan(cursor, int(min(count, 1000)), s.now)
	if err != nil {
		s.fail("ERR invalid cursor: " + err.Error())
		return
	}
	var match []string
	for _, k := range keys {
		if !none && globMatch(pattern, k) {
			match = append(match, k)
		}
	}
	s.array(2)
	s.text(strconv.FormatUint(next, 10))
	s.array(len(match))
	for _, k := range match {
		s.text(k)
	}
}

// flush is FLUSHDB and FLUSHALL. A domain has one keyspace, so both purge it
// everywhere, and only where every namespace's policy allows that.
func (s *Session) flush(args resp.Command) {
	if len(args) > 2 || len(args) == 2 && !is(args[1], "ASYNC") && !is(args[1], "SYNC") {
		s.fail(errSyntax)
		return
	}
	s.parkWrite(operation.Write{Domain: true}, func(s *Session, _ cache.Receipt) { s.ok() })
}
