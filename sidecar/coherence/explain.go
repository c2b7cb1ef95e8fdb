package coherence

import "time"

// Explanation is everything the core holds of one key.
type Explanation struct {
	Resident    bool
	Alive       bool
	Stamp       Stamp
	Fence       Fence
	Floor       uint64 // leases with a smaller tick are rejected
	Generation  uint64 // seq of the newest wide purge that concerns the key
	Tick        uint64
	Incarnation uint64
	Ready       bool
	Misses      int           // outstanding, awaiting their SET
	Blind       time.Duration // for so long plain SETs are dropped
	Phantom     time.Duration // for so long plain SETs are judged by a window's lease
	Decided     bool          // Verdict and Age are known
	Verdict     Verdict       // on the last fill of the key
	Age         time.Duration // since that verdict
}

// Fence is a fence as people see it.
type Fence struct {
	Version     uint64
	Seq         uint64
	Unversioned uint64
	Tick        uint64
	Voided      uint64
}

// Explain tells what the core holds of key. It changes nothing.
func (c *Core) Explain(key string, now time.Duration) Explanation {
	hash := c.cfg.Hash(key)
	f := c.fences.get(hash)
	s, held := c.entries.Stamp(key)
	e := Explanation{
		Resident:    held,
		Alive:       held && c.horizon.Alive(key, s),
		Stamp:       s,
		Fence:       Fence{Version: f.version, Seq: f.seq, Unversioned: f.unversioned, Tick: f.tick, Voided: f.voided},
		Floor:       c.floor,
		Generation:  c.horizon.generation(key, s.Hangs),
		Tick:        c.tick,
		Incarnation: c.horizon.incarnation,
		Ready:       c.ready,
		Misses:      c.misses.outstanding(hash, now-c.cfg.Window),
		Blind:       c.Blind(now),
		Phantom:     max(0, c.phantomUntil-now),
	}
	var at time.Duration
	e.Verdict, at, e.Decided = c.verdicts.last(hash)
	e.Age = now - at
	return e
}

// Sizes tells how full the core's tables are.
func (c *Core) Sizes() (fences, misses int) { return c.fences.len(), len(c.misses.keys) }
