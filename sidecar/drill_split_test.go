package sidecar_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/embedded"
	"github.com/nearside-cache/nearside/bus/natsbus"
	"github.com/nearside-cache/nearside/sidecar"
	"github.com/nearside-cache/nearside/sidecar/policy"
	"github.com/nearside-cache/nearside/sidecar/sidecartest"
)

// region is a NATS of its own with the stream of the domain, and a sidecar on it.
type region struct {
	name    string
	broker  *embedded.Server
	sidecar *sidecartest.Sidecar
	writer  bus.Bus
}

func newRegion(t *testing.T, name string) *region {
	broker, err := embedded.Start(embedded.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, broker.Close()) })
	r := &region{name: name, broker: broker}
	r.writer = r.attach(t)
	r.sidecar = sidecartest.Start(t, r.attach(t), func(c *sidecar.Config) {
		c.Policies = &policy.Set{Window: fleetWindow, Default: policy.DefaultNamespace()}
		c.Memory = 16 << 20
	})
	return r
}

func (r *region) attach(t *testing.T) bus.Bus {
	subjects, err := bus.NewSubjects(bus.DefaultDomain)
	require.NoError(t, err)
	b, err := natsbus.Open(t.Context(), natsbus.Config{
		InProcess: r.broker, Stream: natsbus.StreamConfig{Subjects: subjects}, CreateStream: true, Logger: hclog.NewNullLogger(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// forwarder hands the events of one region to another, those aside that came from
// there. It implements bus.Handler: what it learns is queued.
type forwarder struct {
	from, to *region
	random   *rand.Rand

	begun sync.Once
	ready chan struct{} // closed when it follows

	mu    sync.Mutex
	queue []bus.Delivery
}

func (f *forwarder) Apply(d bus.Delivery) {
	// Pulses and forks are of one stream alone.
	if d.Err != nil || d.Event.Op == bus.OpPulse || d.Event.Op == bus.OpFork || d.Event.Region == f.to.name {
		return
	}
	d.Event.Region = f.from.name // so that it does not come back
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(f.queue, d)
}

func (f *forwarder) Doubt(bus.Reason)  {}
func (f *forwarder) Resume(bus.Resume) { f.begun.Do(func() { close(f.ready) }) }

// follow queues what happens in the region it is from until the test ends.
func (f *forwarder) follow(t *testing.T) {
	b := f.from.attach(t)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Follow(ctx, f, bus.FollowConfig{Window: fleetWindow, PulseInterval: -1}) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	select {
	case <-f.ready:
	case <-time.After(sidecartest.Wait):
		t.Fatal("the forwarder does not follow")
	}
}

// deliver publishes all that is queued, in any order and some of it twice.
func (f *forwarder) deliver(t *testing.T) {
	f.mu.Lock()
	queue := f.queue
	f.queue = nil
	f.mu.Unlock()
	for range len(queue) / 4 {
		queue = append(queue, queue[f.random.IntN(len(queue))])
	}
	f.random.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
	for _, d := range queue {
		_, err := f.to.writer.Publish(t.Context(), d.Namespace, d.Event)
		require.NoError(t, err)
	}
}

// await waits until n events are queued.
func (f *forwarder) await(t *testing.T, n int) {
	require.Eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.queue) >= n
	}, sidecartest.Wait, time.Millisecond)
}

// splitSource is the one source of truth of both regions.
type splitSource struct{ versions map[string]uint64 }

func (s *splitSource) commit(key string) string {
	s.versions[key]++
	return s.of(key)
}

func (s *splitSource) of(key string) string { return strconv.FormatUint(s.versions[key], 10) }

// read is a client that loads what it misses.
func (s *splitSource) read(t *testing.T, c *sidecartest.Client, key string) string {
	var status, value, lease string
	r := c.Do("NEAR.GET", key)
	for i := 0; i+1 < len(r.Elems); i += 2 {
		switch r.Elems[i].Str {
		case "status":
			status = r.Elems[i+1].Str
		case "value":
			value = r.Elems[i+1].Str
		case "lease":
			lease = r.Elems[i+1].Str
		}
	}
	if status == "MISS" {
		value = s.of(key)
		c.Do("NEAR.FILL", key, lease, "VERSION", value, value)
	}
	require.NotEmpty(t, value, status)
	return value
}

// Drill: two regions, each with a NATS of its own and the other's events forwarded to
// it, are cut off from one another while both write the same keys. Healed, both have
// the source's newest versions, whatever the order in which the events come.
func TestDrillRegionSplit(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const keys = 20
	key := func(i int) string { return "product:" + strconv.Itoa(i) }
	regions := []*region{newRegion(t, "east"), newRegion(t, "west")}
	clients := []*sidecartest.Client{regions[0].sidecar.Dial(t), regions[1].sidecar.Dial(t)}
	forwarders := []*forwarder{
		{from: regions[0], to: regions[1], random: random, ready: make(chan struct{})},
		{from: regions[1], to: regions[0], random: random, ready: make(chan struct{})},
	}
	for _, f := range forwarders {
		f.follow(t)
	}
	source := &splitSource{versions: map[string]uint64{}}
	for i := range keys {
		source.commit(key(i))
	}
	stale := 0
	for range 3 { // splits
		written := make([]int, 2)
		for range 100 {
			i, k := random.IntN(2), key(random.IntN(keys))
			c := clients[i]
			if random.IntN(2) == 0 {
				if source.read(t, c, k) != source.of(k) {
					stale++ // the other region wrote it, and the two do not hear of each other
				}
				continue
			}
			version := source.commit(k)
			if random.IntN(2) == 0 {
				require.NoError(t, c.Do("NEAR.UPDATE", k, version, version).Err())
			} else {
				require.NoError(t, c.Do("NEAR.INVALIDATE", "KEYS", "1", k, version).Err())
			}
			written[i]++
		}
		for i, f := range forwarders {
			f.await(t, written[i])
		}
		for _, i := range random.Perm(2) {
			forwarders[i].deliver(t)
		}
		for i, r := range regions {
			p, err := r.writer.Barrier(t.Context())
			require.NoError(t, err)
			r.sidecar.AwaitApplied(t, bus.Position{Epoch: r.sidecar.Applied().Epoch, Seq: p.Seq})
			for n := range keys {
				require.Equal(t, source.of(key(n)), source.read(t, clients[i], key(n)), "%s in %s", key(n), r.name)
			}
			require.Zero(t, r.sidecar.Bus.Status().Doubts)
		}
	}
	require.Positive(t, stale, "the drill must cut something off")
	for _, f := range forwarders {
		f.mu.Lock()
		require.Empty(t, f.queue, "nothing goes round in circles")
		f.mu.Unlock()
	}
}
