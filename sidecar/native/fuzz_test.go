package native_test

import (
	"testing"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sidecar/native"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// FuzzSession brings any input, in pieces: it is answered or ends the connection.
func FuzzSession(f *testing.F) {
	r := newRig(f, permitted)
	hello := near.Append(nil, near.KindHello, 1, &near.Hello{Min: 1, Max: 1})
	for _, k := range near.Kinds() {
		m, _ := near.New(k)
		f.Add(near.Append(append([]byte(nil), hello...), k, 2, m), uint16(7))
	}
	f.Add(near.Append(append([]byte(nil), hello...), near.KindGet, 2, get("n:k")), uint16(1))
	f.Add(near.Append(append([]byte(nil), hello...), near.KindUpdate, 2, &near.Update{Key: []byte("n:k"), Version: 1}), uint16(100))
	f.Fuzz(func(t *testing.T, in []byte, piece uint16) {
		s := native.New(r.env, func() {})
		defer s.Close()
		var have []byte
		for len(in) > 0 {
			n := min(len(in), int(piece)+1)
			have = append(have, in[:n]...)
			in = in[n:]
			for next := session.Flush; next == session.Flush; {
				var used int
				used, _, next = s.Serve(have, nil)
				have = have[used:]
				if next == session.End {
					return
				}
			}
			s.Pushes(nil)
		}
	})
}
