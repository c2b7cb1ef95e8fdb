package check

import (
	"context"
	"regexp"
	"strconv"

	"github.com/nearside-cache/nearside/kube/cluster"
)

// Target is an installation.
type Target struct {
	Cluster *cluster.Client
	// Namespace is where nearside is installed, or is to be.
	Namespace string
	// Pods is the namespace whose pods are looked at; empty: all.
	Pods string
	// Trial is the namespace in which a pod is tried.
	Trial string
	// Version is this program's own; empty or "dev": a build of no version.
	Version string
}

// Groups of checks.
const (
	groupKubernetes = "kubernetes"
	groupInjector   = "injector"
	groupNATS       = "nats"
	groupPods       = "pods"
	groupSidecars   = "sidecars"
)

// Oldest minor versions of Kubernetes 1 that are good enough: for injecting only
// into pods that ask (matchConditions), and for native sidecars.
const (
	oldestMinor = 28
	nativeMinor = 29
)

// Pre returns the checks before an installation.
func Pre(t Target) []Check {
	return []Check{
		t.version(),
		{
			ID: "rights-to-install", Group: groupKubernetes, Name: "this user may install the chart",
			Hint:  "have somebody install it who is allowed to, or be given the rights",
			Needs: []string{idVersion},
			Ask: func(ctx context.Context) Finding {
				return t.rights(ctx, Failed, toInstall(t.Namespace))
			},
		},
		{
			ID: "not-installed", Group: groupKubernetes, Name: "nearside is not installed yet",
			Hint:  "upgrade the release that is there (helm list -A), instead of installing another one",
			Needs: []string{idVersion},
			Ask:   t.notInstalled,
		},
	}
}

const idVersion = "kubernetes-version"

// version is what all other checks of a cluster need.
func (t Target) version() Check {
	return Check{
		ID: idVersion, Group: groupKubernetes, Name: "the API server answers and is new enough",
		Hint: "look at --kubeconfig and --context; nearside needs Kubernetes 1.28, and 1.29 for native sidecars",
		Ask: func(ctx context.Context) Finding {
			v, err := t.Cluster.Version(ctx)
			if err != nil {
				return failed("%v", err)
			}
			return judge(v.GitVersion)
		},
	}
}

var minorOf = regexp.MustCompile(`^v1\.([0-9]+)`)

func judge(version string) Finding {
	m := minorOf.FindStringSubmatch(version)
	if m == nil {
		return warning("%q is no version that is known", version)
	}
	switch minor, err := strconv.Atoi(m[1]); {
	case err != nil || minor < oldestMinor:
		return failed("%s is too old", version)
	case minor < nativeMinor:
		return warning("%s has no native sidecars: mode classic is used, which is not for Jobs", version)
	}
	return ok("%s", version)
}

// toInstall are the rights that installing the chart needs.
func toInstall(namespace string) []cluster.Right {
	const rbac, admission = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
	return []cluster.Right{
		{Verb: "create", Resource: "serviceaccounts", Namespace: namespace},
		{Verb: "create", Resource: "services", Namespace: namespace},
		{Verb: "create", Resource: "configmaps", Namespace: namespace},
		{Verb: "create", Resource: "secrets", Namespace: namespace},
		{Verb: "create", Group: "apps", Resource: "deployments", Namespace: namespace},
		{Verb: "create", Group: "batch", Resource: "jobs", Namespace: namespace},
		{Verb: "create", Group: "policy", Resource: "poddisruptionbudgets", Namespace: namespace},
		{Verb: "create", Group: rbac, Resource: "roles", Namespace: namespace},
		{Verb: "create", Group: rbac, Resource: "rolebindings", Namespace: namespace},
		{Verb: "create", Group: rbac, Resource: "clusterroles"},
		{Verb: "create", Group: rbac, Resource: "clusterrolebindings"},
		{Verb: "create", Group: admission, Resource: "mutatingwebhookconfigurations"},
		{Verb: "create", Group: admission, Resource: "validatingadmissionpolicies"},
		{Verb: "create", Group: admission, Resource: "validatingadmissionpolicybindings"},
	}
}

// toCheck are the rights that the checks need.
func (t Target) toCheck() []cluster.Right {
	return []cluster.Right{
		{Verb: "list", Resource: "pods", Namespace: t.Pods},
		{Verb: "get", Resource: "pods", Subresource: "proxy", Namespace: t.Pods},
		{Verb: "list", Group: "apps", Resource: "deployments", Namespace: t.Pods},
		{Verb: "list", Group: "apps", Resource: "statefulsets", Namespace: t.Pods},
		{Verb: "list", Group: "apps", Resource: "daemonsets", Namespace: t.Pods},
		{Verb: "list", Group: "batch", Resource: "jobs", Namespace: t.Pods},
		{Verb: "list", Group: "batch", Resource: "cronjobs", Namespace: t.Pods},
	}
}

// rightsToCheck says which checks will be skipped.
func (t Target) rightsToCheck() Check {
	return Check{
		ID: "rights-to-check", Group: groupKubernetes, Name: "this user may look at everything",
		Hint:  "checks without their rights are skipped: ask somebody who has them, or give --pods-in a namespace of your own",
		Needs: []string{idVersion},
		Ask:   func(ctx context.Context) Finding { return t.rights(ctx, Warning, t.toCheck()) },
	}
}

func (t Target) rights(ctx context.Context, otherwise Result, wanted []cluster.Right) Finding {
	var missing []string
	for _, r := range wanted {
		can, err := t.Cluster.Can(ctx, r)
		if err != nil {
			return skipped("%v", err)
		}
		if !can {
			missing = append(missing, "no right to "+r.String())
		}
	}
	if len(missing) > 0 {
		return Finding{Result: otherwise, Summary: "some rights are missing"}.with(missing)
	}
	return ok("all rights are there")
}

func (t Target) notInstalled(ctx context.Context) Finding {
	i, err := t.find(ctx)
	switch {
	case err != nil:
		return skipped("%v", err)
	case i.kind == "":
		return ok("nothing of it is there")
	}
	return warning("the %s %s is there already", i.kind, i.name)
}
