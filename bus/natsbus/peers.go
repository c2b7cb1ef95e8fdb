package natsbus

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/nearside-cache/nearside/bus"
)

const (
	// maxServed is how many processes may wait for barriers of this one. What is
	// more gets no answer and publishes a pulse of its own.
	maxServed = 1024
	// serveTimeout ends a barrier for another process, which has long given up.
	serveTimeout = time.Second
)

// What may be asked on bus.Subjects.Ask. A user of a domain needs permission to
// publish and to subscribe on nearside-ask.<domain>.*, besides that for replies;
// nobody else should have it. Who may not subscribe cannot follow: it would take
// the pulser role and leave all others without its clock.
const (
	askClock   = "clock"
	askBarrier = "barrier"
)

// answer is what is answered, as JSON.
type answer struct {
	Clock  time.Duration `json:"clock,omitempty"`  // ns of the clock of the process's pulses
	Seq    uint64        `json:"seq,omitempty"`    // where the pulse was acknowledged
	ID     string        `json:"id,omitempty"`     // its message id
	Shared int           `json:"shared,omitempty"` // how many processes share it
	Error  string        `json:"error,omitempty"`
}

// peers reaches the other processes over the connection.
type peers struct{ b *Bus }

var _ bus.Peers = peers{}

func (b *Bus) peers() bus.Peers { return peers{b} }

// Ping implements bus.Peers.
func (p peers) Ping(ctx context.Context, process string) (time.Duration, error) {
	a, err := p.ask(ctx, process, askClock)
	return a.Clock, err
}

// Barrier implements bus.Peers.
func (p peers) Barrier(ctx context.Context, process string) (bus.Ack, int, error) {
	a, err := p.ask(ctx, process, askBarrier)
	if err == nil && a.Seq == 0 {
		err = fmt.Errorf("natsbus: process %s answered a barrier without a position", process)
	}
	return bus.Ack{Seq: a.Seq, MsgID: a.ID}, a.Shared, err
}

func (p peers) ask(ctx context.Context, process, question string) (answer, error) {
	subject := p.b.config.Stream.Subjects.Ask(process)
	ctx, done := p.b.waits.answer(ctx, subject)
	defer done()
	reply, err := p.b.nc.RequestWithContext(ctx, subject, []byte(question))
	if err != nil {
		return answer{}, fmt.Errorf("natsbus: ask for a %s on %s: %w", question, subject, p.b.stream.explain(cause(ctx, err)))
	}
	var a answer
	if err := json.Unmarshal(reply.Data, &a); err != nil {
		return answer{}, fmt.Errorf("natsbus: answer on %s: %w", subject, err)
	}
	if a.Error != "" {
		return answer{}, fmt.Errorf("natsbus: answer on %s: %s", subject, a.Error)
	}
	return a, nil
}

// answer has others answered until silence is called.
func (b *Bus) answer(subject string, f *bus.Follower) (silence func(), err error) {
	sub, err := b.nc.Subscribe(subject, func(msg *nats.Msg) {
		switch string(msg.Data) {
		case askClock:
			b.reply(msg, answer{Clock: f.Clock()})
		case askBarrier:
			b.serve(msg)
		default:
			b.reply(msg, answer{Error: "unknown question"})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("natsbus: subscribe %s: %w", subject, err)
	}
	ended := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(ended) })
	return func() {
		_ = sub.Unsubscribe() // fails only when the connection is closed
		<-ended
	}, nil
}

// serve answers a barrier once its pulse is acknowledged, without holding up
// other questions.
func (b *Bus) serve(msg *nats.Msg) {
	select {
	case b.serving <- struct{}{}:
	default:
		return
	}
	ctx, done, err := b.begin(context.Background())
	if err != nil {
		<-b.serving
		return
	}
	go func() { // Close waits for done
		defer done()
		defer func() { <-b.serving }()
		ctx, cancel := context.WithTimeout(ctx, serveTimeout)
		defer cancel()
		ack, shared, err := b.barriers.Serve(ctx)
		if err != nil {
			b.reply(msg, answer{Error: err.Error()})
			return
		}
		b.reply(msg, answer{Seq: ack.Seq, ID: ack.MsgID, Shared: shared})
	}()
}

func (b *Bus) reply(msg *nats.Msg, a answer) {
	data, err := json.Marshal(a)
	if err == nil {
		err = msg.Respond(data)
	}
	if err != nil {
		b.errs.Do(func() { b.log.Warn("cannot answer another process", "error", err) })
	}
}

// tell has the follower expect a. One too far behind to be told matches its log.
func (b *Bus) tell(a bus.Ack) {
	if !b.acks.Tell(a) {
		signal(b.disturbed)
	}
}

// pulser names the process that holds the role, when it is another one.
func (b *Bus) pulser() string {
	if f := b.follower.Load(); f != nil {
		return f.Pulser()
	}
	return ""
}
