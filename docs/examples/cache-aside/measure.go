package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// measure takes the number of rounds and the addresses of the app's pods. In each round
// all have a product cached, the database changes, and one of them is told: it measures
// from the sending of that request until each of the others answers with the new value,
// requests included.
func measure(ctx context.Context, _ *slog.Logger, args []string) error {
	if len(args) < 3 {
		return errors.New("measure ROUNDS ADDRESS ADDRESS…")
	}
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var lags []time.Duration
	for round := range rounds {
		of, err := measureRound(ctx, round, args[1:])
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		lags = append(lags, of...)
	}
	slices.Sort(lags)
	fmt.Printf("lag of %d readers in %d rounds: median %v, p99 %v, max %v\n", len(lags), rounds,
		at(lags, 0.5), at(lags, 0.99), at(lags, 1))
	return nil
}

func at(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(q*float64(len(sorted)-1))].Round(10 * time.Microsecond)
}

func measureRound(ctx context.Context, round int, pods []string) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	id := fmt.Sprintf("lag-%d-%d", time.Now().UnixNano(), round)
	path := "/products/" + id
	for _, pod := range pods {
		if _, err := call(ctx, "GET", "http://"+pod+path, ""); err != nil {
			return nil, err
		}
	}
	if err := (database{databaseURL()}).put(ctx, id, "changed"); err != nil {
		return nil, err
	}
	for _, pod := range pods {
		if got, err := call(ctx, "GET", "http://"+pod+path, ""); err != nil || got != "new" {
			return nil, fmt.Errorf("%s had not cached it: %q: %w", pod, got, err)
		}
	}
	teller := round % len(pods)
	start := time.Now()
	told := make(chan error, 1)
	go func() {
		_, err := call(ctx, "DELETE", "http://"+pods[teller]+path, "")
		told <- err
	}()
	lags := make([]time.Duration, len(pods))
	errs := make([]error, len(pods))
	var wait sync.WaitGroup
	for i, pod := range pods {
		if i == teller {
			continue
		}
		wait.Go(func() { lags[i], errs[i] = untilChanged(ctx, "http://"+pod+path, start) })
	}
	wait.Wait()
	return slices.Delete(lags, teller, teller+1), errors.Join(append(errs, <-told)...)
}

func untilChanged(ctx context.Context, url string, start time.Time) (time.Duration, error) {
	for {
		value, err := call(ctx, "GET", url, "")
		if err != nil || value == "changed" {
			return time.Since(start), err
		}
	}
}

// kill sends SIGKILL to the processes of a name that run in a pod: what the OOM killer
// does. It sees them from a privileged pod in the node's process namespace.
func kill(_ context.Context, log *slog.Logger, args []string) error {
	if len(args) != 2 {
		return errors.New("kill POD COMMAND")
	}
	found, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	killed := 0
	for _, comm := range found {
		dir := filepath.Dir(comm)
		name, err := os.ReadFile(comm)
		if err != nil || strings.TrimSpace(string(name)) != args[1] {
			continue // it has ended meanwhile, or is another
		}
		environ, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(v []byte) bool {
			return string(v) == "HOSTNAME="+args[0]
		}) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return err
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return err
		}
		killed++
	}
	if killed == 0 {
		return fmt.Errorf("no process %s in pod %s", args[1], args[0])
	}
	log.Info("killed", "processes", killed)
	return nil
}
