package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Remove takes from a pod what Inject gave it, in place, and reports whether it
// changed the pod. A container nearside of the pod's own stays. The variables
// NEARSIDE_SOCKET and REDIS_URL go where they name the injected socket.
func (s Settings) Remove(pod *corev1.Pod) (changed bool) {
	if _, told := pod.Annotations[AnnotationStatus]; !told {
		return false
	}
	delete(pod.Annotations, AnnotationStatus)
	delete(pod.Labels, LabelInjected)
	spec := &pod.Spec
	spec.InitContainers = slices.DeleteFunc(spec.InitContainers, isSidecar)
	spec.Containers = slices.DeleteFunc(spec.Containers, isSidecar)
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return slices.Contains(volumeNames, v.Name) })
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			untell(&list[i])
		}
	}
	return true
}

// untell takes from an app's container what it was told of the socket.
func untell(c *corev1.Container) {
	c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volumeSocket })
	c.Env = slices.DeleteFunc(c.Env, func(v corev1.EnvVar) bool {
		return v.Name == "NEARSIDE_SOCKET" && v.Value == Socket || v.Name == "REDIS_URL" && v.Value == RedisURL
	})
}
