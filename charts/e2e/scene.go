package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Where everything happens. The node's namespace may do what "restricted" forbids.
const (
	release   = "nearside"
	system    = "nearside-e2e"
	appSpace  = "nearside-e2e-app"
	nodeSpace = "nearside-e2e-node"
)

// scene is a cluster, and what steps leave to those that follow.
type scene struct {
	image, appImage, natsImage string // NAME:TAG
	binary                     string // of nearside, on this machine
	natsIP                     string
	proxy                      *proxy
}

func newScene(ctx context.Context) (*scene, error) {
	s := &scene{
		image:     cmp.Or(os.Getenv("E2E_IMAGE"), "nearside:dev"),
		appImage:  cmp.Or(os.Getenv("E2E_APP_IMAGE"), "cache-aside:dev"),
		natsImage: os.Getenv("E2E_NATS_IMAGE"),
		binary:    cmp.Or(os.Getenv("E2E_NEARSIDE"), "bin/nearside"),
	}
	// A fixed address of NATS serves on clusters without a name service, too. Those at
	// the beginning of the range are for this.
	first, err := s.kubectl(ctx, "get", "service", "kubernetes", "-n", "default", "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		return nil, err
	}
	ip := net.ParseIP(first)
	if ip == nil {
		return nil, fmt.Errorf("the Service kubernetes has the address %q", first)
	}
	ip[len(ip)-1] += 76
	s.natsIP = ip.String()
	s.proxy, err = startProxy(ctx, "Starting to serve on ", "proxy", "--port=0")
	return s, err
}

// command runs a program, with text as its input, and returns what it prints.
func command(ctx context.Context, text, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(text), &stdout, &stderr
	if err := c.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (s *scene) kubectl(ctx context.Context, args ...string) (string, error) {
	return command(ctx, "", "kubectl", args...)
}

// app is kubectl in the app's namespace.
func (s *scene) app(ctx context.Context, args ...string) (string, error) {
	return s.kubectl(ctx, append([]string{"-n", appSpace}, args...)...)
}

// apply creates or changes objects of a namespace.
func (s *scene) apply(ctx context.Context, namespace, manifest string) error {
	manifest = strings.ReplaceAll(manifest, "cache-aside:dev", s.appImage)
	_, err := command(ctx, manifest, "kubectl", "-n", namespace, "apply", "-f", "-")
	return err
}

// space makes a namespace that Pod Security holds to a level.
func (s *scene) space(ctx context.Context, name, level string) error {
	return s.apply(ctx, "default", fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {pod-security.kubernetes.io/enforce: %s}}", name, level))
}

// upgrade installs the chart or changes its values, and waits until all is ready.
func (s *scene) upgrade(ctx context.Context, more ...string) error {
	repository, tag, ok := cutImage(s.image)
	if !ok {
		return fmt.Errorf("E2E_IMAGE %q has no tag", s.image)
	}
	args := []string{
		"upgrade", "--install", release, "charts/nearside", "-n", system, "--create-namespace", "--wait", "--timeout", "2m",
		"--set", "image.repository=" + repository, "--set-string", "image.tag=" + tag,
		"--set", "sidecar.image.repository=" + repository, "--set-string", "sidecar.image.tag=" + tag,
		"--set", "nats.bundled.enabled=true", "--set", "nats.bundled.persistence.enabled=false", "--set", "nats.bundled.clusterIP=" + s.natsIP,
		"--set", "test.namespace=" + appSpace, "--set", "injection.mode=webhook",
	}
	if repository, tag, ok := cutImage(s.natsImage); ok {
		args = append(args, "--set", "nats.bundled.image.repository="+repository, "--set-string", "nats.bundled.image.tag="+tag)
	}
	_, err := command(ctx, "", "helm", append(args, more...)...)
	return err
}

func cutImage(image string) (repository, tag string, ok bool) {
	colon := strings.LastIndexByte(image, ':')
	if colon <= strings.LastIndexByte(image, '/') {
		return image, "", false
	}
	return image[:colon], image[colon+1:], true
}

// until repeats try, which costs something itself, until it is done or ctx has ended.
func until(ctx context.Context, try func() error) error {
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		err := try()
		if err == nil {
			tick.Stop()
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

// explain prints what the cluster says of a failure.
func (s *scene) explain() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, namespace := range []string{system, appSpace, nodeSpace} {
		for _, args := range [][]string{
			{"get", "pods,jobs", "-o", "wide"},
			{"get", "events", "--sort-by=.lastTimestamp"},
			{"logs", "--all-containers", "--prefix", "--tail=40", "--ignore-errors", "-l", "app.kubernetes.io/instance=" + release},
			{"logs", "--all-containers", "--prefix", "--tail=40", "--ignore-errors", "-l", "app", "--max-log-requests=30"},
		} {
			out, err := s.kubectl(ctx, append([]string{"-n", namespace}, args...)...)
			fmt.Printf("--- %s: kubectl %s\n%s\n", namespace, strings.Join(args, " "), out)
			if err != nil {
				fmt.Println(err)
			}
		}
	}
}

// clean takes away all that a run can leave. It is called after failures, so that it goes
// on after its own.
func (s *scene) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := command(ctx, "", "helm", "uninstall", release, "-n", system, "--ignore-not-found", "--wait"); err != nil {
		fmt.Println(err)
	}
	if err := s.removeSpaces(ctx); err != nil {
		fmt.Println(err)
	}
}

func (s *scene) removeSpaces(ctx context.Context) error {
	_, err := s.kubectl(ctx, "delete", "namespace", system, appSpace, nodeSpace, "--ignore-not-found")
	return err
}
