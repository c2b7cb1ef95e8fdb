package sidecar

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/coherence"
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
	// earlier is what the life before this one knew, if it is not first.
	earlier coherence.Judging
	// judging tells what this life knows, once it is set.
	judging func() coherence.Judging
}

// beatEvery is how often a life is written down. A killed process lived at most
// so much longer than its file says.
const beatEvery = time.Second

// A record is the boot id, the moment of the beat, the creation time and the fork
// part of the epoch that was followed (0: none yet), the seq applied two windows ago, and the
// moment up to which plain SETs could not be judged. Moments are Clock's. It has a
// fixed width, so that none leaves anything of a longer one.
const (
	recordFormat = "%s %020d %020d %020d %020d %020d\n"
	recordScan   = "%s %d %d %d %d %d\n"
)

func newLife(f *os.File, existed bool, now clock.Clock, window time.Duration) *life {
	l := &life{file: f, now: now, bootID: clock.BootID()}
	l.first = !existed
	if existed && l.bootID != "" {
		l.recall(window)
	}
	return l
}

// recall reads what the last life left. Moments are comparable within one run of
// the machine; no client outlives it. A record that cannot be read says nothing,
// and then readers of an earlier life are assumed.
func (l *life) recall(window time.Duration) {
	var (
		bootID string
		last   time.Duration
		j      coherence.Judging
	)
	buf := make([]byte, 256)
	n, _ := l.file.ReadAt(buf, 0) // less than asked for is an error of its own
	if _, err := fmt.Sscanf(string(buf[:n]), recordScan, &bootID, &last, &j.Epoch.Created, &j.Epoch.Fork, &j.Seq, &j.BlindUntil); err != nil {
		return
	}
	l.first = bootID != l.bootID || l.now() > last+window+2*beatEvery
	if !l.first {
		l.earlier = j
	}
}

// beat writes the life down until ctx ends, and once more then. The first time,
// which must come before the first client, is its caller's.
func (l *life) beat(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := l.write(); err != nil {
				return err
			}
		case <-ctx.Done():
			return l.write()
		}
	}
}

func (l *life) write() error {
	var j coherence.Judging
	if l.judging != nil {
		j = l.judging()
	}
	line := fmt.Appendf(nil, recordFormat, l.bootID, l.now(), j.Epoch.Created, j.Epoch.Fork, j.Seq, j.BlindUntil)
	if _, err := l.file.WriteAt(line, 0); err != nil {
		return fmt.Errorf("socket's lock file cannot be written: %w", err)
	}
	return nil
}
