package natsbus

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/nearside-cache/nearside/bus"
)

// Headers that the server adds to republished and directly read messages, and
// the one that the publisher sets.
const (
	headerStream   = "Nats-Stream"
	headerSubject  = "Nats-Subject"
	headerSequence = "Nats-Sequence"
	headerTime     = "Nats-Time-Stamp"
	headerMsgID    = nats.MsgIdHdr
	headerExpected = nats.ExpectedStreamHdr
	headerStatus   = "Status" // how nats.go hands on a status line, and spoofable
)

var errUnreadable = errors.New("natsbus: message without readable server headers")

// parse reads a republished or directly read message. Only the last value of a
// header is the server's: a publisher may have put forged ones in front (B1).
// The result shares memory with m.
func parse(m *nats.Msg) (bus.Message, error) {
	if hidden(m) {
		return bus.Message{}, fmt.Errorf("%w: its header block ends early", errUnreadable)
	}
	seq, err := strconv.ParseUint(last(m.Header, headerSequence), 10, 64)
	if err != nil || seq == 0 {
		return bus.Message{}, fmt.Errorf("%w: no %s", errUnreadable, headerSequence)
	}
	stored, err := time.Parse(time.RFC3339Nano, last(m.Header, headerTime))
	if err != nil {
		return bus.Message{}, fmt.Errorf("%w: no %s", errUnreadable, headerTime)
	}
	subject := last(m.Header, headerSubject)
	if subject == "" {
		return bus.Message{}, fmt.Errorf("%w: no %s", errUnreadable, headerSubject)
	}
	return bus.Message{Seq: seq, Time: stored, Subject: subject, MsgID: first(m.Header, headerMsgID), Data: m.Data}, nil
}

// status returns the code of a status that the server itself sent, or 0 for a
// message. A stored message may carry a header named Status, but the server
// never puts its own headers on a status, and always on a message.
func status(m *nats.Msg) int {
	if len(m.Data) > 0 || hidden(m) || len(m.Header[headerSequence]) > 0 || len(m.Header[headerStream]) > 0 {
		return 0
	}
	code, err := strconv.Atoi(m.Header.Get(headerStatus))
	if err != nil {
		return 0
	}
	return code
}

// hidden reports whether m's header block is longer than the headers read from
// it: a publisher put an empty line into it, behind which the server's headers
// are out of sight.
func hidden(m *nats.Msg) bool {
	size := len("NATS/1.0\r\n\r\n")
	for key, values := range m.Header {
		for _, v := range values {
			size += len(key) + len(": ") + len(v) + len("\r\n")
		}
	}
	return m.Size()-len(m.Subject)-len(m.Reply)-len(m.Data) > size
}

// last returns the last value of a header, which alone is the server's.
func last(h nats.Header, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// first returns the first value of a header: the one that the server takes for
// a message id.
func first(h nats.Header, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}
