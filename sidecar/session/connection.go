package session

import (
	"crypto/subtle"
	"fmt"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/operation"
)

var connectionCommands = []command{
	{"PING", -1, "fast no_auth", 0, 0, 0, "Answers PONG, or its argument", (*Session).ping},
	{"ECHO", 2, "fast", 0, 0, 0, "Answers its argument", (*Session).echo},
	{"QUIT", -1, "fast no_auth", 0, 0, 0, "Closes the connection", (*Session).quit},
	{"HELLO", -1, "fast no_auth no_multi", 0, 0, 0, "Chooses the protocol version", (*Session).hello},
	{"AUTH", -2, "fast no_auth", 0, 0, 0, "Authenticates the connection", (*Session).auth},
	{"SELECT", 2, "fast", 0, 0, 0, "Accepts database 0, the only one", (*Session).selectDB},
	{"RESET", 1, "fast no_auth", 0, 0, 0, "Makes the connection as new", (*Session).resetCommand},
	{"CLIENT", -2, "no_multi", 0, 0, 0, "Tells and sets what is known of clients", (*Session).clientCommand},
}

// redisVersion is the version of Redis whose answers ours are modelled on.
// Clients choose features by it.
const redisVersion = "7.4.0"

func (s *Session) ping(args resp.Command) {
	switch len(args) {
	case 1:
		s.simple("PONG")
	case 2:
		s.bulk(args[1])
	default:
		s.fail(wrongArity("PING"))
	}
}

func (s *Session) echo(args resp.Command) { s.bulk(args[1]) }

func (s *Session) quit(resp.Command) {
	s.ok()
	s.ended = true
}

func (s *Session) resetCommand(resp.Command) {
	s.reset()
	s.simple("RESET")
}

func (s *Session) selectDB(args resp.Command) {
	switch n, ok := parseInt(args[1]); {
	case !ok:
		s.fail(errInt)
	case n != 0:
		s.fail("ERR DB index is out of range: nearside has database 0 only")
	default:
		s.ok()
	}
}

// auth is AUTH [user] password.
func (s *Session) auth(args resp.Command) {
	switch {
	case len(args) > 3:
		s.fail(errSyntax)
	case s.env.Password == "":
		s.fail("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	case s.login(args[1:]):
		s.ok()
	default:
		s.fail("WRONGPASS invalid username-password pair or user is disabled.")
	}
}

// login checks a password, or the user "default" and a password.
func (s *Session) login(words [][]byte) bool {
	if len(words) == 2 && view(words[0]) != "default" {
		return false
	}
	ok := subtle.ConstantTimeCompare(words[len(words)-1], []byte(s.env.Password)) == 1
	s.authed = s.authed || ok
	return ok
}

// hello is HELLO [version [AUTH user password] [SETNAME name]].
func (s *Session) hello(args resp.Command) {
	proto := s.proto
	if len(args) > 1 {
		switch n, ok := parseInt(args[1]); {
		case ok && (n == 2 || n == 3):
			proto = resp.Proto(n)
		default:
			s.fail("NOPROTO unsupported protocol version")
			return
		}
	}
	name := ""
	for i := 2; i < len(args); {
		switch rest := args[i+1:]; {
		case is(args[i], "AUTH") && len(rest) >= 2 && s.env.Password == "":
			i += 3 // Redis without a password accepts the default user's as well
		case is(args[i], "AUTH") && len(rest) >= 2:
			if !s.login(rest[:2]) {
				s.fail("WRONGPASS invalid username-password pair or user is disabled.")
				return
			}
			i += 3
		case is(args[i], "SETNAME") && len(rest) >= 1:
			if fault := checkName(rest[0]); fault != "" {
				s.fail(fault)
				return
			}
			name = string(rest[0])
			i += 2
		default:
			s.fail(fmt.Sprintf("ERR Syntax error in HELLO option '%.32s'", args[i]))
			return
		}
	}
	if !s.authed {
		s.fail("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
		return
	}
	if s.proto = proto; proto != resp.RESP3 {
		s.stopWatch()
	}
	if name != "" {
		s.env.Clients.Change(s.client, func(c *operation.Client) { c.Name = name })
	}
	s.greet()
}

func (s *Session) greet() {
	s.dict(8)
	for _, kv := range [][2]string{{"server", "redis"}, {"version", redisVersion}, {"nearside_version", s.env.Version}} {
		s.text(kv[0])
		s.text(kv[1])
	}
	s.text("proto")
	s.integer(int64(s.proto))
	s.text("id")
	s.integer(s.client.ID)
	for _, kv := range [][2]string{{"mode", "standalone"}, {"role", "master"}} {
		s.text(kv[0])
		s.text(kv[1])
	}
	s.text("modules")
	s.array(0)
}

// clientCommand is CLIENT and its subcommands.
func (s *Session) clientCommand(args resp.Command) {
	sub, rest := args[1], args[2:]
	switch {
	case is(sub, "ID") && len(rest) == 0:
		s.integer(s.client.ID)
	case is(sub, "SETNAME") && len(rest) == 1:
		s.setClient(rest[0], func(c *operation.Client, v string) { c.Name = v })
	case is(sub, "GETNAME") && len(rest) == 0:
		s.clientName()
	case is(sub, "SETINFO") && len(rest) == 2:
		s.setInfo(rest[0], rest[1])
	case is(sub, "INFO") && len(rest) == 0:
		s.out = s.proto.AppendVerbatim(s.out, s.describe(*s.client)+"\n")
	case is(sub, "LIST"):
		var b strings.Builder
		for _, c := range s.env.Clients.List() {
			b.WriteString(s.describe(c) + "\n")
		}
		s.out = s.proto.AppendVerbatim(s.out, b.String())
	case (is(sub, "NO-EVICT") || is(sub, "NO-TOUCH")) && len(rest) == 1:
		s.ok()
	case is(sub, "REPLY") && len(rest) == 1:
		s.setReply(rest[0])
	default:
		s.fail(fmt.Sprintf("ERR unknown subcommand or wrong number of arguments for '%.64s'. Try CLIENT HELP.", sub))
	}
}

func (s *Session) clientName() {
	if s.client.Name == "" {
		s.null()
		return
	}
	s.text(s.client.Name)
}

func (s *Session) setInfo(attribute, value []byte) {
	switch {
	case is(attribute, "LIB-NAME"):
		s.setClient(value, func(c *operation.Client, v string) { c.LibName = v })
	case is(attribute, "LIB-VER"):
		s.setClient(value, func(c *operation.Client, v string) { c.LibVersion = v })
	default:
		s.fail(fmt.Sprintf("ERR Unrecognized option '%.64s'", attribute))
	}
}

// checkName refuses names that are not fit to be listed.
func checkName(name []byte) (fault string) {
	if fault = operation.CheckName(name); fault != "" {
		fault = "ERR " + fault
	}
	return fault
}

// setClient changes what is known of this client.
func (s *Session) setClient(value []byte, set func(*operation.Client, string)) {
	if fault := checkName(value); fault != "" {
		s.fail(fault)
		return
	}
	v := string(value)
	s.env.Clients.Change(s.client, func(c *operation.Client) { set(c, v) })
	s.ok()
}

func (s *Session) describe(c operation.Client) string {
	return fmt.Sprintf("id=%d name=%s age=%d db=0 lib-name=%s lib-ver=%s",
		c.ID, c.Name, int(time.Since(c.Since).Seconds()), c.LibName, c.LibVersion)
}

func (s *Session) setReply(mode []byte) {
	switch {
	case is(mode, "ON"):
		s.reply = replyOn
		s.ok()
	case is(mode, "OFF"):
		s.reply = replyOff
	case is(mode, "SKIP"):
		if s.reply != replyOff {
			s.reply = replySkipNext
		}
	default:
		s.fail(errSyntax)
	}
}
