package sidecar_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/embedded"
	"github.com/nearside-cache/nearside/bus/natsbus"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// BenchmarkStrong compares STRONG reads and barriers, alone and with 64 readers at
// once, with what they rest on: one publish and its acknowledgement, on the same
// JetStream.
func BenchmarkStrong(b *testing.B) {
	s := onJetStream(b)
	c := s.Dial(b)
	lease := c.Do("NEAR.GET", "k")
	require.Equal(b, "STORED", c.Do("NEAR.FILL", "k", lease.Elems[3].Str, "VERSION", "1", "v").Str)
	c.Do("NEAR.GET", "k", "STRONG")
	b.Run("publish", func(b *testing.B) {
		for i := range b.N {
			_, err := s.Bus.Publish(context.Background(), "other", bus.Event{Keys: []bus.KeyVersion{{Key: fmt.Sprint("other:", i)}}})
			require.NoError(b, err)
		}
	})
	b.Run("barrier", func(b *testing.B) {
		for range b.N {
			c.Do("NEAR.BARRIER")
		}
	})
	b.Run("strong", func(b *testing.B) {
		for range b.N {
			c.Do("NEAR.GET", "k", "STRONG")
		}
	})
	b.Run("strong/64 readers", func(b *testing.B) {
		b.SetParallelism(32) // times the processors
		b.RunParallel(func(pb *testing.PB) {
			c := s.Dial(b)
			for pb.Next() {
				c.Do("NEAR.GET", "k", "STRONG")
			}
		})
	})
}

// BenchmarkPurge purges a namespace with few and with many entries: it must take
// the same time.
func BenchmarkPurge(b *testing.B) {
	for _, n := range []int{10, 1_000_000} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			c := sidecartest.NewCache(b, sidecartest.NewStream(b), func(c *cache.Config) { c.Memory = 512 << 20 })
			for i := range n {
				key := fmt.Sprint("p:", i)
				c.Set(key, []byte("v"), cache.TTL{})
			}
			b.ResetTimer()
			for range b.N {
				_, err := c.Flush(context.Background(), "p")
				require.NoError(b, err)
			}
			b.StopTimer()
			_, ok := c.Peek("p:1", c.Now())
			require.False(b, ok)
		})
	}
}

// onJetStream starts a sidecar on a JetStream of its own in this process.
func onJetStream(b *testing.B) *sidecartest.Sidecar {
	server, err := embedded.Start(embedded.Config{Dir: b.TempDir()})
	require.NoError(b, err)
	b.Cleanup(func() { _ = server.Close() })
	subjects, err := bus.NewSubjects(bus.DefaultDomain)
	require.NoError(b, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	nb, err := natsbus.Open(ctx, natsbus.Config{InProcess: server, CreateStream: true, Stream: natsbus.StreamConfig{Subjects: subjects}})
	require.NoError(b, err)
	b.Cleanup(func() { _ = nb.Close() })
	return sidecartest.Start(b, nb, nil)
}
