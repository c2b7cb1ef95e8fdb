package nearside

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nearside-cache/nearside/api/near"
)

// Status is what a read found.
type Status uint8

// Statuses of reads.
const (
	Hit      = Status(near.Hit)      // a value
	Stale    = Status(near.Stale)    // a value past its soft TTL; no event has made it stale
	Negative = Status(near.Negative) // the source has no value
	Regular  = Status(near.Regular)  // a Strong hit without a version: every acknowledged write, no more
	Miss     = Status(near.Miss)     // load it, and Fill under the lease
	Behind   = Status(near.Behind)   // the token's position is not applied in this pod
	Bypass   = Status(near.Bypass)   // freshness cannot be proven: load it; nothing is kept
)

// String returns the status as the other protocols spell it.
func (s Status) String() string { return near.Status(s).String() }

// Found reports whether there is a value.
func (s Status) Found() bool { return near.Status(s).Found() }

// Lease is what a miss hands out before the load begins; Fill presents it. It is opaque.
type Lease string

// Answer is what a read found.
type Answer struct {
	Status Status
	// Value is shared with other readers: it must not be changed. nil unless Status.Found.
	Value []byte
	// Version is the source's own stamp of the value; 0: none.
	Version uint64
	// Token is the position that the answer rests on, if the read asked WithToken.
	Token Token
	// Age is for how long at most a write may be acknowledged and not be in the answer.
	Age time.Duration
	// Lease comes with a Miss. Right: this client has the right to load; others wait for
	// it. Give it up (Release) if the load fails.
	Lease Lease
	Right bool
	// FromL0: the sidecar was not asked.
	FromL0 bool

	entry *entry
}

// ReadOption says how fresh a read must be, or how long it may wait.
type ReadOption struct {
	set   optionSet
	d     time.Duration
	token Token
}

type optionSet uint8

const (
	setAny optionSet = iota + 1
	setMaxStale
	setAtLeast
	setStrong
	setWait
	setWithToken
)

// Any asks for anything within its TTL.
func Any() ReadOption { return ReadOption{set: setAny} }

// MaxStale asks for a value that misses no write which was acknowledged longer than d
// before the call.
func MaxStale(d time.Duration) ReadOption { return ReadOption{set: setMaxStale, d: d} }

// AtLeast asks for a value at least as new as a token, of a write or of a read. An empty
// token asks for nothing.
func AtLeast(t Token) ReadOption { return ReadOption{set: setAtLeast, token: t} }

// Strong asks for every write that was acknowledged before the call; of keys with
// versions, reads are linearizable.
func Strong() ReadOption { return ReadOption{set: setStrong} }

// Wait bounds how long the sidecar waits for the freshness that the read asks for, and
// for loads of others. 0: not at all. Without it, the policy says.
func Wait(d time.Duration) ReadOption { return ReadOption{set: setWait, d: max(0, d)} }

// WithToken asks for the token that the answer rests on.
func WithToken() ReadOption { return ReadOption{set: setWithToken} }

// read is what the options of a read come to.
type read struct {
	mode      near.Mode
	maxStale  time.Duration
	token     Token
	position  position
	wait      time.Duration // negative: as the policy says
	withToken bool
}

// set puts options together, and the token of the context's session for a read that does
// not say how fresh it must be.
func (r *read) set(ctx context.Context, options []ReadOption) {
	r.wait = -1
	for i := range options {
		r.option(&options[i])
	}
	if r.mode != near.Class {
		return
	}
	if s := sessionOf(ctx); s != nil {
		if t, p := s.get(); t != "" {
			r.mode, r.token, r.position = near.AtLeast, t, p
		}
	}
}

func (r *read) option(o *ReadOption) {
	switch o.set {
	case setAny:
		r.mode = near.Any
	case setMaxStale:
		r.mode, r.maxStale = near.MaxStale, max(0, o.d)
	case setAtLeast:
		if o.token != "" {
			r.mode, r.token, r.position = near.AtLeast, o.token, positionOf(o.token)
		}
	case setStrong:
		r.mode = near.Strong
	case setWait:
		r.wait = o.d
	case setWithToken:
		r.withToken = true
	}
}

// wire is the read as it is sent.
func (r *read) wire(l *l0) near.Read {
	w := near.Read{Mode: r.mode, MaxStale: r.maxStale, Token: string(r.token), Wait: r.wait}
	if l != nil {
		w.Flags |= near.ForL0
	}
	if r.withToken {
		w.Flags |= near.WithToken
	}
	return w
}

// timeout is how long the sidecar may take for the read.
func (r *read) timeout(o *Options) time.Duration {
	if r.wait < 0 {
		return o.Timeout + policyWait
	}
	return o.Timeout + r.wait
}

func checkKey(key string) error {
	if len(key) == 0 || len(key) > 65535 {
		return fmt.Errorf("%w, this one %d", ErrBadKey, len(key))
	}
	return nil
}

// Get reads a key, from L0 if there is one and it may answer, else from the sidecar. It
// fails with ErrUnavailable when that gives no answer, with a *near.Error when it
// refuses, and when the context ends.
func (c *Client) Get(ctx context.Context, key string, options ...ReadOption) (a Answer, err error) {
	var r read
	r.set(ctx, options)
	if c.l0 != nil && c.l0.get(key, &r, &a) {
		return a, nil
	}
	return c.ask(ctx, key, r, r.timeout(&c.options))
}

// ask reads a key from the sidecar.
func (c *Client) ask(ctx context.Context, key string, r read, timeout time.Duration) (Answer, error) {
	if err := checkKey(key); err != nil {
		return Answer{}, err
	}
	conn, err := c.connection(ctx)
	if err != nil {
		return Answer{}, err
	}
	var v near.Value
	p := &call{kind: near.KindGet, answer: &v}
	if c.l0 != nil {
		p.keys = []string{key}
	}
	if _, err := conn.do(ctx, p, &near.Get{Key: []byte(key), Read: r.wire(c.l0)}, timeout); err != nil {
		c.counters.failedReads.Add(1)
		return Answer{}, err
	}
	return c.answer(conn, &v), nil
}

// answer is a Value for the app. What is not known is a miss without a lease.
func (c *Client) answer(conn *conn, v *near.Value) Answer {
	a := Answer{
		Status: Status(v.Status), Version: v.Version, Token: Token(v.Token), Age: conn.age(c.clock.now(), v.AsOf),
		Lease: Lease(v.Lease), Right: v.Flags&near.Right != 0,
	}
	switch {
	case a.Status.Found():
		a.Value = v.Value
		c.counters.hits.Add(1)
	case a.Status == Negative:
		c.counters.hits.Add(1)
	case a.Status == Bypass:
		c.counters.bypasses.Add(1)
	default:
		if a.Status != Miss && a.Status != Behind {
			a.Status, a.Lease, a.Right = Miss, "", false
		}
		c.counters.misses.Add(1)
	}
	return a
}

// age is how long ago a moment of the sidecar is at most.
func (c *conn) age(now, asOf time.Duration) time.Duration {
	if c.sameClock {
		return max(0, now-asOf)
	}
	// The sidecar's clock showed welcome.Clock after greeted.
	return max(0, c.welcome.Clock+(now-c.greeted)-asOf)
}

// GetMany reads keys, each by itself, and returns as many answers in their order. What
// L0 does not answer is asked in one request. It fails as Get does; the answers are of no
// use then.
func (c *Client) GetMany(ctx context.Context, keys []string, options ...ReadOption) ([]Answer, error) {
	var r read
	r.set(ctx, options)
	answers := make([]Answer, len(keys))
	var left []int // indexes of what is to be asked
	for i, key := range keys {
		if err := checkKey(key); err != nil {
			return nil, err
		}
		if c.l0 == nil || !c.l0.get(key, &r, &answers[i]) {
			left = append(left, i)
		}
	}
	for len(left) > 0 {
		part := left[:min(len(left), near.MaxGetKeys)]
		unread, err := c.askMany(ctx, keys, part, r, answers)
		if err != nil {
			return nil, err
		}
		left = append(unread, left[len(part):]...)
	}
	return answers, nil
}

// askMany asks for the keys of part and returns the indexes for which the answer had no
// room, which are fewer.
func (c *Client) askMany(ctx context.Context, keys []string, part []int, r read, answers []Answer) (unread []int, err error) {
	conn, err := c.connection(ctx)
	if err != nil {
		return nil, err
	}
	m := near.Gets{Read: r.wire(c.l0), Keys: make([][]byte, len(part))}
	names := make([]string, len(part))
	for i, at := range part {
		m.Keys[i], names[i] = []byte(keys[at]), keys[at]
	}
	var v near.Values
	p := &call{kind: near.KindGets, answer: &v}
	if c.l0 != nil {
		p.keys = names
	}
	if _, err := conn.do(ctx, p, &m, r.timeout(&c.options)); err != nil {
		c.counters.failedReads.Add(1)
		return nil, err
	}
	if len(v.Items) != len(part) {
		return nil, unavailable("GETS", fmt.Errorf("%d answers to %d keys", len(v.Items), len(part)))
	}
	for i, at := range part {
		if v.Items[i].Status == near.Unread {
			unread = append(unread, at)
			continue
		}
		answers[at] = c.answer(conn, &v.Items[i])
	}
	if len(unread) == len(part) {
		return nil, unavailable("GETS", fmt.Errorf("no answer to any of %d keys", len(part)))
	}
	return unread, nil
}

// readToken is a position's token with the version of what was read there (C13).
func readToken(position string, version uint64) Token {
	if version == 0 {
		return Token(position)
	}
	return Token(position + "-" + strconv.FormatUint(version, 16))
}
