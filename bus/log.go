package bus

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Message is one stored message of a stream, undecoded.
type Message struct {
	Seq     uint64
	Time    time.Time // when the stream stored it, by the stream's clock
	Subject string
	MsgID   string
	Data    []byte
}

// Digest condenses what makes m this message and no other: its store time,
// subject, id and body. Two messages at one seq with different digests are two
// histories (B3).
func (m Message) Digest() uint64 {
	var fixed [24]byte
	binary.LittleEndian.PutUint64(fixed[:], uint64(m.Time.UnixNano()))
	binary.LittleEndian.PutUint64(fixed[8:], uint64(len(m.Subject)))
	binary.LittleEndian.PutUint64(fixed[16:], uint64(len(m.MsgID)))
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(fixed[:]) // a hash never fails to write
	_, _ = d.WriteString(m.Subject)
	_, _ = d.WriteString(m.MsgID)
	_, _ = d.Write(m.Data)
	return d.Sum64()
}

// LogState is what the leader of a stream says of it.
type LogState struct {
	Created time.Time
	First   uint64 // seq of the oldest message; Last+1 when the stream is empty
	Last    uint64 // seq of the newest message ever stored
}

// Log is the stream as a Follower reads and writes it. Calls block until they
// have an answer or ctx ends. Errors other than ErrNotFound say only that there
// was no answer. A Log is safe for concurrent use.
type Log interface {
	// State asks the stream's leader. ErrNotFound: there is no such stream.
	State(ctx context.Context) (LogState, error)
	// At reads one message from the leader. ErrNotFound: the leader has none.
	At(ctx context.Context, seq uint64) (Message, error)
	// Range reads at most n messages from seq on, in order, and fewer where their
	// bytes would be many. Any replica may
	// answer, also one that lags: a short or empty answer proves nothing, and
	// neither does a first message above seq.
	Range(ctx context.Context, from uint64, n int) ([]Message, error)
	// Since reads at most n messages stored at or after t, in order, from any
	// replica.
	Since(ctx context.Context, t time.Time, n int) ([]Message, error)
	// Last reads the newest message on subject from the leader. ErrNotFound: it
	// has none.
	Last(ctx context.Context, subject string) (Message, error)
	// Append publishes once and returns the acknowledged seq. An msgID seen
	// within the duplicate window is acknowledged with its first seq.
	Append(ctx context.Context, subject, msgID string, data []byte) (uint64, error)
}
