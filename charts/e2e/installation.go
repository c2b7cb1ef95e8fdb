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

// helmTest runs it again while the webhook is refused: kube-proxy takes a second to know
// injectors that are ready, as the page of the installation says.
func (s *scene) helmTest(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var failed error
	err := until(soon, func() error {
		_, err := command(ctx, "", "helm", "test", release, "-n", system, "--timeout", "1m")
		if err != nil && strings.Contains(err.Error(), "failed calling webhook") {
			return err
		}
		failed = err
		return nil
	})
	return errors.Join(err, failed)
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
	tried := stop()
	found, err := load.finish()
	if err := errors.Join(append(tried.refused, err, failed, tried.allInjected())...); err != nil {
		return "", err
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
	return fmt.Sprintf("%s\n%d pods created meanwhile, all injected; certificates and pods are the same", found, tried.count), nil
}

// policy changes from the webhook to a MutatingAdmissionPolicy and back, with pods
// running and others being created.
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
	found, err := s.changeMode(ctx, "policy")
	if err != nil {
		return "", err
	}
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
	if _, err = completeJob(ctx, s); err != nil {
		return "", err
	}
	back, err := s.changeMode(ctx, "webhook")
	return found + "\n" + lag + "\n" + back, err
}

// changeMode upgrades to another injection.mode while pods that ask are created: none may
// be let in without a sidecar, and none refused once the upgrade is through.
func (s *scene) changeMode(ctx context.Context, mode string) (found string, err error) {
	stop := s.admissions(ctx)
	failed := s.upgrade(ctx, "--set", "injection.mode="+mode)
	settled := until(ctx, func() error {
		injected, err := s.annotated(ctx)
		if err == nil && !injected {
			err = errors.New("nothing injects")
		}
		return err
	})
	tried := stop()
	for _, err := range tried.refused {
		if !strings.Contains(err.Error(), "nearside.dev") { // by the webhook, or the guard
			failed = errors.Join(failed, err)
		}
	}
	found = fmt.Sprintf("to %s: %d pods created meanwhile, %d refused for a moment, none without a sidecar", mode, tried.count, len(tried.refused))
	return found, errors.Join(failed, settled, tried.allInjected())
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
	// Helm does not wait for the injector's pods, which serve on for some seconds.
	if err := until(ctx, func() error { return s.nothingLeft(ctx) }); err != nil {
		return "", err
	}
	err = until(ctx, func() error { // an API server takes a second to forget
		injected, err := s.annotated(ctx)
		if injected {
			err = errors.New("something injects still")
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("a pod that asks for a sidecar is not let in without one: %w", err)
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
