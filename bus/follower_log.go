package bus

import (
	"context"
	"fmt"
	"time"
)

// boundedLog gives each call of a Log a deadline of its own and names the call
// in its error.
type boundedLog struct {
	log     Log
	timeout time.Duration
}

func bounded[T any](ctx context.Context, b boundedLog, step string, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	v, err := call(ctx)
	if err != nil {
		err = fmt.Errorf("%s: %w", step, err)
	}
	return v, err
}

func (b boundedLog) State(ctx context.Context) (LogState, error) {
	return bounded(ctx, b, "read the stream's state", b.log.State)
}

func (b boundedLog) At(ctx context.Context, seq uint64) (Message, error) {
	return bounded(ctx, b, fmt.Sprintf("read seq %d", seq), func(ctx context.Context) (Message, error) {
		return b.log.At(ctx, seq)
	})
}

func (b boundedLog) Range(ctx context.Context, from uint64, n int) ([]Message, error) {
	return bounded(ctx, b, fmt.Sprintf("read from seq %d", from), func(ctx context.Context) ([]Message, error) {
		return b.log.Range(ctx, from, n)
	})
}

func (b boundedLog) Since(ctx context.Context, t time.Time, n int) ([]Message, error) {
	return bounded(ctx, b, "read by time", func(ctx context.Context) ([]Message, error) {
		return b.log.Since(ctx, t, n)
	})
}

func (b boundedLog) Last(ctx context.Context, subject string) (Message, error) {
	return bounded(ctx, b, "read the newest message on "+subject, func(ctx context.Context) (Message, error) {
		return b.log.Last(ctx, subject)
	})
}

func (b boundedLog) Append(ctx context.Context, subject, msgID string, data []byte) (uint64, error) {
	return bounded(ctx, b, "publish on "+subject, func(ctx context.Context) (uint64, error) {
		return b.log.Append(ctx, subject, msgID, data)
	})
}
