package coherence

// trail remembers the digests of the newest messages applied, so that a position of
// which another sidecar speaks can be held against what was applied here: after a
// rollback, one seq is that of two messages (B3).
type trail struct {
	digests    []uint64 // a ring, that of base first
	max        int
	base, next uint64 // what is remembered began at base and ends before next
}

// put remembers the message at seq; what is not contiguous begins anew.
func (t *trail) put(seq, digest uint64) {
	if seq != t.next || len(t.digests) == 0 {
		t.digests, t.base = t.digests[:0], seq
	}
	if t.next = seq + 1; len(t.digests) < t.max {
		t.digests = append(t.digests, digest)
		return
	}
	t.digests[(seq-t.base)%uint64(t.max)] = digest
}

// at returns the digest of the message applied at seq, if it is remembered.
func (t *trail) at(seq uint64) (digest uint64, known bool) {
	if seq < t.base || seq >= t.next || t.next-seq > uint64(len(t.digests)) {
		return 0, false
	}
	return t.digests[(seq-t.base)%uint64(t.max)], true
}
