package check

import (
	"context"
	"fmt"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	selectStream = "app.kubernetes.io/part-of=nearside,app.kubernetes.io/component=stream"
	selectNATS   = "app.kubernetes.io/part-of=nearside,app.kubernetes.io/component=nats"
)

// stream looks at what the release runs for the stream: the Job that makes it, and
// the bundled NATS. Both may be absent.
func (t Target) stream(ctx context.Context) Finding {
	job, err := t.newestJob(ctx)
	var servers, makers []corev1.Pod
	if err == nil {
		servers, err = t.pods(ctx, selectNATS)
	}
	if err == nil && job != nil {
		makers, err = t.pods(ctx, selectStream+","+batchv1.JobNameLabel+"="+job.Name)
	}
	switch {
	case apierrors.IsForbidden(err):
		return skipped("%v", err)
	case err != nil:
		return failed("%v", err)
	case job == nil && len(servers) == 0:
		return skipped("in namespace %s no Job makes a stream, and no NATS is bundled", t.Namespace)
	}
	var bad []string
	for _, p := range servers {
		if alive(&p) && !isReady(&p) {
			bad = append(bad, nameOf(&p)+" is not ready"+trouble(&p))
		}
	}
	if job == nil {
		return streamFinding(bad, "the bundled NATS runs; no Job makes the stream")
	}
	if hasCondition(job, batchv1.JobComplete) {
		return streamFinding(bad, fmt.Sprintf("Job %s is complete", job.Name))
	}
	name := "Job " + job.Namespace + "/" + job.Name
	if hasCondition(job, batchv1.JobFailed) {
		bad = append(bad, name+" has failed, and gave up")
	}
	for _, p := range makers {
		if why := trouble(&p); why != "" {
			bad = append(bad, name+" fails"+why)
		}
	}
	if len(bad) == 0 {
		return warning("%s has not ended yet", name)
	}
	return streamFinding(bad, "")
}

func streamFinding(bad []string, good string) Finding {
	if len(bad) > 0 {
		return failed("what the stream needs is not in order").with(bad)
	}
	return ok("%s", good)
}

// newestJob returns the one of the latest revision, nil if there is none.
func (t Target) newestJob(ctx context.Context) (newest *batchv1.Job, err error) {
	var list batchv1.JobList
	err = t.Cluster.List(ctx, &list, t.Namespace, metav1.ListOptions{LabelSelector: selectStream}, func() {
		for i, j := range list.Items {
			if newest == nil || newest.CreationTimestamp.Before(&j.CreationTimestamp) {
				newest = &list.Items[i]
			}
		}
	})
	return newest, err
}

func (t Target) pods(ctx context.Context, selector string) (all []corev1.Pod, err error) {
	var list corev1.PodList
	err = t.Cluster.List(ctx, &list, t.Namespace, metav1.ListOptions{LabelSelector: selector}, func() { all = append(all, list.Items...) })
	return all, err
}

func hasCondition(j *batchv1.Job, which batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == which && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

// trouble is what keeps a pod's containers from running or ending well, with the
// last line that one of them wrote; "" if nothing does.
func trouble(p *corev1.Pod) string {
	for _, s := range p.Status.ContainerStatuses {
		ended := s.State.Terminated
		if ended == nil {
			ended = s.LastTerminationState.Terminated
		}
		switch w := s.State.Waiting; {
		case ended != nil && ended.ExitCode != 0:
			return fmt.Sprintf(": exit code %d%s", ended.ExitCode, lastLine(ended.Message))
		case w != nil && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing":
			return ": " + strings.TrimSpace(w.Reason+" "+w.Message)
		}
	}
	return ""
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return ": " + last
	}
	return ""
}
