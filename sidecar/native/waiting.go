package native

import (
	"context"

	"github.com/nearside-cache/nearside/api/near"
)

const (
	// maxWaiting bounds the requests of a connection that wait.
	maxWaiting = 1024
	// waitingBytes is what one takes besides what it brings: its goroutine, mostly.
	waitingBytes = 4 << 10
)

// waiting is a request that waits. run is called by a goroutine of its own, and then
// answer by that of Serve and Pushes.
type waiting struct {
	run    func(context.Context)
	answer func() (again bool) // appends the answer, or says that it must wait again
	held   int64               // bytes reserved
}

// await has a request wait, which keeps so many bytes, or refuses it.
func (s *Session) await(id uint32, bytes int, w *waiting) {
	w.held = waitingBytes + int64(bytes)
	s.mu.Lock()
	full := s.waiting >= maxWaiting
	if !full {
		s.waiting++
	}
	s.mu.Unlock()
	switch {
	case full:
		s.fail(id, near.Busy, "%d requests of this connection wait already: wait for answers before sending more", maxWaiting)
	case !s.reserve(w.held):
		s.mu.Lock()
		s.waiting--
		s.mu.Unlock()
		s.fail(id, near.NoMemory, "the memory for requests is exhausted by all clients together; try again, or raise --memory")
	default:
		s.start(w)
	}
}

// start runs w, for the first time or once more.
func (s *Session) start(w *waiting) {
	s.running.Go(func() {
		w.run(s.ctx)
		s.mu.Lock()
		s.finished = append(s.finished, w)
		wake := s.rouse()
		s.mu.Unlock()
		if wake {
			s.wake()
		}
	})
}

// rouse reports, under mu, whether the driver must be told that there is something for
// Pushes.
func (s *Session) rouse() bool {
	wake := !s.woken
	s.woken = true
	return wake
}

// Pending returns how many requests are under way that wait: a driver that drains lets
// them end.
func (s *Session) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

// Pushes appends what is to be sent without having been asked for, and the answers of
// requests that have waited; some of them, where they are many: then it wakes its
// driver again. There is an answer at least, and what events push comes behind: however
// many there are, they do not hold up the answers.
func (s *Session) Pushes(out []byte) []byte {
	s.out, s.now = out, s.cache.Now()
	s.mu.Lock()
	s.woken = false
	s.mu.Unlock()
	for start := len(out); len(s.out)-start < flushMark; {
		w := s.nextFinished()
		if w == nil {
			break
		}
		if w.answer() {
			s.start(w)
			continue
		}
		s.release(w.held)
		s.mu.Lock()
		s.waiting--
		s.mu.Unlock()
	}
	s.deliver()
	s.mu.Lock()
	wake := len(s.finished) > 0 && s.rouse()
	s.mu.Unlock()
	if wake {
		s.wake()
	}
	out, s.out = s.out, nil
	return out
}

// nextFinished returns a request that is to be answered, or nil.
//
// INVARIANT (O4): what a write has made stale was queued before it finished, and is
// appended before it is answered.
func (s *Session) nextFinished() *waiting {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.finished) == 0 {
		s.finished = nil
		return nil
	}
	w := s.finished[0]
	s.finished = s.finished[1:]
	s.out = s.stale.take(s.out)
	return w
}
