package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const injector = "app.kubernetes.io/component=injector,app.kubernetes.io/instance=" + release

// injectorAway takes all injectors away. failurePolicy is Fail.
func injectorAway(ctx context.Context, s *scene) (string, error) {
	shops, err := s.shops(ctx)
	if err != nil {
		return "", err
	}
	load := s.proxy.startLoad(ctx, places(shops)...)
	err = s.withoutInjector(ctx)
	found, failed := load.finish()
	if err := errors.Join(err, failed); err != nil {
		return "", err
	}
	back := time.Now()
	// The controller tries again by itself, after pauses that grow.
	if _, err := s.app(ctx, "rollout", "status", "deployment/late", "--timeout=2m"); err != nil {
		return "", err
	}
	pods, err := s.pods(ctx, "app=late,nearside.dev/injected=true")
	if err == nil && len(pods) != 1 {
		err = fmt.Errorf("%d injected pods of the Deployment that had to wait", len(pods))
	}
	_, failed = s.app(ctx, "delete", "deployment/late", "pod/plain")
	return fmt.Sprintf("%s\na Deployment that had to wait is ready %.1f s after the injector", found, time.Since(back).Seconds()), errors.Join(err, failed)
}

// scaleInjector waits until all that are wanted are ready, and all others gone.
func (s *scene) scaleInjector(ctx context.Context, replicas string) error {
	name := "deployment/" + release + "-injector"
	if _, err := s.kubectl(ctx, "-n", system, "scale", name, "--replicas="+replicas); err != nil {
		return err
	}
	if replicas == "0" {
		_, err := s.kubectl(ctx, "-n", system, "wait", "--for=delete", "pod", "-l", injector, "--timeout=1m")
		return err
	}
	_, err := s.kubectl(ctx, "-n", system, "rollout", "status", name, "--timeout=1m")
	return err
}

func (s *scene) withoutInjector(ctx context.Context) error {
	if err := s.scaleInjector(ctx, "0"); err != nil {
		return err
	}
	if err := s.apply(ctx, appSpace, manifest("plain", false, "database")); err != nil {
		return fmt.Errorf("a pod that does not ask: %w", err)
	}
	if _, err := s.annotated(ctx); err == nil || !strings.Contains(err.Error(), "nearside.dev") {
		return fmt.Errorf("a pod that asks was let in, or refused for another reason: %w", err)
	}
	late, err := example()
	if err != nil {
		return err
	}
	late = late[strings.LastIndex(late, "---\n")+4:]
	if err := s.apply(ctx, appSpace, strings.NewReplacer("name: shop}", "name: late}", "app: shop}", "app: late}", "replicas: 3", "replicas: 1").Replace(late)); err != nil {
		return err
	}
	err = until(ctx, func() error {
		events, err := s.app(ctx, "get", "events", "--field-selector=reason=FailedCreate", "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(events, "nearside.dev") {
			err = errors.New("no event says that pods wait for the injector")
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.scaleInjector(ctx, "2")
}

// ignoredInjector changes failurePolicy to Ignore, and back.
func ignoredInjector(ctx context.Context, s *scene) (string, error) {
	if err := s.upgrade(ctx, "--set", "injection.failurePolicy=Ignore"); err != nil {
		return "", err
	}
	if err := s.scaleInjector(ctx, "0"); err != nil {
		return "", err
	}
	err := until(ctx, func() error { // the API server takes a moment to know
		injected, err := s.annotated(ctx)
		if err == nil && injected {
			err = errors.New("a pod was injected without an injector")
		}
		return err
	})
	return "", errors.Join(err, s.scaleInjector(ctx, "2"), s.upgrade(ctx))
}

// restartNATS ends the process: the stream's files stay.
func restartNATS(ctx context.Context, s *scene) (string, error) {
	return s.outage(ctx, func([]pod) error { return s.kill(ctx, system, release+"-nats-0", "nats-server") })
}

// loseStream takes the pod away, and with it all that it had, until a write was refused.
func loseStream(ctx context.Context, s *scene) (string, error) {
	return s.outage(ctx, func(shops []pod) error {
		scale := func(replicas string) error {
			_, err := s.kubectl(ctx, "-n", system, "scale", "statefulset/"+release+"-nats", "--replicas="+replicas)
			return err
		}
		if err := scale("0"); err != nil {
			return err
		}
		if _, err := s.kubectl(ctx, "-n", system, "wait", "--for=delete", "pod/"+release+"-nats-0", "--timeout=1m"); err != nil {
			return err
		}
		if err := s.put(ctx, shops, "during"); err == nil || !strings.Contains(err.Error(), "NOACK") {
			return fmt.Errorf("a write without NATS must be answered with NOACK: %w", err)
		}
		return scale("1")
	})
}

// outage reads on while something happens to NATS. Afterwards a write that is
// acknowledged is seen by all, and sidecars keep again.
func (s *scene) outage(ctx context.Context, happens func([]pod) error) (string, error) {
	shops, err := s.shops(ctx)
	if err != nil {
		return "", err
	}
	if err := s.put(ctx, shops, "before"); err != nil {
		return "", err
	}
	load := s.proxy.startLoad(ctx, places(shops)...)
	start := time.Now()
	agreed, failed := s.recover(ctx, shops, happens)
	found, err := load.finish()
	if err := errors.Join(failed, err); err != nil {
		return "", err
	}
	after, err := s.shops(ctx)
	if err == nil && identity(after) != identity(shops) {
		err = fmt.Errorf("pods have restarted: before\n%s\nafter\n%s", identity(shops), identity(after))
	}
	return fmt.Sprintf("%s\na write is acknowledged and all agree after %.1f s, all keep after %.1f s",
		found, agreed.Sub(start).Seconds(), time.Since(start).Seconds()), err
}

// recover waits until a write has reached all, and all answer from their caches.
func (s *scene) recover(ctx context.Context, shops []pod, happens func([]pod) error) (agreed time.Time, err error) {
	if err := happens(shops); err != nil {
		return agreed, err
	}
	if err := until(ctx, func() error { return s.put(ctx, shops, "after") }); err != nil {
		return agreed, err
	}
	agreed = time.Now()
	if _, err := s.kubectl(ctx, "-n", system, "rollout", "status", "statefulset/"+release+"-nats", "--timeout=1m"); err != nil {
		return agreed, err
	}
	for _, p := range shops {
		if err := s.untilCached(ctx, p); err != nil {
			return agreed, err
		}
	}
	return agreed, nil
}

// put writes through one pod, and fails unless the others have seen it within a second
// after the acknowledgement.
func (s *scene) put(ctx context.Context, shops []pod, value string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, _, err := s.proxy.shop(ctx, shops[0].place(), http.MethodPut, "outage", value); err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, p := range shops {
		err := until(ctx, func() error {
			got, _, err := s.proxy.shop(ctx, p.place(), http.MethodGet, "outage", "")
			if err == nil && got != value {
				err = fmt.Errorf("%s reads %q, and %q was acknowledged", p.Metadata.Name, got, value)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
