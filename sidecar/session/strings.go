package session

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

var stringCommands = []command{
	{"GET", 2, "readonly fast", 1, 1, 1, "Returns the value of a key", (*Session).get},
	{"MGET", -2, "readonly fast", 1, -1, 1, "Returns the values of keys", (*Session).mget},
	{"SET", -3, "write", 1, 1, 1, "Offers the value that a reader loaded after its miss", (*Session).set},
	{"SETEX", 4, "write", 1, 1, 1, "SET with a TTL in seconds", (*Session).setex},
	{"PSETEX", 4, "write", 1, 1, 1, "SET with a TTL in milliseconds", (*Session).setex},
	{"SETNX", 3, "write fast", 1, 1, 1, "SET if the key is absent here; no lock", (*Session).setnx},
	{"MSET", -3, "write", 1, -1, 2, "Several SETs", (*Session).mset},
	{"GETEX", -2, "write fast", 1, 1, 1, "GET, and change the TTL here", (*Session).getex},
	{"GETDEL", 2, "write fast", 1, 1, 1, "GET, and invalidate the key in every sidecar", (*Session).getdel},
	{"STRLEN", 2, "readonly fast", 1, 1, 1, "Returns the length of a key's value", (*Session).strlen},
}

// value answers with a key's value, or with null, which is a miss (C3).
func (s *Session) value(key string) bool {
	held := held(s.lookup(key))
	if !held {
		s.cache.Missed(key, s.now)
	}
	return held
}

// held reports whether a value was found.
func held(f cache.Found) bool { return f == cache.Value || f == cache.Old }

// lookup answers with a key's value, copied once into the output, or with null.
// It takes no note of a miss.
func (s *Session) lookup(key string) cache.Found {
	// The header's length is known only with the value. Room is left for one as long
	// as the last: most values of a client are of a size. Where that is wrong, the
	// value is moved.
	start, room := len(s.out), s.header
	var space [longestHeader]byte
	withValue, found := s.read(key, append(s.out, space[:room]...))
	if !held(found) {
		s.out = s.out[:start]
		s.null()
		return found
	}
	n := len(withValue) - start - room
	header := resp.AppendBulkHeader(space[:0], n)
	if s.header = len(header); s.header != room {
		withValue = slices.Replace(withValue, start, start+room, header...)
	} else {
		copy(withValue[start:], header)
	}
	s.out = append(withValue, resp.CRLF...)
	return found
}

// longestHeader is that of a value, whose length has 10 digits at most.
const longestHeader = len("$") + 10 + len(resp.CRLF)

// mget answers key by key, in as many steps as the flush mark asks for.
func (s *Session) mget(args resp.Command) {
	keys := args[1:]
	before := len(s.out)
	s.array(len(keys))
	for i, key := range keys {
		if i%cache.PrefetchKeys == 0 {
			s.prefetch(keys[i:])
		}
		if s.reply != replyOn {
			s.out = s.out[:before] // nobody will read it: let it not pile up
		} else if len(s.out) >= flushMark {
			rest, became := copyKeys(keys[i:]), s.loading
			s.more = func(s *Session) bool {
				s.loading = became
				defer func() { s.loading = unloaded }()
				for len(rest) > 0 && len(s.out) < flushMark {
					s.value(rest[0])
					rest = rest[1:]
				}
				return len(rest) > 0
			}
			return
		}
		s.value(view(key))
	}
}

// copyKeys returns keys that outlive the input buffer.
func copyKeys(keys [][]byte) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = string(k)
	}
	return out
}

// setOptions are the options of SET.
type setOptions struct {
	ttl    cache.TTL
	absent bool // NX
	there  bool // XX
	get    bool
}

// parseSet reads SET's options; fault is the answer when they make no sense.
func (s *Session) parseSet(cmd resp.Command) (o setOptions, fault string) {
	args := cmd[3:]
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case is(a, "NX") && !o.there:
			o.absent = true
		case is(a, "XX") && !o.absent:
			o.there = true
		case is(a, "GET"):
			o.get = true
		case is(a, "KEEPTTL") && !o.ttl.Asked:
			o.ttl.Keep = true
		case isExpiry(a) && i+1 < len(args) && !o.ttl.Asked && !o.ttl.Keep:
			if o.ttl, fault = parseExpiry(cmd[0], a, args[i+1]); fault != "" {
				return o, fault
			}
			i++
		default:
			return o, errSyntax
		}
	}
	return o, ""
}

func (s *Session) set(args resp.Command) {
	o, fault := s.parseSet(args)
	if fault == "" {
		fault = s.checkValue(view(args[1]), args[2])
	}
	if fault != "" {
		s.fail(fault)
		return
	}
	key, value := view(args[1]), args[2]
	if s.cache.Policies().OfKey(key).Set == policy.SetInvalidate {
		s.setAsWrite(key, o)
		return
	}
	if o.absent || o.there {
		if _, held := s.cache.Peek(key, s.now); held == o.absent {
			s.unmet(key, o)
			return
		}
	}
	if o.get {
		s.setGet(key, value, o)
		return
	}
	s.offer(key, value, o.ttl)
	if o.absent {
		s.cache.Missed(key, s.now) // OK tells it, and not before the SET was judged
	}
	s.ok()
}

// checkValue refuses values that the store is not configured to hold. Nobody
// waits for them any longer.
func (s *Session) checkValue(key string, value []byte) (fault string) {
	if n, most := len(value), s.cache.MaxValue(); n > most {
		s.cache.Unfit(key)
		return fmt.Sprintf("ERR the value has %d bytes, the limit is %d: raise --max-value", n, most)
	}
	return ""
}

// unmet answers a SET whose NX or XX did not hold. An XX that fails reveals that
// the key is absent.
func (s *Session) unmet(key string, o setOptions) {
	switch {
	case o.get:
		s.value(key)
	case o.there:
		s.cache.Missed(key, s.now)
		s.null()
	default:
		s.null()
	}
}

// setGet answers with the former value. Its absence becomes known only after the
// SET was judged: a miss of now would judge a value that was loaded before.
func (s *Session) setGet(key string, value []byte, o setOptions) {
	held := held(s.lookup(key))
	s.offer(key, value, o.ttl)
	if !held {
		s.cache.Missed(key, s.now)
	}
}

// setAsWrite is a SET where policy says that a SET is a write (C3): it is
// published, nothing is stored.
func (s *Session) setAsWrite(key string, o setOptions) {
	if o.absent || o.there || o.get {
		s.fail(errCondition)
		return
	}
	s.invalidate([]bus.KeyVersion{{Key: key}}, func(s *Session, _ cache.Receipt) { s.ok() })
}

func (s *Session) setex(args resp.Command) {
	unit := []byte("EX")
	if len(args[0]) == len("PSETEX") {
		unit = []byte("PX")
	}
	s.set(resp.Command{args[0], args[1], args[3], unit, args[2]})
}

func (s *Session) setnx(args resp.Command) {
	key := view(args[1])
	fault := s.checkValue(key, args[2])
	if s.cache.Policies().OfKey(key).Set == policy.SetInvalidate {
		fault = errCondition
	}
	if fault != "" {
		s.fail(fault)
		return
	}
	_, held := s.cache.Peek(key, s.now)
	if !held {
		s.offer(key, args[2], cache.TTL{})
		s.cache.Missed(key, s.now)
	}
	s.truth(!held)
}

func (s *Session) mset(args resp.Command) {
	if len(args)%2 == 0 {
		s.fail(wrongArity("MSET"))
		return
	}
	for i := 2; i < len(args); i += 2 {
		if fault := s.checkValue(view(args[i-1]), args[i]); fault != "" {
			s.fail(fault)
			return
		}
	}
	var writes []bus.KeyVersion
	for i := 1; i < len(args); i += 2 {
		key := view(args[i])
		if s.cache.Policies().OfKey(key).Set == policy.SetInvalidate {
			writes = append(writes, bus.KeyVersion{Key: key})
			continue
		}
		s.offer(key, args[i+1], cache.TTL{})
	}
	if writes == nil {
		s.ok()
		return
	}
	s.invalidate(writes, func(s *Session, _ cache.Receipt) { s.ok() })
}

func (s *Session) getex(args resp.Command) {
	ttl, change := cache.TTL{}, len(args) > 2
	switch {
	case len(args) == 3 && is(args[2], "PERSIST"):
		ttl.Asked = true
	case len(args) == 4 && isExpiry(args[2]):
		var fault string
		if ttl, fault = parseExpiry(args[0], args[2], args[3]); fault != "" {
			s.fail(fault)
			return
		}
	case change:
		s.fail(errSyntax)
		return
	}
	if s.value(view(args[1])) && change {
		s.cache.Expire(view(args[1]), ttl)
	}
}

func (s *Session) getdel(args resp.Command) {
	value, held := s.cache.Get(view(args[1]), nil, s.now)
	size := int64(len(value))
	if !s.hold(size) {
		return
	}
	s.invalidate([]bus.KeyVersion{{Key: view(args[1])}}, func(s *Session, _ cache.Receipt) {
		if held {
			s.bulk(value)
		} else {
			s.null()
		}
	})
	s.wait.held = size
}

func (s *Session) strlen(args resp.Command) {
	i, _ := s.head(view(args[1]))
	s.integer(int64(i.Size))
}

// parseInt reads an argument as strictly as Redis: no plus sign, no leading zero.
func parseInt(arg []byte) (int64, bool) {
	n, err := strconv.ParseInt(view(arg), 10, 64)
	if err != nil || arg[0] == '+' {
		return 0, false
	}
	digits := strings.TrimPrefix(view(arg), "-")
	return n, digits[0] != '0' || len(arg) == 1
}
