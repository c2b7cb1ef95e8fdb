package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

func checkBefore(ctx context.Context, s *scene) (string, error) {
	out, err := command(ctx, "", s.binary, "check", "--pre")
	return lastLine(out), err
}

func lastLine(text string) string { return text[strings.LastIndexByte(text, '\n')+1:] }

func install(ctx context.Context, s *scene) (string, error) {
	start := time.Now()
	if err := s.space(ctx, appSpace, "restricted"); err != nil {
		return "", err
	}
	if err := s.upgrade(ctx); err != nil {
		return "", err
	}
	installed := time.Since(start)
	if err := s.helmTest(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("installed in %.1f s, the test has passed after %.1f s", installed.Seconds(), time.Since(start).Seconds()), nil
}

func (s *scene) helmTest(ctx context.Context) error {
	_, err := command(ctx, "", "helm", "test", release, "-n", system, "--timeout", "1m")
	return err
}

func checkAfter(ctx context.Context, s *scene) (string, error) {
	nats, err := startProxy(ctx, "Forwarding from ", "-n", system, "port-forward", "--address", "127.0.0.1", "service/"+release+"-nats", ":4222")
	if err != nil {
		return "", err
	}
	defer nats.close()
	out, err := command(ctx, "", s.binary, "check", "--nats", "nats://"+nats.address)
	found := lastLine(out)
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "! ") {
			found += "\n" + strings.TrimSpace(line)
		}
	}
	return found, err
}

// annotated is a pod that asks, sent to be tried and not kept.
func (s *scene) annotated(ctx context.Context) (injected bool, err error) {
	text := strings.ReplaceAll(manifest("tried", true, "job"), "cache-aside:dev", s.appImage)
	out, err := command(ctx, text, "kubectl", "-n", appSpace, "create", "--dry-run=server", "-o", "yaml", "-f", "-")
	return strings.Contains(out, "nearside.dev/status"), err
}

// admissions tries pods that ask, one after the other, until stopped: it counts them,
// those that were let in without a sidecar, and those that were refused.
func (s *scene) admissions(ctx context.Context) (stop func() (tried, bare int, refused []error)) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var tried, bare int
	var refused []error
	go func() {
		defer close(done)
		for {
			injected, err := s.annotated(ctx)
			if ctx.Err() != nil {
				return
			}
			tried++
			switch {
			case err != nil:
				refused = append(refused, err)
			case !injected:
				bare++
			}
		}
	}()
	return func() (int, int, []error) { cancel(); <-done; return tried, bare, refused }
}

func (s *scene) certificates(ctx context.Context) (string, error) {
	secret, err := s.kubectl(ctx, "-n", system, "get", "secret", release+"-injector-tls", "-o", "jsonpath={.data}")
	if err != nil {
		return "", err
	}
	bundle, err := s.kubectl(ctx, "get", "mutatingwebhookconfigurations", "-l", "app.kubernetes.io/instance="+release, "-o", "jsonpath={.items[*].webhooks[*].clientConfig.caBundle}")
	if err == nil && bundle == "" {
		err = errors.New("the webhook has no caBundle")
	}
	return secret + bundle, err
}

// upgrade rolls the injector out anew, while the app is read and pods are created.
func upgrade(ctx context.Context, s *scene) (string, error) {
	before, err := s.shops(ctx)
	if err != nil {
		return "", err
	}
	certificates, err := s.certificates(ctx)
	if err != nil {
		return "", err
	}
	load := s.proxy.startLoad(ctx, places(before)...)
	stop := s.admissions(ctx)
	failed := s.upgrade(ctx, "--set", "injector.podAnnotations.upgraded=yes")
	tried, bare, refused := stop()
	found, err := load.finish()
	if err := errors.Join(append(refused, err, failed)...); err != nil {
		return "", err
	}
	if bare > 0 {
		return "", fmt.Errorf("%d of %d pods were let in without a sidecar", bare, tried)
	}
	after, err := s.shops(ctx)
	if err != nil {
		return "", err
	}
	if identity(before) != identity(after) {
		return "", fmt.Errorf("the upgrade has touched pods: before\n%s\nafter\n%s", identity(before), identity(after))
	}
	if now, err := s.certificates(ctx); err != nil || now != certificates {
		return "", errors.Join(errors.New("the certificate or the caBundle is another"), err)
	}
	return fmt.Sprintf("%s\n%d pods created meanwhile, all injected; certificates and pods are the same", found, tried), nil
}

// policy changes from the webhook to a MutatingAdmissionPolicy, with pods running.
func policy(ctx context.Context, s *scene) (string, error) {
	out, err := s.kubectl(ctx, "get", "--raw", "/apis/admissionregistration.k8s.io/v1")
	if err != nil {
		return "", err
	}
	if !strings.Contains(out, `"mutatingadmissionpolicies"`) {
		return "left out: this cluster has no MutatingAdmissionPolicy", nil
	}
	before, err := s.shops(ctx)
	if err != nil {
		return "", err
	}
	stop := s.admissions(ctx)
	failed := s.upgrade(ctx, "--set", "injection.mode=policy")
	err = until(ctx, func() error {
		injected, err := s.annotated(ctx)
		if err == nil && !injected {
			err = errors.New("the policy does not inject")
		}
		return err
	})
	tried, bare, refused := stop()
	if err := errors.Join(failed, err); err != nil {
		return "", err
	}
	found := fmt.Sprintf("%d pods created during the change, %d without a sidecar, %d refused", tried, bare, len(refused))
	after, err := s.restart(ctx)
	if err != nil {
		return "", err
	}
	if was, is := specification(before[0]), specification(after[0]); was != is {
		return "", fmt.Errorf("webhook and policy differ:\n%s\n%s", was, is)
	}
	lag, err := s.lag(ctx, after, 50)
	if err != nil {
		return "", err
	}
	if err := s.helmTest(ctx); err != nil {
		return "", err
	}
	_, err = completeJob(ctx, s)
	return found + "\n" + lag, err
}

// specification is what was made of a pod, but for the node that it came to.
func specification(p pod) string {
	delete(p.Spec, "nodeName")
	data, err := json.Marshal(p.Spec)
	if err != nil {
		panic(err) // of what was JSON
	}
	return string(data)
}

// uninstall follows docs/kubernetes/install.md, while the app is read.
func uninstall(ctx context.Context, s *scene) (string, error) {
	before, err := s.shops(ctx)
	if err != nil {
		return "", err
	}
	load := s.proxy.startLoad(ctx, places(before)...)
	_, failed := command(ctx, "", "helm", "uninstall", release, "-n", system, "--wait")
	_, alsoFailed := s.kubectl(ctx, "-n", system, "delete", "secret", release+"-injector-tls")
	if err := s.put(ctx, before, "uninstalled"); err == nil {
		return "", errors.New("an invalidation was acknowledged, and there is no NATS")
	}
	after, err := s.shops(ctx)
	found, loadFailed := load.finish()
	if err := errors.Join(failed, alsoFailed, err, loadFailed); err != nil {
		return "", err
	}
	if identity(before) != identity(after) {
		return "", fmt.Errorf("pods have not gone on: before\n%s\nafter\n%s", identity(before), identity(after))
	}
	if err := s.nothingLeft(ctx); err != nil {
		return "", err
	}
	return found, s.removeSpaces(ctx)
}

// nothingLeft looks at every kind that the cluster has.
func (s *scene) nothingLeft(ctx context.Context) error {
	kinds, err := s.kubectl(ctx, "api-resources", "--verbs=list", "-o", "name")
	if err != nil {
		return err
	}
	names := slices.DeleteFunc(strings.Fields(kinds), func(kind string) bool {
		return strings.HasPrefix(kind, "events") || strings.HasPrefix(kind, "componentstatuses")
	})
	left, err := s.kubectl(ctx, "get", strings.Join(names, ","), "-A", "-l", "app.kubernetes.io/instance="+release, "-o", "name", "--ignore-not-found")
	if err == nil && left != "" {
		err = fmt.Errorf("left behind: %s", left)
	}
	if err != nil {
		return err
	}
	left, err = s.kubectl(ctx, "-n", system, "get", "secrets,configmaps,pods", "-o", "name")
	for _, name := range strings.Fields(left) {
		if name != "configmap/kube-root-ca.crt" {
			err = errors.Join(err, fmt.Errorf("left behind in %s: %s", system, name))
		}
	}
	return err
}

// example is the app of the getting-started page.
func example() (string, error) {
	data, err := os.ReadFile("docs/examples/cache-aside/kubernetes.yaml")
	return string(data), err
}
