package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// pod is what steps look at of a pod.
type pod struct {
	Metadata struct {
		Name, UID         string
		DeletionTimestamp string
		Labels            map[string]string
	}
	Spec   map[string]any
	Status struct {
		Phase, PodIP                             string
		InitContainerStatuses, ContainerStatuses []containerStatus
	}
}

type containerStatus struct {
	Name         string
	RestartCount int
	Ready        bool
	State        struct {
		Running struct{ StartedAt time.Time }
	}
}

// pods returns those of the app's namespace with a label that are not being deleted.
func (s *scene) pods(ctx context.Context, selector string) ([]pod, error) {
	out, err := s.app(ctx, "get", "pods", "-l", selector, "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []pod }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("pods of %s: %w", selector, err)
	}
	var live []pod
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == "" {
			live = append(live, p)
		}
	}
	return live, nil
}

// shops returns the three replicas of the app, each with its sidecar.
func (s *scene) shops(ctx context.Context) ([]pod, error) {
	if _, err := s.app(ctx, "rollout", "status", "deployment/shop", "--timeout=2m"); err != nil {
		return nil, err
	}
	shops, err := s.pods(ctx, "app=shop")
	if err != nil {
		return nil, err
	}
	if len(shops) != 3 {
		return nil, fmt.Errorf("%d replicas, not 3", len(shops))
	}
	for _, p := range shops {
		if p.Metadata.Labels["nearside.dev/injected"] != "true" || p.container("nearside").Name == "" {
			return nil, fmt.Errorf("%s has no sidecar", p.Metadata.Name)
		}
	}
	return shops, nil
}

func (p pod) container(name string) containerStatus {
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if c.Name == name {
			return c
		}
	}
	return containerStatus{}
}

func (p pod) place() string { return "pods/" + p.Metadata.Name }

func places(pods []pod) []string {
	var all []string
	for _, p := range pods {
		all = append(all, p.place())
	}
	return all
}

// identity says of pods who they are and how often their containers have restarted.
func identity(pods []pod) string {
	var all []string
	for _, p := range pods {
		all = append(all, fmt.Sprintf("%s sidecar %d app %d", p.Metadata.UID,
			p.container("nearside").RestartCount, p.container("shop").RestartCount))
	}
	return strings.Join(all, "\n")
}

// manifest is a pod of the app's image that runs one command. It asks for a sidecar, or
// not.
func manifest(name string, inject bool, args ...string) string {
	words, err := json.Marshal(args)
	if err != nil {
		panic(err) // of strings
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: %s
  labels: {app: %[1]s}
  annotations: {nearside.dev/inject: "%[2]t", nearside.dev/app-env: "true"}
spec:
  %[3]s
`, name, inject, podSpec(string(words), `runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, seccompProfile: {type: RuntimeDefault}`,
		`allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}`, "false"))
}

func podSpec(args, podSecurity, containerSecurity, hostPID string) string {
	return fmt.Sprintf(`restartPolicy: Never
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 5
  hostPID: %s
  securityContext: {%s}
  containers:
    - name: main
      image: cache-aside:dev
      imagePullPolicy: IfNotPresent
      args: %s
      resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 64Mi}}
      securityContext: {%s}`, hostPID, podSecurity, args, containerSecurity)
}

// runPod runs a pod to its end, removes it, and returns what it has printed.
func (s *scene) runPod(ctx context.Context, namespace, name, manifest string) (string, error) {
	if err := s.apply(ctx, namespace, manifest); err != nil {
		return "", err
	}
	err := until(ctx, func() error {
		phase, err := s.kubectl(ctx, "-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.phase}")
		if err == nil && phase != "Succeeded" && phase != "Failed" {
			err = fmt.Errorf("pod %s is %s", name, phase)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	out, err := s.kubectl(ctx, "-n", namespace, "logs", name)
	if err != nil {
		return "", err
	}
	phase, err := s.kubectl(ctx, "-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.phase}")
	if err == nil && phase != "Succeeded" {
		err = errors.New(out)
	}
	_, failed := s.kubectl(ctx, "-n", namespace, "delete", "pod", name)
	return out, errors.Join(err, failed)
}

// kill ends a process of a pod as the OOM killer would, from a pod on the same node.
func (s *scene) kill(ctx context.Context, namespace, name, process string) error {
	if err := s.space(ctx, nodeSpace, "privileged"); err != nil {
		return err
	}
	node, err := s.kubectl(ctx, "-n", namespace, "get", "pod", name, "-o", "jsonpath={.spec.nodeName}")
	if err != nil {
		return err
	}
	spec := podSpec(fmt.Sprintf("[kill, %s, %s]", name, process), "runAsUser: 0", "privileged: true", "true")
	_, err = s.runPod(ctx, nodeSpace, "kill", "apiVersion: v1\nkind: Pod\nmetadata: {name: kill, labels: {app: kill}}\nspec:\n  nodeName: "+node+"\n  "+spec)
	return err
}
