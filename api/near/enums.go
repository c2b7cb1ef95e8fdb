package near

import "strconv"

// Mode is how fresh a read must be. Values cross the wire: append-only.
type Mode uint8

// Modes of reads.
const (
	Class    Mode = iota // as the class of the key's namespace says
	Any                  // anything within its TTL
	MaxStale             // no staler than Get.MaxStale
	AtLeast              // at least as new as Get.Token
	Strong               // every write acknowledged before the read began
)

// Status is what a read found. Values cross the wire: append-only; an unknown one
// is to be taken for a Miss that came without a lease.
type Status uint8

// Statuses of reads.
const (
	Hit      Status = 1 // a value
	Stale    Status = 2 // a value past its soft TTL; no event has made it stale
	Negative Status = 3 // the source has no value
	Regular  Status = 4 // a STRONG hit without a version: every acknowledged write, no more
	Miss     Status = 5 // load it, under the lease
	Behind   Status = 6 // the token's position is not applied here
	Bypass   Status = 7 // freshness cannot be proven: load it, and offer nothing
	Unread   Status = 8 // of a Gets: no room was left in the answer, ask again
)

var statusNames = map[Status]string{
	Hit: "HIT", Stale: "STALE", Negative: "NEGATIVE", Regular: "REGULAR", Miss: "MISS", Behind: "BEHIND", Bypass: "BYPASS", Unread: "UNREAD",
}

// String returns the word that the other protocols use.
func (s Status) String() string { return nameOf(statusNames, s) }

// Found reports whether the answer has a value.
func (s Status) Found() bool { return s == Hit || s == Stale || s == Regular }

// Code says what kind of failure an Error is. The set is closed for a version of
// the protocol; a client takes an unknown one for Failed.
type Code uint8

// Codes of errors.
const (
	Failed     Code = 1  // none of the others
	Malformed  Code = 2  // the body is not that of its kind
	Unknown    Code = 3  // the sidecar does not know the kind of request
	NoHello    Code = 4  // the first request must be a Hello
	NoVersion  Code = 5  // there is no version that both sides speak
	WrongPass  Code = 6  // a password is needed, and this is not it
	BadValue   Code = 7  // a field has a value that makes no sense
	TooLarge   Code = 8  // the frame is longer than the sidecar takes
	Busy       Code = 9  // as many requests of the connection wait as may, or too many others track
	NoMemory   Code = 10 // the memory that all connections share is used up
	NoAck      Code = 11 // the stream did not acknowledge in time; the event may still appear
	NotApplied Code = 12 // the event is in the stream, but not applied here in time
	NoPerm     Code = 13 // policy does not allow it
	Paused     Code = 14 // wide purges are paused
	Limited    Code = 15 // there were as many wide purges as policy permits
	Framing    Code = 16 // what came is no frame; the connection ends
	Ending     Code = 17 // the connection ends: a frame was not completed in time, or buffers have no memory
)

var codeNames = map[Code]string{
	Failed: "FAILED", Malformed: "MALFORMED", Unknown: "UNKNOWN", NoHello: "NOHELLO", NoVersion: "NOVERSION", WrongPass: "WRONGPASS",
	BadValue: "BADVALUE", TooLarge: "TOOLARGE", Busy: "BUSY", NoMemory: "NOMEMORY", NoAck: "NOACK", NotApplied: "NOTAPPLIED",
	NoPerm: "NOPERM", Paused: "PAUSED", Limited: "LIMITED", Framing: "FRAMING", Ending: "ENDING",
}

// String returns the code's name.
func (c Code) String() string { return nameOf(codeNames, c) }

// Scope is what an Invalidated names. Values cross the wire: append-only; an
// unknown one is to be taken for Everything.
type Scope uint8

// Scopes.
const (
	Keys       Scope = 1 // the keys named
	Prefix     Scope = 2 // the keys that begin with the name
	Namespace  Scope = 3 // the keys of the namespace named, see NamespaceOf
	Linked     Scope = 4 // all entries whose answer had the flag Links
	Everything Scope = 5
)

var scopeNames = map[Scope]string{Keys: "KEYS", Prefix: "PREFIX", Namespace: "NAMESPACE", Linked: "LINKED", Everything: "EVERYTHING"}

// String returns the scope's name.
func (s Scope) String() string { return nameOf(scopeNames, s) }

// Reason is why something was invalidated, for people and metrics: no rule depends
// on it. Values cross the wire: append-only.
type Reason uint8

// Reasons.
const (
	ByEvent   Reason = 1 // an event of the stream
	ByWrite   Reason = 2 // a write of a client of this sidecar, whose event is under way
	Replaced  Reason = 3 // the sidecar holds another value now, or another TTL
	Untracked Reason = 4 // the table of tracked keys was full
	ByDoubt   Reason = 5 // the sidecar cannot prove that it has seen every event
	ByPolicy  Reason = 6 // policies changed
	Overflow  Reason = 7 // the client did not read its pushes in time
)

var reasonNames = map[Reason]string{
	ByEvent: "EVENT", ByWrite: "WRITE", Replaced: "REPLACED", Untracked: "UNTRACKED", ByDoubt: "DOUBT", ByPolicy: "POLICY", Overflow: "OVERFLOW",
}

// String returns the reason's name.
func (r Reason) String() string { return nameOf(reasonNames, r) }

func nameOf[T ~uint8](names map[T]string, v T) string {
	if n, ok := names[v]; ok {
		return n
	}
	return strconv.Itoa(int(v))
}
