package session

// GlobMatch is what MATCH of SCAN and CONFIG GET match by.
var GlobMatch = globMatch

// OutboxMax is how many bytes of pushes wait at most before more are dropped.
const OutboxMax = outboxMax

// LookedAhead is how many commands to come s has prefetched the keys of.
func (s *Session) LookedAhead() int { return s.ahead }
