package natsbus

import "context"

// InspectStream asks the leader of the domain's stream and checks its settings;
// see Inspect. It needs no Follow. ErrNotConnected: there is nobody to ask.
func (b *Bus) InspectStream(ctx context.Context) (Info, error) {
	info, _, err := b.inspect(ctx, false)
	return info, err
}

// EnsureStream creates the domain's stream when there is none, whether
// Config.CreateStream is set or not, and else checks it; see Ensure. It needs
// no Follow. ErrNotConnected: there is nobody to ask.
func (b *Bus) EnsureStream(ctx context.Context) (info Info, created bool, err error) {
	return b.inspect(ctx, true)
}

func (b *Bus) inspect(ctx context.Context, create bool) (info Info, created bool, err error) {
	ctx, done, err := b.begin(ctx)
	if err != nil {
		return Info{}, false, err
	}
	defer done()
	if err := b.attempt.connected(ctx); err != nil {
		return Info{}, false, err
	}
	return b.stream.inspect(ctx, create)
}
