package natsbus_test

import (
	"context"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

// asUser opens a bus as a user with these permissions on a server, or, where a
// JetStream domain is given, on a leaf node of one.
func asUser(t *testing.T, domain string, publish, subscribe []string) *natsbus.Bus {
	side := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		Users: []*server.User{{Username: "side", Password: "s", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: publish},
			Subscribe: &server.SubjectPermission{Allow: subscribe},
		}}},
	}
	hub := side
	if domain != "" {
		hub = &server.Options{
			ServerName: "hub", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStreamDomain: domain,
			LeafNode: server.LeafNodeOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT},
		}
	}
	hub.JetStream, hub.StoreDir, hub.JetStreamMaxMemory, hub.JetStreamMaxStore = true, t.TempDir(), 1<<20, 1<<26
	run := func(o *server.Options) *server.Server {
		srv, err := server.NewServer(o)
		require.NoError(t, err)
		srv.Start()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		require.True(t, srv.ReadyForConnections(patience))
		return srv
	}
	srv := run(hub)
	if domain != "" {
		to := &url.URL{Scheme: "nats-leaf", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(hub.LeafNode.Port))}
		side.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{to}}}
		side.LeafNode.ReconnectInterval = 50 * time.Millisecond
		leaf := run(side)
		require.Eventually(t, func() bool { return leaf.NumLeafNodes() == 1 }, patience, time.Millisecond)
		srv = leaf
	}
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	a, err := natsbus.Open(context.Background(), natsbus.Config{
		URL: strings.Replace(srv.ClientURL(), "//", "//side:s@", 1), Stream: natsbus.StreamConfig{Subjects: subjects}, JetStreamDomain: domain,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

// What docs/l2.md asks for is enough, behind a leaf node and without one.
func TestBucketPermissions(t *testing.T) {
	for domain, api := range map[string]string{"": "$JS.API.", "hub": "$JS.hub.API."} {
		writes := "$KV.shelf.>"
		if domain != "" {
			writes = api + writes
		}
		a := asUser(t, domain, []string{
			writes, api + "DIRECT.GET.KV_shelf.>", api + "STREAM.MSG.GET.KV_shelf", api + "STREAM.INFO.KV_shelf", api + "STREAM.CREATE.KV_shelf",
		}, []string{"_INBOX.>", "nearside-kv.shelf.>"})
		ctx := within(t, patience)
		var bucket bus.Bucket
		require.Eventually(t, func() (open bool) { // a leaf node learns late where JetStream is
			var err error
			bucket, err = a.Bucket(ctx, "shelf", bus.BucketConfig{})
			return err == nil
		}, patience, 10*time.Millisecond)
		woken := make(chan error, 1)
		go func() {
			_, _, err := bucket.Wait(ctx, "a", 0)
			woken <- err
		}()
		revision, err := bucket.Create(ctx, "a", []byte("1"), time.Minute)
		require.NoError(t, err)
		require.NoError(t, <-woken)
		revision, err = bucket.Update(ctx, "a", []byte("2"), revision, 0)
		require.NoError(t, err)
		for _, read := range []func(context.Context, string) ([]byte, uint64, error){bucket.Get, bucket.Latest} {
			value, at, err := read(ctx, "a")
			require.NoError(t, err)
			require.Equal(t, "2", string(value))
			require.Equal(t, revision, at)
		}
		require.NoError(t, bucket.Delete(ctx, "a", revision))
	}
}

// A refusal is told at once, not by a deadline.
func TestBucketPermissionDenied(t *testing.T) {
	open := []string{"$JS.API.STREAM.INFO.KV_shelf", "$JS.API.STREAM.CREATE.KV_shelf"}
	a := asUser(t, "", open, []string{"_INBOX.>"})
	ctx := within(t, patience)
	bucket, err := a.Bucket(ctx, "shelf", bus.BucketConfig{})
	require.NoError(t, err)
	began := time.Now()
	_, _, get := bucket.Get(ctx, "a")
	_, _, latest := bucket.Latest(ctx, "a")
	_, put := bucket.Put(ctx, "a", nil, 0)
	_, _, wait := bucket.Wait(ctx, "a", 0)
	_, closed := a.Bucket(ctx, "other", bus.BucketConfig{})
	for says, err := range map[string]error{
		"DIRECT.GET": get, "STREAM.MSG.GET": latest, "$KV.shelf": put, "STREAM.INFO.KV_other": closed, "nearside-kv.shelf": wait,
	} {
		require.ErrorIs(t, err, natsbus.ErrDenied)
		require.ErrorContains(t, err, says)
	}
	require.Less(t, time.Since(began), 2*time.Second)
}

// Servers reserve what a bucket may hold.
func TestBucketTooLargeForTheServer(t *testing.T) {
	a := asUser(t, "", []string{">"}, []string{">"})
	for _, storage := range []bus.Storage{bus.StorageFile, bus.StorageMemory} {
		_, err := a.Bucket(within(t, patience), "shelf", bus.BucketConfig{MaxBytes: 1 << 30, Storage: storage})
		require.ErrorIs(t, err, bus.ErrBucketUnfit)
		require.ErrorContains(t, err, "max_bytes is 1073741824")
	}
}

// On three servers, where conflicts are found while writes are under way: no
// increment is lost, and keys expire.
func TestBucketOnACluster(t *testing.T) {
	var urls []string
	for _, s := range newCluster(t) {
		urls = append(urls, s.ClientURL())
	}
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	ctx := within(t, 3*patience)
	const pods, each = 3, 10
	buckets := make([]bus.Bucket, pods)
	for i := range buckets {
		a, err := natsbus.Open(ctx, natsbus.Config{URL: urls[i%len(urls)], Stream: natsbus.StreamConfig{Subjects: subjects}})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, a.Close()) })
		require.Eventually(t, func() bool {
			buckets[i], err = a.Bucket(ctx, "shelf", bus.BucketConfig{})
			return err == nil
		}, patience, 50*time.Millisecond)
		js, err := jetstream.New(a.Conn())
		require.NoError(t, err)
		stream, err := js.Stream(ctx, "KV_shelf")
		require.NoError(t, err)
		require.Equal(t, 3, stream.CachedInfo().Config.Replicas)
	}
	_, err = buckets[0].Create(ctx, "n", []byte("0"), 0)
	require.NoError(t, err)
	_, err = buckets[1].Create(ctx, "n", []byte("0"), 0)
	require.ErrorIs(t, err, bus.ErrConflict)
	var group sync.WaitGroup
	for _, b := range buckets {
		group.Go(func() {
			for done := 0; done < each; {
				value, revision, err := b.Latest(ctx, "n")
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(value))
				if _, err = b.Update(ctx, "n", []byte(strconv.Itoa(n+1)), revision, 0); err == nil {
					done++
				} else if !strings.Contains(err.Error(), bus.ErrConflict.Error()) {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	value, _, err := buckets[2].Latest(ctx, "n")
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(pods*each), string(value))

	lock, err := buckets[0].Create(ctx, "lock", nil, time.Second)
	require.NoError(t, err)
	_, _, err = buckets[1].Wait(ctx, "lock", lock)
	require.ErrorIs(t, err, bus.ErrKeyNotFound)
	_, err = buckets[2].Create(ctx, "lock", nil, time.Second)
	require.NoError(t, err)
}
