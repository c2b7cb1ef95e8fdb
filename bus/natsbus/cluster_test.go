package natsbus_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

// newCluster starts three servers and returns them by name.
func newCluster(t *testing.T) map[string]*server.Server {
	names, routes := []string{"one", "two", "three"}, []*url.URL(nil)
	for range names { // a server of a cluster must know the others from the start
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
		require.NoError(t, l.Close())
	}
	servers := make(map[string]*server.Server)
	for i, name := range names {
		port, err := strconv.Atoi(routes[i].Port())
		require.NoError(t, err)
		srv, err := server.NewServer(&server.Options{
			ServerName: name, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: 1 << 26,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port}, Routes: routes,
		})
		require.NoError(t, err)
		srv.Start()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		require.True(t, srv.ReadyForConnections(patience))
		servers[name] = srv
	}
	require.Eventually(t, func() bool {
		for _, s := range servers {
			if s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == len(names) {
				return true
			}
		}
		return false
	}, patience, 10*time.Millisecond, "no meta leader")
	return servers
}

// On three servers, while the stream's leader steps down and then goes away:
// every acknowledged event arrives once and in order, by whatever replica (one
// that lags included) the gaps are filled.
func TestClusterLosesItsLeader(t *testing.T) {
	servers := newCluster(t)
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	attach := func() *natsbus.Bus {
		a, err := natsbus.Open(context.Background(), natsbus.Config{
			URL: strings.Join(urls, ","), Stream: natsbus.StreamConfig{Subjects: subjects}, CreateStream: true,
		})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, a.Close()) })
		return a
	}
	writer := attach()
	js, err := jetstream.New(writer.Conn())
	require.NoError(t, err)
	leader := func() string {
		var name string
		require.Eventually(t, func() bool {
			info, err := natsbus.Inspect(within(t, time.Second), js, natsbus.StreamConfig{Subjects: subjects})
			name = info.Leader
			return err == nil && name != ""
		}, patience, 10*time.Millisecond)
		return name
	}
	var sides []*recorder
	for range 3 {
		r, _ := follow(t, attach())
		r.waitResumes(t, 1)
		sides = append(sides, r)
	}
	info, err := natsbus.Inspect(within(t, patience), js, natsbus.StreamConfig{Subjects: subjects})
	require.NoError(t, err)
	require.Equal(t, 3, info.Replicas, "three servers hold the stream")
	require.Empty(t, info.Deviations)

	acked := publishUntil(t, writer, func(reached func(int)) {
		reached(300)
		stepDown(t, writer.Conn(), subjects.Stream())
		reached(300)
		lost := servers[leader()]
		lost.Shutdown()
		lost.WaitForShutdown()
		reached(300)
	})
	for _, r := range sides {
		r.waitApplied(t, acked["last"].Seq)
		r.check(t)
		for key := range acked {
			require.Equal(t, 1, r.keys[key], key)
		}
		require.Len(t, r.keys, len(acked))
	}
}

func stepDown(t *testing.T, nc *nats.Conn, stream string) {
	answer, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, patience)
	require.NoError(t, err)
	require.Contains(t, string(answer.Data), `"success":true`)
}

// publishUntil publishes from several goroutines while f runs, and a last event
// after it. reached waits for so many more acknowledgements.
func publishUntil(t *testing.T, a *natsbus.Bus, f func(reached func(int))) map[string]bus.Position {
	acked := make(map[string]bus.Position)
	var mu sync.Mutex
	more := make(chan struct{}, 1<<16)
	publish := func(key string) bool {
		p, err := a.Publish(within(t, 3*patience), "a", invalidate(key))
		if err != nil {
			t.Error(err)
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		acked[key] = p
		return true
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; publish(fmt.Sprintf("a:%d-%d", w, i)); i++ {
				select {
				case <-stop:
					return
				case more <- struct{}{}:
				}
			}
		})
	}
	f(func(n int) {
		deadline := time.After(3 * patience)
		for range n {
			select {
			case <-more:
			case <-deadline:
				t.Error("no acknowledgement")
				return
			}
		}
	})
	close(stop)
	writers.Wait()
	require.True(t, publish("last"))
	return acked
}
