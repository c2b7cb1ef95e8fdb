package nearside

import (
	"context"
	"time"

	"github.com/nearside-cache/nearside/api/near"
)

// Fill is a value that was loaded under a lease.
type Fill struct {
	Key     string
	Lease   Lease // from the Answer with the miss, taken before the load began
	Value   []byte
	Version uint64        // the source's own stamp of the value; 0: none
	TTL     time.Duration // 0: the policy's
	SoftTTL time.Duration // from now until the value is past its soft TTL; 0: the policy's
	Absent  bool          // the source has no value; Value is empty
	Tags    []string
	Depends []string // keys that the value was made of
}

// Filled is what became of a Fill.
type Filled struct {
	Stored  bool
	Verdict string // why it was not stored
}

// Fill offers a loaded value to the sidecar, which keeps it if nothing has happened since
// the lease that the load may not have seen. After a Strong miss it returns when the
// version is known everywhere: return the value after that.
func (c *Client) Fill(ctx context.Context, f Fill) (Filled, error) {
	if err := checkKey(f.Key); err != nil {
		return Filled{}, err
	}
	conn, err := c.connection(ctx)
	if err != nil {
		return Filled{}, err
	}
	m := near.Fill{
		Key: []byte(f.Key), Lease: string(f.Lease), Value: f.Value, Version: f.Version, TTL: f.TTL, Soft: f.SoftTTL,
		Negative: f.Absent, Tags: f.Tags, Depends: make([][]byte, len(f.Depends)),
	}
	for i, d := range f.Depends {
		m.Depends[i] = []byte(d)
	}
	var answer near.Filled
	// The sidecar may have to publish the version first.
	p := &call{kind: near.KindFill, answer: &answer, keys: []string{f.Key}}
	if _, err := conn.do(ctx, p, &m, c.options.WriteTimeout); err != nil {
		return Filled{}, err
	}
	return Filled{Stored: answer.Stored, Verdict: answer.Verdict}, nil
}

// Release gives up the right to load that came with a lease, so that the next reader
// need not wait for it to end. It does not wait for the answer.
func (c *Client) Release(ctx context.Context, key string, lease Lease) error {
	conn, err := c.connection(ctx)
	if err != nil {
		return err
	}
	p := &call{kind: near.KindRelease, answer: &near.Count{}, done: make(chan struct{}, 1)}
	if err := conn.send(p, &near.Release{Key: []byte(key), Lease: string(lease)}); err != nil {
		return unavailable("RELEASE", err)
	}
	return nil
}
