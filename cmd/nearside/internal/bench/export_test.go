package bench

import (
	"net"

	"github.com/nearside-cache/nearside/api/resp"
)

// WithTimers returns the load with pacing by the runtime's timers, which a
// bubble of virtual time knows.
func (l Load) WithTimers() Load {
	l.newPacer = func() pacer { return timers{} }
	return l
}

// ReadReplies reads n answers and returns each as its kind, size and error.
func ReadReplies(nc net.Conn, n int) (all []resp.Reply, err error) {
	err = newConn(nc).receive(n, func(_ int, r reply) error {
		one := resp.Reply{Str: r.text, Int: int64(r.size)}
		switch {
		case r.isNull():
			one.Kind, one.Int = resp.KindNull, 0
		case r.kind == '$':
			one.Kind = resp.KindBulk
		case r.kind == '-':
			one.Kind = resp.KindError
		case r.kind == ':':
			one.Kind = resp.KindInt
		default:
			one.Kind = resp.KindSimple
		}
		all = append(all, one)
		return nil
	})
	return all, err
}
