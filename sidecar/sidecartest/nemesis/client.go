package nemesis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sdk/go/nearside"
)

const (
	publishTimeout = time.Second           // of the sidecars
	patience       = 4 * time.Second       // of a client with one command
	pause          = 50 * time.Millisecond // before a failed command is tried again
)

// client is a connection to one life of a sidecar. It is for one goroutine.
type client struct {
	life life
	conn *resp.Client
}

func (c *client) of() life { return c.life }

func (c *client) close() error { return c.conn.Close() }

// do sends one command. It is not interrupted by the end of ctx, which is that
// of the run, but by its own patience.
func (c *client) do(ctx context.Context, args ...string) (resp.Reply, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return c.conn.Do(ctx, args...)
}

// tooMany is what a connection over the limit is told, whatever it sent.
const tooMany = "max number of clients"

// answered reports whether the sidecar answered the command, be it with an error.
func answered(err error) bool {
	var refused *resp.ServerError
	var code *near.Error
	return err == nil || errors.As(err, &refused) && !strings.Contains(refused.Error(), tooMany) ||
		errors.As(err, &code) && !errors.Is(err, nearside.ErrUnavailable)
}

// status is what NEAR.STATUS says.
type status struct {
	ready   bool
	state   string // of namespaces without a policy of their own
	applied bus.Position
	trouble map[string]int // of the bus in this life, by kind
}

func (c *client) status(ctx context.Context) (status, error) {
	r, err := c.do(ctx, "NEAR.STATUS")
	if err != nil {
		return status{}, err
	}
	return parseStatus(r)
}

func parseStatus(r resp.Reply) (s status, err error) {
	fields := fieldsOf(r)
	s.ready, s.state = fields["ready"] == "1", fields["state"]
	s.trouble = make(map[string]int)
	for _, kind := range []string{"gaps", "repairs", "doubts", "forks"} {
		if s.trouble[kind], err = strconv.Atoi(fields[kind]); err != nil {
			return s, fmt.Errorf("NEAR.STATUS: %s: %w", kind, err)
		}
	}
	if s.applied, err = bus.ParseToken(fields["applied"]); err != nil {
		return s, fmt.Errorf("NEAR.STATUS: applied: %w", err)
	}
	return s, nil
}

// fieldsOf reads an answer of names and values.
func fieldsOf(r resp.Reply) map[string]string {
	m := make(map[string]string, len(r.Elems)/2)
	for i := 0; i+1 < len(r.Elems); i += 2 {
		m[r.Elems[i].Text()] = r.Elems[i+1].Text()
	}
	return m
}

// answer is what NEAR.GET says.
type answer struct {
	status  string // HIT, STALE, NEGATIVE, REGULAR, MISS, BEHIND or BYPASS
	value   string
	version uint64
	token   string
	lease   string
	byL0    bool
}

func parseAnswer(r resp.Reply) (a answer, err error) {
	if err := r.Err(); err != nil {
		return a, err
	}
	f := fieldsOf(r)
	a = answer{status: f["status"], value: f["value"], token: f["token"], lease: f["lease"]}
	if a.status == "" {
		return a, fmt.Errorf("NEAR.GET: no status in %.200q", r.Text())
	}
	if a.version, err = strconv.ParseUint(f["version"], 10, 64); err != nil {
		return a, fmt.Errorf("NEAR.GET: version: %w", err)
	}
	return a, nil
}

// get reads under a mode. With rest it first asks what is applied.
func (c *client) get(ctx context.Context, r read, rest bool) (a answer, applied bus.Position, err error) {
	command := []string{"NEAR.GET", r.key, string(r.mode)}
	switch r.mode {
	case plain, critical: // as the class says
		command = command[:2]
	case regular:
		command[2] = string(strong)
	case maxStale:
		command = append(command, strconv.FormatInt(r.bound.Milliseconds(), 10))
	case atLeast:
		command = append(command, r.token.text)
	}
	if r.wait >= 0 {
		command = append(command, "WAIT", strconv.FormatInt(r.wait.Milliseconds(), 10))
	}
	reply, applied, err := c.rested(ctx, rest, command)
	if err != nil {
		return a, applied, err
	}
	a, err = parseAnswer(reply)
	return a, applied, err
}

// plainGet is a Redis client's GET. ok says whether there is a value.
func (c *client) plainGet(ctx context.Context, key string, rest bool) (value string, ok bool, applied bus.Position, err error) {
	reply, applied, err := c.rested(ctx, rest, []string{"GET", key})
	return reply.Str, err == nil && !reply.IsNull(), applied, err
}

// rested sends a command, with rest behind NEAR.STATUS: what that says is applied
// was applied before the command began.
func (c *client) rested(ctx context.Context, rest bool, command []string) (resp.Reply, bus.Position, error) {
	if !rest {
		reply, err := c.do(ctx, command...)
		return reply, bus.Position{}, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	replies, err := c.conn.Pipeline(ctx, []string{"NEAR.STATUS"}, command)
	if err != nil {
		return resp.Reply{}, bus.Position{}, err
	}
	s, err := parseStatus(replies[0])
	return replies[1], s.applied, errors.Join(err, replies[1].Err())
}

// offer is what a client loaded. A ttl of 0 is the namespace's own.
type offer struct {
	found
	lease       string
	unversioned bool // the sidecar is not told the version
	ttl         time.Duration
	hangs       []string // as words of NEAR.FILL
}

// fill offers what was loaded. An answer, whatever it is, means that the reader
// may return it.
func (c *client) fill(ctx context.Context, o offer) (stored bool, err error) {
	command := []string{"NEAR.FILL", o.key, o.lease}
	if !o.unversioned {
		command = append(command, "VERSION", formatUint(o.version))
	}
	if ms := o.ttl.Milliseconds(); ms > 0 {
		command = append(command, "PX", strconv.FormatInt(ms, 10))
	}
	command = append(command, o.hangs...)
	if o.absent {
		command = append(command, "NEGATIVE", "")
	} else {
		command = append(command, valueOf(o.found))
	}
	reply, err := c.do(ctx, command...)
	if err != nil {
		return false, err
	}
	if text := reply.Text(); text != "STORED" && !strings.HasPrefix(text, "REJECTED ") {
		return false, fmt.Errorf("NEAR.FILL answered %.80q", text)
	}
	return reply.Text() == "STORED", nil
}

// acknowledged sends a command that publishes and returns its token and what that
// says.
func (c *client) acknowledged(ctx context.Context, command []string) (p bus.Position, token string, err error) {
	reply, err := c.do(ctx, command...)
	if err != nil {
		return p, "", err
	}
	p, err = bus.ParseToken(reply.Text())
	return p, reply.Text(), err
}

// del deletes a key. It is answered when it is applied, so at or below p; a zero p
// is an unknown one.
func (c *client) del(ctx context.Context, key string) (p bus.Position, err error) {
	if _, err = c.do(ctx, "DEL", key); err != nil {
		return p, err
	}
	if st, err := c.status(ctx); err == nil {
		p = st.applied
	}
	return p, nil
}

func formatUint(n uint64) string { return strconv.FormatUint(n, 10) }

func seconds(ns int64) string { return fmt.Sprintf("%.4fs", time.Duration(ns).Seconds()) }
