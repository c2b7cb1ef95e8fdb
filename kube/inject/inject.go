// Package inject says what it is to give a pod its sidecar: which container,
// volumes, mounts and variables it gets, and what its annotations may ask for. It
// is pure. The webhook, the text filter, the library chart and the admission
// policy all do what this package does; a test holds them to it.
package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Names of what is injected.
const (
	// ContainerName is the sidecar's.
	ContainerName = "nearside"
	// SocketDir is where every container of the pod finds the socket.
	SocketDir = "/run/nearside"
	// Socket is the socket's path.
	Socket = SocketDir + "/nearside.sock"
	// RedisURL is the socket as Redis clients write it.
	RedisURL = "unix://" + Socket
	// AdminPortName is the name of the container's port with the metrics.
	AdminPortName = "nearside-admin"
)

// Error is why a pod cannot have a sidecar: every reason, each saying what was
// found, and what is allowed.
type Error struct {
	Faults []string
}

// Error implements error. It is one line.
func (e *Error) Error() string { return strings.Join(e.Faults, "; ") }

// Inject gives a pod its sidecar, in place, and reports whether it changed the
// pod. A pod that has one already stays as it is, so that it may be called again.
// The error is an *Error; the pod is then as it was. Whether the pod asks for a
// sidecar at all, Wanted tells.
func (s Settings) Inject(pod *corev1.Pod) (changed bool, err error) {
	if isInjected(pod) {
		return false, nil
	}
	values, faults := s.valuesOf(pod)
	faults = append(faults, conflicts(pod)...)
	native := values["mode"] == ModeNative
	if restart := pod.Spec.RestartPolicy; !native && restart != "" && restart != corev1.RestartPolicyAlways {
		faults = append(faults, fmt.Sprintf("restartPolicy is %q: in mode classic the sidecar would keep the pod from completing; want mode native, which needs Kubernetes 1.29", restart))
	}
	if len(faults) > 0 {
		return false, &Error{Faults: faults}
	}
	s.inject(pod, values)
	return true, nil
}

// isInjected reports whether a pod has its sidecar. The status alone may have
// been copied from elsewhere.
func isInjected(pod *corev1.Pod) bool {
	_, told := pod.Annotations[AnnotationStatus]
	return told && slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), isSidecar)
}

func isSidecar(c corev1.Container) bool { return c.Name == ContainerName }

// conflicts tells what of the pod's own stands where the injection wants to put
// something.
func conflicts(pod *corev1.Pod) []string {
	var faults []string
	all := slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
	if slices.ContainsFunc(all, isSidecar) {
		faults = append(faults, fmt.Sprintf("the pod has a container %q of its own: want another name, or no injection", ContainerName))
	}
	for _, v := range pod.Spec.Volumes {
		if slices.Contains(volumeNames, v.Name) {
			faults = append(faults, fmt.Sprintf("the pod has a volume %q of its own: want another name", v.Name))
		}
	}
	for _, c := range all {
		if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == SocketDir }) {
			faults = append(faults, fmt.Sprintf("container %q has a mount of its own at %s: want another place", c.Name, SocketDir))
		}
	}
	return faults
}

func (s Settings) inject(pod *corev1.Pod, values map[string]string) {
	native := values["mode"] == ModeNative
	tell := func(c *corev1.Container) {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: volumeSocket, MountPath: SocketDir, ReadOnly: true})
		if values["app-env"] == "true" {
			c.Env = withEnv(withEnv(c.Env, "NEARSIDE_SOCKET", Socket), "REDIS_URL", RedisURL)
		}
	}
	for i := range pod.Spec.Containers {
		tell(&pod.Spec.Containers[i])
	}
	sidecar := s.container(values, pod.Spec.HostNetwork)
	if native {
		for i := range pod.Spec.InitContainers {
			tell(&pod.Spec.InitContainers[i])
		}
		// First, so that the app's own init containers can use it.
		pod.Spec.InitContainers = slices.Insert(pod.Spec.InitContainers, 0, sidecar)
	} else {
		// First, for the kubelet waits for its postStart before it starts the next.
		// Init containers end before it starts: they are told of no socket.
		pod.Spec.Containers = slices.Insert(pod.Spec.Containers, 0, sidecar)
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, s.volumes(values)...)
	pod.Annotations = with(pod.Annotations, AnnotationStatus, s.status(values["mode"]))
	pod.Labels = with(pod.Labels, LabelInjected, "true")
}

// status is what the injection tells of itself.
func (s Settings) status(mode string) string {
	return fmt.Sprintf(`{"version":%q,"container":%q,"mode":%q}`, s.version(), ContainerName, mode)
}

// withEnv adds a variable unless there is one of the name.
func withEnv(env []corev1.EnvVar, name, value string) []corev1.EnvVar {
	if slices.ContainsFunc(env, func(v corev1.EnvVar) bool { return v.Name == name }) {
		return env
	}
	return append(env, corev1.EnvVar{Name: name, Value: value})
}

func with(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = make(map[string]string)
	}
	m[key] = value
	return m
}
