package check

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nearside-cache/nearside/kube/inject"
)

const (
	// asked is how many sidecars are asked at once.
	asked = 16
	// quoted is of how many sidecars that do not start the events are read.
	quoted = 10
	// behind is an age of what is applied that a sound sidecar does not have: eight
	// pulses. From bypass on, namespaces of the default class serve nothing.
	behind = 2 * time.Second
	bypass = 30 * time.Second
)

// running finds sidecars that do not run, or that ended unasked.
func (f *fleet) running(ctx context.Context) Finding {
	var down, restarted []string
	told := 0
	unstarted := func(p *corev1.Pod, why string) {
		if told++; told <= quoted {
			why += f.warned(ctx, p)
		}
		down = append(down, nameOf(p)+": "+why)
	}
	n := 0
	for _, p := range f.pods {
		if !hasSidecar(&p) || !alive(&p) {
			continue
		}
		n++
		s, known := status(&p)
		switch {
		case !known || s.State.Running == nil && s.State.Waiting == nil && s.State.Terminated == nil:
			unstarted(&p, "it has not been started: the pod is "+string(p.Status.Phase))
		case s.State.Waiting != nil:
			unstarted(&p, strings.TrimSpace("it waits: "+s.State.Waiting.Reason+" "+s.State.Waiting.Message))
		case s.State.Terminated != nil:
			down = append(down, fmt.Sprintf("%s: it ended: %s, exit code %d", nameOf(&p), s.State.Terminated.Reason, s.State.Terminated.ExitCode))
		case s.RestartCount > 0:
			restarted = append(restarted, fmt.Sprintf("%s: restarted %d times%s", nameOf(&p), s.RestartCount, lastly(s)))
		}
	}
	switch {
	case len(down) > 0:
		return failed("%d of %d sidecars do not run", len(down), n).with(slices.Concat(down, restarted))
	case len(restarted) > 0:
		return warning("%d of %d sidecars were restarted", len(restarted), n).with(restarted)
	}
	return ok("%d sidecars", n)
}

// warned quotes the newest warning among a pod's events, such as of a Secret that
// cannot be mounted; "" without one, or without the right to see it.
func (f *fleet) warned(ctx context.Context, p *corev1.Pod) string {
	var (
		list corev1.EventList
		at   metav1.Time
		says string
	)
	o := metav1.ListOptions{FieldSelector: "involvedObject.name=" + p.Name}
	err := f.Cluster.List(ctx, &list, p.Namespace, o, func() {
		for _, e := range list.Items {
			if e.InvolvedObject.Name == p.Name && e.Type == corev1.EventTypeWarning && !e.LastTimestamp.Before(&at) {
				at, says = e.LastTimestamp, "; "+e.Reason+": "+strings.TrimSpace(e.Message)
			}
		}
	})
	if err != nil {
		return "" // the hint says where to look
	}
	return says
}

func status(p *corev1.Pod) (corev1.ContainerStatus, bool) {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s.Name == inject.ContainerName {
			return s, true
		}
	}
	return corev1.ContainerStatus{}, false
}

// lastly says how the life before this one ended.
func lastly(s corev1.ContainerStatus) string {
	if t := s.LastTerminationState.Terminated; t != nil {
		return ", lastly after " + t.Reason
	}
	return ""
}

// fresh asks every sidecar that runs how it is doing.
func (f *fleet) fresh(ctx context.Context) Finding {
	var (
		mu                 sync.Mutex
		bad, odd, unasked  []string
		sound, unreachable int
	)
	note := func(p *corev1.Pod, v verdict) {
		mu.Lock()
		defer mu.Unlock()
		text := nameOf(p) + ": " + v.why
		switch v.result {
		case OK:
			sound++
		case Failed:
			bad = append(bad, text)
		case Skipped:
			unasked = append(unasked, text)
			unreachable++
		default:
			odd = append(odd, text)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(asked)
	for _, p := range f.pods {
		s, _ := status(&p)
		if hasSidecar(&p) && alive(&p) && s.State.Running != nil {
			g.Go(func() error {
				note(&p, f.ask(ctx, &p))
				return nil
			})
		}
	}
	_ = g.Wait() // none of them fails
	n := sound + unreachable + len(bad) + len(odd)
	switch {
	case len(bad) > 0:
		return failed("%d of %d sidecars do not follow their stream", len(bad), n).with(slices.Concat(bad, odd, unasked))
	case len(odd) > 0:
		return warning("%d of %d sidecars deserve a look", len(odd), n).with(slices.Concat(odd, unasked))
	case unreachable == n && n > 0:
		return skipped("none of %d sidecars could be asked", n).with(unasked)
	case unreachable > 0:
		return ok("%d sidecars, %d more could not be asked", sound, unreachable).with(unasked)
	}
	return ok("%d sidecars", sound)
}

// verdict is what one sidecar said.
type verdict struct {
	result Result
	why    string
}

func (f *fleet) ask(ctx context.Context, p *corev1.Pod) verdict {
	c, _ := sidecar(p)
	port := adminPort(c)
	if port == 0 {
		return verdict{Skipped, "it has no admin port that can be reached from outside of the pod"}
	}
	data, err := f.Cluster.Ask(ctx, types.NamespacedName{Namespace: p.Namespace, Name: p.Name}, port, "metrics")
	if apierrors.IsForbidden(err) {
		return verdict{Skipped, "no right to get pods/proxy"}
	}
	if err != nil {
		return verdict{Warning, "its metrics cannot be read: " + err.Error()}
	}
	return judgeMetrics(metrics(data))
}

// adminPort is where the sidecar serves metrics to others than itself; 0: nowhere.
func adminPort(c corev1.Container) int {
	for _, v := range c.Env {
		if v.Name != "NEARSIDE_ADMIN" {
			continue
		}
		host, text, err := net.SplitHostPort(v.Value)
		if err != nil || host == "localhost" || net.ParseIP(host).IsLoopback() {
			return 0
		}
		port, err := strconv.Atoi(text)
		if err != nil {
			return 0
		}
		return port
	}
	return 0 // the default is loopback
}

// metrics sums what a page of metrics holds under each name.
func metrics(page []byte) map[string]float64 {
	sums := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(page)); lines.Scan(); {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(line[:at], "{")
		if value, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			sums[name] += value
		}
	}
	return sums
}

func judgeMetrics(m map[string]float64) verdict {
	age, known := m["nearside_fresh_age_seconds"]
	switch {
	case !known:
		return verdict{Warning, "what answers on its admin port is no sidecar"}
	case m["nearside_connected"] == 0:
		return verdict{Failed, "it is not connected to NATS, and " + since(age)}
	case age >= bypass.Seconds():
		return verdict{Failed, "it " + since(age) + ": in bypass"}
	case age >= behind.Seconds():
		return verdict{Warning, "it " + since(age) + ": behind"}
	case m["nearside_toggles"] > 0:
		return verdict{Warning, "toggles are in force: nearside policy get"}
	}
	return verdict{OK, ""}
}

// since words the age of the last proof of freshness, in seconds.
func since(age float64) string {
	if math.IsInf(age, 1) {
		return "was never fresh since it started"
	}
	unit := time.Millisecond
	if age >= bypass.Seconds() {
		unit = time.Second
	}
	return fmt.Sprintf("is fresh as of %v ago", time.Duration(age*float64(time.Second)).Round(unit))
}
