package sidecar

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nearside-cache/nearside/sidecar/clock"
)

// life remembers, in the socket's lock file, until when a sidecar served this
// path. A client that missed on an earlier life may still SET what it loaded
// then; a sidecar that knows that there is no such client can judge SETs freely
// from its first moment (C3, ADR 0002).
type life struct {
	file   *os.File // as long as its socket
	now    clock.Clock
	bootID string
	first  bool // no client can have missed within a window before now
}

// beatEvery is how often a life is written down. A killed process lived at most
// so much longer than its file says.
const beatEvery = time.Second

const lifeFormat = "%s %d\n"

func newLife(f *os.File, existed bool, now clock.Clock, window time.Duration) *life {
	l := &life{file: f, now: now, bootID: clock.BootID()}
	l.first = !existed || l.longAgo(window)
	return l
}

// longAgo reports whether the last life on record ended more than a window ago.
// Times are comparable within one run of the machine; no client outlives it.
func (l *life) longAgo(window time.Duration) bool {
	var (
		bootID string
		last   time.Duration
	)
	buf := make([]byte, 128)
	n, err := l.file.ReadAt(buf, 0)
	if n == 0 || l.bootID == "" {
		return false
	}
	if _, err = fmt.Sscanf(string(buf[:n]), lifeFormat, &bootID, &last); err != nil {
		return false
	}
	return bootID != l.bootID || l.now() > last+window+2*beatEvery
}

// beat writes the life down until ctx ends, and once more then.
func (l *life) beat(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		if err := l.write(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return l.write()
		}
	}
}

func (l *life) write() error {
	// Fixed width, so that a shorter line leaves nothing of a longer one.
	line := fmt.Appendf(nil, "%s %020d\n", l.bootID, l.now())
	if _, err := l.file.WriteAt(line, 0); err != nil {
		return fmt.Errorf("socket's lock file cannot be written: %w", err)
	}
	return nil
}
