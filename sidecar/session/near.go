package session

import (
	"fmt"
	"math"
	"strconv"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/operation"
)

var nearCommands = []command{
	{"NEAR.EXPLAIN", 2, "readonly", 1, 1, 1, "Tells what is held of a key and why its next read hits or misses", (*Session).explain},
	{"NEAR.STATUS", 1, "readonly fast", 0, 0, 0, "Tells how the sidecar is", (*Session).status},
	{"NEAR.WATCH", 1, "no_multi", 0, 0, 0, "Pushes every event that is applied from now on", (*Session).startWatch},
}

// facts answers with a map of names and values.
func (s *Session) facts(all []operation.Fact) {
	s.dict(len(all))
	for _, f := range all {
		s.text(f.Name)
		switch v := f.Value.(type) {
		case string:
			s.text(v)
		case bool:
			s.out = s.proto.AppendBool(s.out, v)
		case int64:
			s.integer(v)
		case uint64:
			if v > math.MaxInt64 { // versions use all 64 bits, RESP's integers have a sign
				s.text(strconv.FormatUint(v, 10))
				break
			}
			s.integer(int64(v))
		default:
			panic(fmt.Sprintf("session: %s has type %T", f.Name, v))
		}
	}
}

func (s *Session) status(resp.Command) { s.facts(s.env.Status()) }

func (s *Session) explain(args resp.Command) { s.facts(s.env.Explain(string(args[1]))) }
