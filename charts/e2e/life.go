package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

func startApp(ctx context.Context, s *scene) (string, error) {
	text, err := example()
	if err != nil {
		return "", err
	}
	if err := s.apply(ctx, appSpace, text); err != nil {
		return "", err
	}
	_, err = s.shops(ctx)
	return "", err
}

// measureMemory asks the kubelets, which know without a metrics server.
func measureMemory(ctx context.Context, s *scene) (string, error) {
	nodes, err := s.kubectl(ctx, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")
	if err != nil {
		return "", err
	}
	most := 0
	err = until(ctx, func() error { // a kubelet looks every ten seconds
		for _, node := range strings.Fields(nodes) {
			used, err := s.sidecarMemory(ctx, node)
			if err != nil {
				return err
			}
			most = max(most, used)
		}
		if most == 0 {
			return errors.New("no kubelet knows of a sidecar's memory")
		}
		return nil
	})
	return fmt.Sprintf("%.1f MiB, the largest working set", float64(most)/(1<<20)), err
}

func (s *scene) sidecarMemory(ctx context.Context, node string) (int, error) {
	out, err := s.kubectl(ctx, "get", "--raw", "/api/v1/nodes/"+node+"/proxy/stats/summary")
	if err != nil {
		return 0, err
	}
	var summary struct {
		Pods []struct {
			PodRef     struct{ Namespace, Name string }
			Containers []struct {
				Name   string
				Memory struct{ WorkingSetBytes int }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &summary); err != nil {
		return 0, err
	}
	most := 0
	for _, p := range summary.Pods {
		for _, c := range p.Containers {
			if p.PodRef.Namespace == appSpace && strings.HasPrefix(p.PodRef.Name, "shop-") && c.Name == "nearside" {
				most = max(most, c.Memory.WorkingSetBytes)
			}
		}
	}
	return most, nil
}

func measureLag(ctx context.Context, s *scene) (string, error) {
	shops, err := s.shops(ctx)
	if err != nil {
		return "", err
	}
	return s.lag(ctx, shops, 200)
}

func (s *scene) lag(ctx context.Context, shops []pod, rounds int) (string, error) {
	args := []string{"measure", strconv.Itoa(rounds)}
	for _, p := range shops {
		args = append(args, p.Status.PodIP+":8080")
	}
	return s.runPod(ctx, appSpace, "measure", manifest("measure", false, args...))
}

// order drains the app from its node. The app itself says whether its sidecar was there
// when it started, and until it ended.
func order(ctx context.Context, s *scene) (string, error) {
	shops, err := s.shops(ctx)
	if err != nil {
		return "", err
	}
	one := shops[0]
	if sidecar, app := one.container("nearside"), one.container("shop"); sidecar.State.Running.StartedAt.After(app.State.Running.StartedAt) {
		return "", fmt.Errorf("%s: the app started before its sidecar", one.Metadata.Name)
	}
	var log string
	var logFailed error
	var following sync.WaitGroup
	following.Go(func() { log, logFailed = s.app(ctx, "logs", "-f", one.Metadata.Name, "-c", "shop") })
	node, ok := one.Spec["nodeName"].(string)
	if !ok {
		return "", fmt.Errorf("%s has no node", one.Metadata.Name)
	}
	_, drained := s.kubectl(ctx, "drain", node, "--pod-selector=app=shop", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=1m")
	following.Wait()
	always, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	_, uncordoned := s.kubectl(always, "uncordon", node)
	if err := errors.Join(drained, uncordoned, logFailed); err != nil {
		return "", err
	}
	for _, line := range []string{"the sidecar is there at the start", "the sidecar is there at the end"} {
		if !strings.Contains(log, line) {
			return "", fmt.Errorf("%s does not say %q:\n%s", one.Metadata.Name, line, log)
		}
	}
	_, err = s.shops(ctx)
	return "", err
}

// restart makes all pods of the app anew.
func (s *scene) restart(ctx context.Context) ([]pod, error) {
	if _, err := s.app(ctx, "rollout", "restart", "deployment/shop"); err != nil {
		return nil, err
	}
	return s.shops(ctx)
}

func rollout(ctx context.Context, s *scene) (string, error) {
	load := s.proxy.startLoad(ctx, "services/shop")
	_, err := s.restart(ctx)
	found, failed := load.finish()
	return found, errors.Join(err, failed)
}

// killSidecar does to a sidecar what the OOM killer does.
func killSidecar(ctx context.Context, s *scene) (string, error) {
	shops, err := s.shops(ctx)
	if err != nil {
		return "", err
	}
	load := s.proxy.startLoad(ctx, places(shops)...)
	err = s.kill(ctx, appSpace, shops[0].Metadata.Name, "nearside")
	var after []pod
	if err == nil {
		err = until(ctx, func() error {
			if after, err = s.pods(ctx, "app=shop"); err != nil {
				return err
			}
			if c := after[0].container("nearside"); c.RestartCount != 1 || !c.Ready {
				return fmt.Errorf("the sidecar has restarted %d times; it is ready: %t", c.RestartCount, c.Ready)
			}
			return nil
		})
	}
	if err == nil {
		err = s.untilCached(ctx, shops[0])
	}
	found, failed := load.finish()
	if err := errors.Join(err, failed); err != nil {
		return "", err
	}
	was := strings.Replace(identity(shops), "sidecar 0", "sidecar 1", 1)
	if is := identity(after); is != was {
		return "", fmt.Errorf("more than the sidecar has restarted: before\n%s\nafter\n%s", identity(shops), is)
	}
	return found, nil
}

// untilCached waits until a pod's reads come from its sidecar.
func (s *scene) untilCached(ctx context.Context, of pod) error {
	return until(ctx, func() error {
		_, from, err := s.proxy.shop(ctx, of.place(), http.MethodGet, "load-0", "")
		if err == nil && from != "cache" {
			err = fmt.Errorf("%s answers from the %s", of.Metadata.Name, from)
		}
		return err
	})
}

func completeJob(ctx context.Context, s *scene) (string, error) {
	spec := manifest("job", true, "job")
	_, spec, _ = strings.Cut(spec, "metadata:\n")
	job := "apiVersion: batch/v1\nkind: Job\nmetadata: {name: job}\nspec:\n  backoffLimit: 0\n  template:\n    metadata:\n" +
		indent(strings.Replace(spec, "  name: job\n", "", 1))
	if err := s.apply(ctx, appSpace, job); err != nil {
		return "", err
	}
	if _, err := s.app(ctx, "wait", "--for=condition=complete", "--timeout=60s", "job/job"); err != nil {
		return "", err
	}
	pods, err := s.pods(ctx, "job-name=job,nearside.dev/injected=true")
	if err == nil && len(pods) != 1 {
		err = fmt.Errorf("%d injected pods of the Job", len(pods))
	}
	_, failed := s.app(ctx, "delete", "job", "job")
	return "", errors.Join(err, failed)
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ")
}
