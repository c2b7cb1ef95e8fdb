package nearside

import (
	"context"

	"github.com/nearside-cache/nearside/api/near"
)

// Fact is a name and a value: a string, int64, uint64 or bool.
type Fact struct {
	Name  string
	Value any
}

// Explain tells what the sidecar holds of a key and why its next read hits or misses, in
// an order for people.
func (c *Client) Explain(ctx context.Context, key string) ([]Fact, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return c.describe(ctx, near.KindExplain, &near.Explain{Key: []byte(key)})
}

// Status tells the sidecar's state and totals.
func (c *Client) Status(ctx context.Context) ([]Fact, error) {
	return c.describe(ctx, near.KindStatus, &near.None{})
}

func (c *Client) describe(ctx context.Context, kind near.Kind, m near.Message) ([]Fact, error) {
	conn, err := c.connection(ctx)
	if err != nil {
		return nil, err
	}
	var d near.Description
	if _, err := conn.do(ctx, &call{kind: kind, answer: &d}, m, c.options.Timeout); err != nil {
		return nil, err
	}
	facts := make([]Fact, len(d.Facts))
	for i, f := range d.Facts {
		facts[i] = Fact(f)
	}
	return facts, nil
}
