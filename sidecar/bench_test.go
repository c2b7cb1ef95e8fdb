package sidecar_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus/membus"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// BenchmarkGetHit is one GET that hits, from the client's write to its read, over
// a real Unix socket. Allocations are those of the sidecar: the client makes none.
// docs/benchmarks.md has many connections, and other servers beside it.
func BenchmarkGetHit(b *testing.B) {
	for _, depth := range []int{1, 16} {
		for _, size := range []int{100, 16 << 10} {
			b.Run(fmt.Sprintf("depth=%d/size=%d", depth, size), func(b *testing.B) { benchmarkGetHit(b, depth, size) })
		}
	}
}

func benchmarkGetHit(b *testing.B, depth, size int) {
	s := sidecartest.Start(b, sidecartest.NewStream(b).Attach(membus.Options{}),
		func(c *sidecar.Config) { c.Logger = hclog.NewNullLogger() })
	value := bytes.Repeat([]byte("x"), size)
	require.Equal(b, "OK", s.Dial(b).Do("SET", "product:42", string(value)).Text())
	conn, err := net.Dial("unix", s.Socket)
	require.NoError(b, err)
	b.Cleanup(func() { conn.Close() })

	request := bytes.Repeat(resp.AppendCommand(nil, "GET", "product:42"), depth)
	want := bytes.Repeat(resp.AppendBulk(nil, value), depth)
	answer := make([]byte, len(want))
	exchange := func() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, answer); err != nil {
			b.Fatal(err)
		}
	}
	exchange()
	require.Equal(b, want, answer)
	b.ReportAllocs()
	b.SetBytes(int64(size))
	b.ResetTimer()
	for done := 0; done < b.N; done += depth {
		exchange()
	}
	b.StopTimer()
	require.Equal(b, want, answer)
}
