package session

import (
	"fmt"
	"strings"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/operation"
)

// command is an entry of the table that commands are looked up in. arity, flags
// and the keys' places are as in the answer to Redis's COMMAND: arity counts the
// name, and is negative where more arguments are allowed.
type command struct {
	name    string
	arity   int
	flags   string // separated by blanks
	first   int    // place of the first key, 0 = none
	last    int    // place of the last key, negative from the end
	step    int
	summary string
	run     func(*Session, resp.Command)
}

// commands is filled once, by init, because COMMAND reads it.
var commands map[string]*command

// shortCommands has the commands of at most 8 letters by these letters, which a
// machine compares at once: each is at its home or, if others were there before it,
// at one of the next places. Half of the places are empty.
var shortCommands [256]struct {
	letters uint64
	command *command
}

// home is where the search for letters begins.
func home(letters uint64) uint8 { return uint8(letters * 0x9e3779b97f4a7c15 >> 56) }

func init() {
	commands = make(map[string]*command)
	for _, group := range [][]command{stringCommands, keyCommands, connectionCommands, multiCommands, serverCommands, nearCommands, nearReadCommands, nearWriteCommands, policyCommands} {
		for i := range group {
			commands[group[i].name] = &group[i]
			if len(group[i].name) <= 8 {
				addShort(&group[i])
			}
		}
	}
}

func addShort(c *command) {
	letters := capitals([]byte(c.name))
	i := home(letters)
	for shortCommands[i].command != nil {
		i++
	}
	shortCommands[i].letters, shortCommands[i].command = letters, c
}

// capitals packs a name of at most 8 bytes into a number that is its own, in any
// case.
func capitals(name []byte) (letters uint64) {
	for _, c := range name {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		letters = letters<<8 | uint64(c)
	}
	return letters
}

// lookup finds a command by its name in any case, without allocating.
func lookup(name []byte) *command {
	if len(name) > 8 {
		return lookupLong(name)
	}
	letters := capitals(name)
	for i := home(letters); shortCommands[i].command != nil; i++ {
		if shortCommands[i].letters == letters && len(shortCommands[i].command.name) == len(name) {
			return shortCommands[i].command
		}
	}
	return nil
}

// longestName bounds the names that are looked up.
const longestName = 20

func lookupLong(name []byte) *command {
	var upper [longestName]byte
	if len(name) > len(upper) {
		return nil
	}
	for i, c := range name {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper[i] = c
	}
	return commands[string(upper[:len(name)])]
}

// execute runs one command and appends its answer, or parks it.
func (s *Session) execute(args resp.Command) {
	s.ran++
	before := len(s.out)
	s.run(args)
	if s.multi.open && len(s.out) > before && s.out[before] == '-' {
		s.multi.failed = true
	}
	s.mute(before)
}

func (s *Session) run(args resp.Command) {
	c := lookup(args[0])
	switch {
	case c == nil:
		s.env.Metrics.UnknownCommands.Inc()
		s.fail(unknown(args))
	case c.arity > 0 && len(args) != c.arity || len(args) < -c.arity:
		s.fail(wrongArity(c.name))
	case !s.authed && !strings.Contains(c.flags, "no_auth"):
		s.fail("NOAUTH Authentication required.")
	default:
		if fault := c.checkKeys(args); fault != "" {
			s.fail(fault)
			return
		}
		if !s.multi.collects(c) {
			if keys := s.mustCatch(c, args); keys != nil {
				s.parkCritical(c, args, keys)
				return
			}
			s.start(c, args)
			return
		}
		if strings.Contains(c.flags, "no_multi") {
			s.fail(fmt.Sprintf("ERR %s is not allowed between MULTI and EXEC", c.name))
			return
		}
		s.collect(args)
	}
}

// checkKeys refuses keys that no store could hold.
func (c *command) checkKeys(args resp.Command) (fault string) {
	if c.first == 0 {
		return ""
	}
	last := c.last
	if last < 0 {
		last += len(args)
	}
	for i := c.first; i <= last; i += c.step {
		if fault := checkKey(args[i]); fault != "" {
			return fault
		}
	}
	return ""
}

func checkKey(key []byte) (fault string) {
	if fault = operation.CheckKey(view(key)); fault != "" {
		fault = "ERR " + fault
	}
	return fault
}

// badExpiry words the refusal of a TTL that makes no sense.
func badExpiry(name []byte) string {
	return fmt.Sprintf("ERR invalid expire time in '%s' command", strings.ToLower(string(name)))
}

func wrongArity(name string) string {
	return fmt.Sprintf("ERR wrong number of arguments for '%s' command", strings.ToLower(name))
}

// unknown words the refusal as Redis does, because clients look at it.
func unknown(args resp.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ERR unknown command '%.128s', with args beginning with: ", args[0])
	for _, a := range args[1:min(len(args), 4)] {
		fmt.Fprintf(&b, "'%.32s' ", a)
	}
	return b.String()
}

// replyMode is what CLIENT REPLY asked for.
type replyMode uint8

const (
	replyOn replyMode = iota
	replyOff
	replySkip     // the answer of this command is left out
	replySkipNext // that of the next one will be
)

// mute takes back the answer that was appended after before, if the client does
// not want it. A parked command is muted when it finishes.
func (s *Session) mute(before int) {
	if s.wait != nil {
		return
	}
	switch s.reply {
	case replyOn:
	case replyOff:
		s.out = s.out[:before]
	case replySkip:
		s.out = s.out[:before]
		s.reply = replyOn
	case replySkipNext:
		s.out = s.out[:before]
		s.reply = replySkip
	}
}

// is reports whether an option's name is word, which is in capitals.
func is(arg []byte, word string) bool {
	return len(arg) == len(word) && strings.EqualFold(view(arg), word)
}

const (
	errSyntax = "ERR syntax error"
	errInt    = "ERR value is not an integer or out of range"

	errCondition = "ERR NX, XX and GET mean nothing here: the policy of this namespace takes a SET for a write (set: invalidate)"
)
