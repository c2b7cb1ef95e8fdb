// Command e2e installs the chart on the cluster that KUBECONFIG names, and does with it
// and with an app what happens to them in their lives: docs/kubernetes/e2e.md says how to
// run it. It needs kubectl and helm, and two images that the cluster has or can pull.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// step is something that must be so of an installation. Steps follow on one another.
type step struct {
	name string
	run  func(context.Context, *scene) (found string, err error)
}

var steps = []step{
	{"check --pre finds nothing in the way", checkBefore},
	{"install, and helm test with an injected pod", install},
	{"three replicas of an app, restricted, of another user", startApp},
	{"a sidecar at rest", measureMemory},
	{"DEL in one pod is seen in the others", measureLag},
	{"the sidecar starts first and ends last", order},
	{"rollout restart under load", rollout},
	{"the sidecar is killed: only it restarts", killSidecar},
	{"a Job with a sidecar completes", completeJob},
	{"no injector: pods that ask wait, others do not", injectorAway},
	{"no injector, failurePolicy Ignore: pods start without", ignoredInjector},
	{"NATS restarts: reads go on, then converge", restartNATS},
	{"NATS loses its stream: reads go on, then converge", loseStream},
	{"helm upgrade under load", upgrade},
	{"check finds all in order", checkAfter},
	{"webhook, policy and back: the same pods, and none without", policy},
	{"uninstall: pods go on, and nothing is left", uninstall},
}

func main() {
	keep := flag.Bool("keep", false, "leave everything as it is after a failure")
	only := flag.String("run", "", "run the steps alone whose names match a regular expression, and leave everything as it is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := runMatching(ctx, *only, *keep)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
}

// runMatching runs the steps that only matches; empty: all.
func runMatching(ctx context.Context, only string, keep bool) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	matching := slices.DeleteFunc(slices.Clone(steps), func(s step) bool { return !wanted.MatchString(s.name) })
	if len(matching) == 0 {
		return fmt.Errorf("-run: no step's name matches %q", only)
	}
	return runSteps(ctx, matching, keep || only != "")
}

func runSteps(ctx context.Context, steps []step, keep bool) error {
	s, err := newScene(ctx)
	if err != nil {
		return err
	}
	defer s.proxy.close()
	start := time.Now()
	for i, step := range steps {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, 3*time.Minute)
		found, err := step.run(limited, s)
		cancel()
		if err != nil {
			fmt.Printf("FAILED %2d/%d %6.1f s  %s\n", i+1, len(steps), time.Since(began).Seconds(), step.name)
			s.explain()
			if i > 0 && !keep { // what the first step found is not ours
				s.clean()
			}
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Printf("ok %2d/%d %6.1f s  %s\n", i+1, len(steps), time.Since(began).Seconds(), step.name)
		if found != "" {
			fmt.Println("               " + strings.ReplaceAll(found, "\n", "\n               "))
		}
	}
	fmt.Printf("%d steps passed in %.0f s\n", len(steps), time.Since(start).Seconds())
	return nil
}
