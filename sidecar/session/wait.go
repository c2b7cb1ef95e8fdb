package session

import "context"

// Wait is an operation that cannot be answered at once. The driver calls Run
// where blocking is allowed, and then Finish. Later commands of the session wait
// for it, so that answers keep their order.
type Wait struct {
	run    func(context.Context) // does the work; owns copies of all it needs
	answer func(*Session)        // appends the reply
	held   int64                 // bytes reserved until then
}

// Run does the operation and blocks until it is done or ctx ends. It does not
// touch the session.
func (w *Wait) Run(ctx context.Context) { w.run(ctx) }

// Waiting returns the operation that Serve stopped for.
func (s *Session) Waiting() *Wait { return s.wait }

// Finish appends the answer of the operation, which must have been run, to out.
func (s *Session) Finish(out []byte) []byte {
	s.out, s.now = out, s.env.Moment()
	w := s.wait
	s.wait = nil
	before := len(s.out)
	w.answer(s)
	s.letGo(w.held)
	s.mute(before)
	out, s.out = s.out, nil
	return out
}

// park makes the current command wait for run.
func (s *Session) park(run func(context.Context), answer func(*Session)) {
	s.wait = &Wait{run: run, answer: answer}
}
