package bus

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// ringSize is how many of the newest applied messages are remembered: enough to
// tell a duplicate from another history, in 128 KiB.
const ringSize = 8192

// trace is what is remembered of an applied message.
type trace struct{ digest, id uint64 }

func traceOf(m Message) trace {
	return trace{digest: m.Digest(), id: xxhash.Sum64String(m.MsgID)}
}

// ring remembers the traces of the newest messages, which are contiguous:
// every seq with oldest <= seq < next.
type ring struct {
	traces       []trace
	oldest, next uint64
}

// reset forgets everything; the next message put must be at seq.
func (r *ring) reset(seq uint64) {
	r.oldest, r.next = seq, seq
}

// put remembers the message at seq, which must be next.
func (r *ring) put(seq uint64, t trace) {
	if r.traces == nil {
		r.traces = make([]trace, ringSize)
	}
	r.traces[seq%ringSize] = t
	r.next = seq + 1
	if r.next-r.oldest > ringSize {
		r.oldest = r.next - ringSize
	}
}

// get returns what is remembered of the message at seq, if anything is.
func (r *ring) get(seq uint64) (trace, bool) {
	if seq < r.oldest || seq >= r.next {
		return trace{}, false
	}
	return r.traces[seq%ringSize], true
}

// fold returns the digest of a Window of what is remembered, if all of it is.
func (r *ring) fold(from, to uint64) (digest uint64, ok bool) {
	if from+1 < r.oldest || to >= r.next {
		return 0, false
	}
	var f fold
	for seq := from + 1; seq <= to; seq++ {
		f.add(r.traces[seq%ringSize].digest)
	}
	return f.sum(), true
}

// fold makes one digest of those of successive messages. The zero value is that
// of none.
type fold struct {
	hash  xxhash.Digest
	begun bool
}

func (f *fold) add(digest uint64) {
	if !f.begun {
		f.begun = true
		f.hash.Reset()
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], digest)
	_, _ = f.hash.Write(b[:]) // a hash never fails to write
}

func (f *fold) sum() uint64 {
	if !f.begun {
		return 0
	}
	return f.hash.Sum64()
}

// holds reports whether m is the very message that was applied at its seq.
func (r *ring) holds(m Message) bool {
	t, ok := r.get(m.Seq)
	return ok && t.digest == m.Digest()
}
