package cache

import (
	"context"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/rights"
)

// Bounds of the rights to fill: some 8 MiB when all are taken.
const (
	maxRights  = 4096
	maxWaiting = 16384
)

// Claim asks for the right to fill key, for a reader that found nothing under m
// and has not told its client yet. plain says that the value will come by a SET.
// A lease comes with a Granted, and Release, Fill and Confirming know the right by
// it.
//
// Where nothing would be kept there is nothing to wait for. A value may have been
// stored since the reader looked: it is told to look again, so that of those who
// miss together one loads.
//
// INVARIANT: rights are given with a lease, and voided with what voids the lease,
// in one step under mu.
func (c *Cache) Claim(key string, m Mode, h *rights.Holder, plain bool) (rights.Outcome, Lease) {
	p := c.Policies().OfKey(key)
	if p.Lease.Off || !p.Enforces() {
		return rights.Alone, Lease{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if !c.core.Ready() || c.State(p, now) == Bypass {
		return rights.Alone, Lease{}
	}
	number, o := c.rights.Take(key, rights.Claim{Holder: h, For: p.Lease.Term(), Plain: plain})
	if o != rights.Granted {
		return o, Lease{}
	}
	// Whether an entry is new enough for an ATLEAST read is for the reader to say.
	if meta, ok := c.store.Head(key); ok && m.Kind != AtLeast {
		if found := c.find(key, meta, p, now, m.patience(p), false); found == Value || found == Absence {
			c.rights.Filled(key)
			return rights.Again, Lease{}
		}
	}
	l := Lease{Lease: c.core.Lease(now, p.ReplicaLag), Strong: c.mode(key, m).Kind == Strong, Right: number}
	return rights.Granted, l
}

// AwaitRight waits for the right to fill key while another reader has it, until
// ctx ends. Of a Granted it returns the right; the lease is that of reading again.
func (c *Cache) AwaitRight(ctx context.Context, key string, h *rights.Holder, plain bool) (right uint64, o rights.Outcome) {
	return c.rights.Wait(ctx, key, rights.Claim{Holder: h, For: c.Policies().OfKey(key).Lease.Term(), Plain: plain})
}

// Unneeded gives back a right whose holder found on reading again that it does
// not load: a value, which all may read, or that it cannot know.
func (c *Cache) Unneeded(key string, right uint64, found bool) {
	if found {
		c.rights.Filled(key)
		return
	}
	c.rights.Release(key, right)
}

// Release gives up the right that came with a lease, because the load failed. It
// reports whether it was still held.
func (c *Cache) Release(key string, l Lease) bool { return c.rights.Release(key, l.Right) }

// Confirming tells that Confirm is about to make the version of a load under l
// known, before its fill: the event does not void the load's own right.
func (c *Cache) Confirming(key string, l Lease, version uint64) {
	c.rights.Brings(key, l.Right, version)
}

// SetRefused tells whose SET it was that was not stored.
func (c *Cache) SetRefused(key string, h *rights.Holder) { c.rights.Refused(key, h) }

// Unfit tells that key's value is too large for the store.
func (c *Cache) Unfit(key string) { c.rights.Unfit(key) }

// Leave gives up the rights of a holder that has ended.
func (c *Cache) Leave(h *rights.Holder) { c.rights.Leave(h) }

// EndWaits lets every reader go that waits for another's load, now and from now
// on, because the sidecar ends.
func (c *Cache) EndWaits() { c.rights.Close() }

// filled ends or passes on the right to key, under mu, by what became of a fill.
func (c *Cache) filled(key string, right uint64, v coherence.Verdict) {
	switch v {
	case coherence.Stored:
		c.rights.Filled(key)
	case coherence.TooLarge, coherence.Bypass, coherence.NotReady, coherence.Blind:
		c.rights.Unfit(key)
	default:
		c.rights.Release(key, right)
	}
}

// voidRights takes the rights whose holders' leases d has voided, under mu.
func (c *Cache) voidRights(d *bus.Delivery) {
	wide := d.Err != nil || d.Event.Op == bus.OpFlush
	switch {
	case d.Event.Op == bus.OpFork, wide && d.Namespace == "":
		c.rights.VoidAll()
	case wide:
		c.rights.VoidNamespace(d.Namespace)
	default:
		c.voidWrite(d.Event.Keys, d.Event.Prefix)
	}
}

func (c *Cache) voidWrite(keys []bus.KeyVersion, prefix string) {
	for _, kv := range keys {
		c.rights.Void(kv.Key, kv.Version)
	}
	if prefix != "" {
		c.rights.VoidNamespace(bus.NamespaceOf(prefix))
	}
}
