package sidecar

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/l2"
	"github.com/nearside-cache/nearside/sidecar/loader"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// sources are where values come from that are not in memory: the origins that
// loaders ask, and the shared tiers before them.
type sources struct {
	origins *loader.Set
	tiers   *l2.Set
}

func newSources(cfg Config, registry prometheus.Registerer) (*sources, error) {
	requester, _ := cfg.Bus.(bus.Requester) // nil: policies that need it are refused
	buckets, _ := cfg.Bus.(bus.Buckets)
	s := &sources{
		origins: loader.NewSet(loader.Deps{
			Requester: requester, MaxValue: cfg.MaxValue, UserAgent: "nearside/" + cfg.Version,
			Metrics: loader.NewMetrics(registry), Logger: cfg.Logger.Named("loader"),
		}),
		tiers: l2.NewSet(buckets, cfg.Domain, cfg.Logger.Named("l2")),
	}
	registry.MustRegister(s.tiers)
	if err := s.apply(cfg.Policies); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// apply puts the policies in force, or none of them.
func (s *sources) apply(p *policy.Set) error {
	err := s.tiers.Check(p)
	if err == nil {
		err = s.origins.Apply(p)
	}
	if err == nil {
		err = s.tiers.Apply(p)
	}
	if err != nil {
		return fmt.Errorf("policies: %w", err)
	}
	return nil
}

func (s *sources) close() error { return errors.Join(s.origins.Close(), s.tiers.Close()) }
