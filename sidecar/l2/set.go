package l2

import (
	"errors"
	"reflect"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// ErrNoBuckets says that a policy asks for a shared tier over a bus that has none.
var ErrNoBuckets = errors.New("l2: this bus has no buckets for a shared tier; remove l2 from the policies")

// Set is the shared tiers of all namespaces. It is safe for concurrent use.
type Set struct {
	buckets bus.Buckets // nil: there are none
	domain  string
	log     hclog.Logger

	applying sync.Mutex // one Apply or Close at a time
	mu       sync.RWMutex
	tiers    map[string]*Tier
	policies *policy.Set
	closed   bool
}

// NewSet returns a Set without tiers. buckets may be nil.
func NewSet(buckets bus.Buckets, domain string, log hclog.Logger) *Set {
	return &Set{buckets: buckets, domain: domain, log: log, tiers: map[string]*Tier{}}
}

// Apply puts the tiers of a policy in force. One whose block did not change stays. A
// namespace without a policy of its own gets its tier with its first load. On an error
// nothing changes.
func (s *Set) Apply(p *policy.Set) error {
	if err := s.Check(p); err != nil {
		return err
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	var gone []*Tier
	s.mu.Lock()
	for namespace, t := range s.tiers {
		if block := p.Of(namespace).L2; block == nil || !reflect.DeepEqual(t.config.Policy, *block) {
			gone = append(gone, t)
			delete(s.tiers, namespace)
		}
	}
	s.policies = p
	s.mu.Unlock()
	for _, t := range gone {
		_ = t.Close() // never fails
	}
	return nil
}

// Check returns the error that Apply would return.
func (s *Set) Check(p *policy.Set) error {
	for _, n := range p.All() {
		if n.L2 != nil && s.buckets == nil {
			return ErrNoBuckets
		}
	}
	return nil
}

// maxTiers bounds the namespaces with a tier, each of which has goroutines of its own.
const maxTiers = 1000

// Of returns the tier of a namespace, nil where it has none. It may be closed at any
// time: then its calls return ErrClosed.
func (s *Set) Of(namespace string) *Tier {
	s.mu.RLock()
	t := s.tiers[namespace]
	wanted := t == nil && !s.closed && s.policies != nil && s.policies.Of(namespace).L2 != nil
	s.mu.RUnlock()
	if !wanted {
		return t
	}
	return s.open(namespace)
}

func (s *Set) open(namespace string) *Tier {
	s.mu.Lock()
	defer s.mu.Unlock()
	block := s.policies.Of(namespace).L2
	if t := s.tiers[namespace]; t != nil || s.closed || block == nil || len(s.tiers) >= maxTiers {
		return t
	}
	t, err := New(s.buckets, Config{Domain: s.domain, Namespace: namespace, Policy: *block, Logger: s.log})
	if err != nil {
		s.log.Error("a shared tier cannot be used", "namespace", namespace, "error", err)
		return nil
	}
	s.tiers[namespace] = t
	return t
}

// Close closes all tiers. It may be called more than once.
func (s *Set) Close() error {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	s.closed = true
	tiers := s.tiers
	s.tiers = map[string]*Tier{}
	s.mu.Unlock()
	for _, t := range tiers {
		_ = t.Close() // never fails
	}
	return nil
}
