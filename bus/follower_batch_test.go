package bus_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// batches notes what it was given at once, and what was told before it returned.
type batches struct {
	seqs   [][]uint64
	keys   []string
	doubts int // batches given before the doubt; -1: none yet
}

func (b *batches) Apply(bus.Delivery) { panic("a BatchHandler is given batches") }

func (b *batches) ApplyAll(ds []bus.Delivery) {
	var seqs []uint64
	for _, d := range ds {
		seqs = append(seqs, d.Position.Seq)
		for _, kv := range d.Event.Keys {
			b.keys = append(b.keys, kv.Key)
		}
	}
	b.seqs = append(b.seqs, seqs)
}

func (b *batches) Doubt(bus.Reason)  { b.doubts = len(b.seqs) }
func (b *batches) Resume(bus.Resume) {}

func batchRig(t *testing.T) (rig, *batches) {
	got := &batches{doubts: -1}
	return startedRig(t, 0, func(c *bus.FollowerConfig) { c.Handler = got }), got
}

func TestWhatLiesReadyIsGivenAtOnce(t *testing.T) {
	r, got := batchRig(t)
	m := r.log.events(t, 150)
	acked := make(chan bus.Position, 1)
	r.Expect(bus.Ack{Seq: m[5].Seq, MsgID: m[5].MsgID, Applied: acked})
	r.ReceiveAll(m)
	require.Len(t, got.seqs, 3, "no more than 64 hold up others at a time")
	require.Len(t, got.seqs[0], 64)
	require.Len(t, got.seqs[2], 150-2*64)
	for i, key := range got.keys {
		require.Equal(t, fmt.Sprint(i+2), key)
	}
	require.EqualValues(t, 151, r.Position().Seq)
	require.GreaterOrEqual(t, (<-acked).Seq, m[5].Seq)
}

// Events of many keys: those that do not fit what is used anew have memory of their
// own, and no batch has many more keys than it may.
func TestBatchesAreBoundedInKeys(t *testing.T) {
	r, got := batchRig(t)
	subject, err := subjects.Event("ns")
	require.NoError(t, err)
	var messages []bus.Message
	var want []string
	for i := range 20 {
		var keys []bus.KeyVersion
		for j := range []int{1, 100, 511, 512, 513, 2000}[i%6] {
			keys = append(keys, bus.KeyVersion{Key: fmt.Sprintf("%d/%d", i, j)})
			want = append(want, keys[j].Key)
		}
		data, err := bus.Encode(bus.Event{Keys: keys})
		require.NoError(t, err)
		messages = append(messages, r.log.store(subject, fmt.Sprint(i), data))
	}
	r.ReceiveAll(messages)
	require.Equal(t, want, got.keys)
	require.Greater(t, len(got.seqs), 8)
}

// What was applied before a doubt is given before it, in one batch with nothing after.
func TestDoubtWithinABatch(t *testing.T) {
	r, got := batchRig(t)
	m := r.log.events(t, 5)
	r.Expect(bus.Ack{Seq: m[3].Seq, MsgID: "another"})
	r.ReceiveAll(m)
	require.Equal(t, [][]uint64{{2, 3, 4}}, got.seqs)
	require.Equal(t, 1, got.doubts)
	require.Zero(t, r.Position())
}

// Whatever comes, and however it is cut into batches, the handler is told the same.
func TestBatchesChangeNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, i))
		var told [2][]string
		log := newFakeLog()
		one, many := newRig(t, log), newRig(t, log)
		one.recover()
		many.recover() // its own pulse is for one to receive
		messages := append([]bus.Message{log.messages[2]}, log.events(t, 200)...)
		for range 20 {
			at := rnd.IntN(len(messages) - 1)
			switch rnd.IntN(3) {
			case 0: // they overtake one another
				messages[at], messages[at+1] = messages[at+1], messages[at]
			case 1:
				messages = slices.Delete(messages, at, at+1)
			case 2:
				messages = slices.Insert(messages, at, messages[rnd.IntN(len(messages))])
			}
		}
		for rest := messages; len(rest) > 0; {
			n := min(1+rnd.IntN(100), len(rest))
			for _, m := range rest[:n] {
				one.Receive(m)
			}
			many.ReceiveAll(rest[:n])
			rest = rest[n:]
			if rnd.IntN(2) == 0 {
				one.recover()
				many.recover()
			}
		}
		one.recover()
		many.recover()
		for k, r := range []rig{one, many} {
			for _, c := range r.rec.Calls() {
				if c.Applied != nil && c.Applied.Event.Op != bus.OpPulse {
					told[k] = append(told[k], c.String())
				}
			}
		}
		require.Len(t, told[0], 200)
		require.Equal(t, told[0], told[1])
	}
}

// hole takes batches and keeps nothing.
type hole struct{ silent }

func (hole) ApplyAll([]bus.Delivery) {}

// readyMessages are n events of one to three keys, with a role pulse in every 16.
func readyMessages(t testing.TB, log *fakeLog, n int) (messages []bus.Message) {
	pulse, err := bus.Encode(bus.Event{Op: bus.OpPulse, Pulse: bus.Pulse{Process: "another", Sent: 5, Role: true}})
	require.NoError(t, err)
	subject, err := subjects.Event("product")
	require.NoError(t, err)
	for i := range n {
		if i%16 == 15 {
			messages = append(messages, log.store(subjects.Pulse(), fmt.Sprint("pulse ", i), pulse))
			continue
		}
		e := bus.Event{Time: birth}
		for j := range 1 + i%3 {
			e.Keys = append(e.Keys, bus.KeyVersion{Key: fmt.Sprintf("product:%d", i+j), Version: uint64(i)})
		}
		data, err := bus.Encode(e)
		require.NoError(t, err)
		messages = append(messages, log.store(subject, fmt.Sprint("id", i), data))
	}
	return messages
}

// Of what an event costs here, nothing is allocated: the position applied is, once for
// each batch.
func TestReceivingAllocatesNothingPerEvent(t *testing.T) {
	log := newFakeLog()
	f, err := bus.NewFollower(bus.FollowerConfig{Subjects: subjects, Log: log, Handler: hole{}})
	require.NoError(t, err)
	require.NoError(t, f.Recover(t.Context()))
	messages := readyMessages(t, log, 64)
	allocs := testing.AllocsPerRun(100, func() {
		f.ReceiveAll(messages)
		for i := range messages {
			messages[i].Seq += uint64(len(messages))
		}
	})
	require.Equal(t, messages[0].Seq-1, f.Position().Seq)
	require.LessOrEqual(t, allocs, 1.0)
}

func BenchmarkReceiveAll(b *testing.B) {
	log := newFakeLog()
	f, err := bus.NewFollower(bus.FollowerConfig{Subjects: subjects, Log: log, Handler: hole{}})
	require.NoError(b, err)
	require.NoError(b, f.Recover(b.Context()))
	messages := readyMessages(b, log, 64)
	b.ReportAllocs()
	for b.Loop() {
		f.ReceiveAll(messages)
		for i := range messages {
			messages[i].Seq += uint64(len(messages))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(messages)), "ns/event")
}
