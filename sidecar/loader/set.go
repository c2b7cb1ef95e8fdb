package loader

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Defaults stands for all namespaces without a policy of their own, which share
// one origin. It cannot be the name of a namespace.
const Defaults = ":defaults"

// Set is the origins of all namespaces. It is safe for concurrent use.
type Set struct {
	deps     Deps
	applying sync.Mutex // one Apply or Close at a time

	mu      sync.RWMutex
	origins map[string]*Origin // nil for a namespace that has a policy without a loader
	closed  bool
	retired map[*Origin]struct{} // replaced, with loads under way

	retiring sync.WaitGroup // one for each of retired
}

// NewSet returns a Set without origins.
func NewSet(d Deps) *Set { return &Set{deps: d.complete(), retired: make(map[*Origin]struct{})} }

// Apply puts the loaders of a policy in force. An origin whose block did not
// change stays, with its breaker, rate and timeouts. One that changed or is gone
// begins no loads any more; those under way end as they would have. On an error,
// which names all faults, nothing changes. p must be without faults.
func (s *Set) Apply(p *policy.Set) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.closed {
		return ErrClosed
	}
	next, made, err := s.make(p)
	if err != nil {
		s.discard(made)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for namespace, o := range s.origins {
		if o != nil && next[namespace] != o {
			s.retired[o] = struct{}{}
			s.retiring.Go(func() { s.retire(o) })
		}
	}
	s.origins = next
	return nil
}

// discard gives up origins that were never in force.
func (s *Set) discard(made []*Origin) {
	for _, o := range made {
		_ = o.Close() // never fails
		if former := s.origins[o.namespace]; former != nil {
			former.report()
		} else {
			s.deps.Metrics.forget(o.namespace)
		}
	}
}

// make returns the origins of p and those of them that are new.
func (s *Set) make(p *policy.Set) (next map[string]*Origin, made []*Origin, err error) {
	blocks := map[string]*policy.Loader{Defaults: p.Default.Loader}
	for namespace, n := range p.Namespaces {
		blocks[namespace] = n.Loader
	}
	next = make(map[string]*Origin, len(blocks))
	var faults []error
	for namespace, block := range blocks {
		next[namespace] = nil
		if block == nil {
			continue
		}
		if o := s.origins[namespace]; o != nil && reflect.DeepEqual(o.policy, block.WithDefaults()) {
			next[namespace] = o
			continue
		}
		o, err := New(namespace, *block, s.deps)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		next[namespace], made = o, append(made, o)
	}
	return next, made, errors.Join(faults...)
}

// retire ends an origin, and its metrics unless another one has its name.
func (s *Set) retire(o *Origin) {
	o.retire()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.retired, o)
	if s.origins[o.namespace] == nil {
		s.deps.Metrics.forget(o.namespace)
	}
}

// Of returns the origin of a namespace, nil where it has none. It may be replaced
// at any time: load by the Set.
func (s *Set) Of(namespace string) *Origin {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.of(namespace)
}

func (s *Set) of(namespace string) *Origin {
	if o, ok := s.origins[namespace]; ok {
		return o
	}
	return s.origins[Defaults]
}

// acquire registers a load with the origin of a namespace, before that can be
// replaced.
func (s *Set) acquire(namespace string) (*Origin, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o := s.of(namespace)
	if o == nil {
		return nil, fmt.Errorf("load %s: %w", namespace, ErrNoLoader)
	}
	if !o.acquire() {
		return nil, o.wrap(ErrClosed)
	}
	return o, nil
}

// Load loads a key of a namespace; see Origin.Load.
func (s *Set) Load(ctx context.Context, namespace string, r Request) (Result, error) {
	o, err := s.acquire(namespace)
	if err != nil {
		return Result{}, err
	}
	defer o.calls.Done()
	return o.load(ctx, r)
}

// Begin begins to load a key of a namespace; see Origin.Begin. Where there is no
// loader the load has ended with ErrNoLoader.
func (s *Set) Begin(namespace string, r Request) *Pending {
	o, err := s.acquire(namespace)
	if err != nil {
		return ended(err)
	}
	return o.begin(r)
}

// Close ends all loads and returns when none is under way, those of replaced
// origins included. It may be called more than once.
func (s *Set) Close() error {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	s.closed = true
	all := slices.Collect(maps.Keys(s.retired))
	for _, o := range s.origins {
		if o != nil {
			all = append(all, o)
		}
	}
	s.mu.Unlock()
	for _, o := range all {
		_ = o.Close() // never fails
	}
	s.retiring.Wait()
	return nil
}
