package native_test

import (
	"strings"
	"testing"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/sidecar/session"
)

// What a hit costs in the session, without a socket, beside RESP.
func BenchmarkHit(b *testing.B) {
	r := newRig(b, nil)
	p := r.greet(b)
	p.store("n:k", strings.Repeat("v", 100), 5, nil)
	plain := session.New(r.env, func() {})
	b.Cleanup(plain.Close)
	for name, c := range map[string]struct {
		in    []byte
		serve func(in, out []byte) (int, []byte, session.Next)
	}{
		"native": {near.Append(nil, near.KindGet, 1, get("n:k")), p.s.Serve},
		"resp":   {resp.AppendCommand(nil, "GET", "n:k"), plain.Serve},
	} {
		b.Run(name, func(b *testing.B) {
			in := []byte(strings.Repeat(string(c.in), 16))
			out := make([]byte, 0, 64<<10)
			b.ReportAllocs()
			for b.Loop() {
				if n, _, _ := c.serve(in, out[:0]); n != len(in) {
					b.Fatal(n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*16), "ns/hit")
		})
	}
}
