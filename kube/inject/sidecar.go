package inject

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Names of the volumes that are injected.
const (
	volumeSocket = "nearside-socket"
	volumeToken  = "nearside-no-token"
	volumeNATS   = "nearside-nats"
	volumeConfig = "nearside-config"
)

var volumeNames = []string{volumeSocket, volumeToken, volumeNATS, volumeConfig}

// Folders and files in the sidecar.
const (
	tokenDir   = "/var/run/secrets/kubernetes.io/serviceaccount"
	natsDir    = "/etc/nearside-nats"
	configDir  = "/etc/nearside"
	configFile = "nearside.yaml"
)

// userID is the sidecar's user and group, unlike any app's: that of the image.
const userID = 65532

// container returns the sidecar of a pod for which values hold.
func (s Settings) container(values map[string]string, hostNetwork bool) corev1.Container {
	memory := resource.MustParse(values["memory"])
	c := corev1.Container{
		Name:            ContainerName,
		Image:           values["image"],
		ImagePullPolicy: s.Image.PullPolicy,
		Args:            []string{"serve"},
		Env:             s.environment(values),
		Resources: corev1.ResourceRequirements{
			// Requests on every container, or autoscaling by CPU of the pod breaks; a
			// limit of memory equal to the request, so that a node that runs out of it
			// does not kill the sidecar first.
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(values["cpu"]), corev1.ResourceMemory: memory},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: memory},
		},
		VolumeMounts:             s.mounts(values),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          restricted(),
	}
	if port, err := strconv.ParseInt(values["admin-port"], 10, 32); err == nil && port > 0 && !hostNetwork {
		c.Ports = []corev1.ContainerPort{{Name: AdminPortName, ContainerPort: int32(port), Protocol: corev1.ProtocolTCP}}
	}
	if values["mode"] == ModeNative {
		c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		// By exec and not by port: with hostNetwork there is none. It has no other
		// probe: one for readiness would count for the pod, and a sidecar without NATS
		// must not make the app unready.
		c.StartupProbe = &corev1.Probe{
			ProbeHandler:     corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"nearside", "ready"}}},
			PeriodSeconds:    1,
			TimeoutSeconds:   5,
			FailureThreshold: 120,
		}
	} else {
		c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{
			Exec: &corev1.ExecAction{Command: []string{"nearside", "ready", "--wait", "2m"}},
		}}
	}
	return c
}

// restricted is what the restricted pod security standard demands.
func restricted() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		RunAsUser:                new(int64(userID)),
		RunAsGroup:               new(int64(userID)),
		RunAsNonRoot:             new(true),
		ReadOnlyRootFilesystem:   new(true),
		AllowPrivilegeEscalation: new(false),
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// environment returns the sidecar's settings as variables, without what the
// installation adds.
func (s Settings) environment(values map[string]string) []corev1.EnvVar {
	var env []corev1.EnvVar
	set := func(name, value string) { env = append(env, corev1.EnvVar{Name: "NEARSIDE_" + name, Value: value}) }
	set("SOCKET", Socket)
	set("SOCKET_MODE", values["socket-mode"])
	set("DOMAIN", values["domain"])
	set("LOG_LEVEL", values["log-level"])
	set("LOG_FORMAT", s.LogFormat)
	if port := values["admin-port"]; port == "0" {
		set("ADMIN", "")
	} else {
		set("ADMIN", ":"+port)
	}
	set("NATS", s.NATS.URL)
	if s.NATS.JetStreamDomain != "" {
		set("NATS_DOMAIN", s.NATS.JetStreamDomain)
	}
	for _, f := range s.NATS.files() {
		set(f.variable, natsDir+"/"+f.name)
	}
	env = append(env, s.ExtraEnv...)
	if values["config"] != "" {
		// An installation may name a ConfigMap that not every namespace has, or not yet.
		set("CONFIG", configDir+"/"+configFile)
		set("CONFIG_OPTIONAL", "true")
	}
	return env
}

// file is a key of a Secret that the sidecar reads as a file.
type file struct {
	setting        string // path of the setting that names the Secret
	variable, name string
	secret         SecretKey
}

// files returns what the sidecar logs in with.
func (n NATS) files() []file {
	var all []file
	for _, f := range []file{
		{"nats.credsSecret", "NATS_CREDS", "nats.creds", n.CredsSecret},
		{"nats.nkeySecret", "NATS_NKEY", "nats.nk", n.NKeySecret},
		{"nats.caSecret", "NATS_CA", "ca.crt", n.CASecret},
		{"nats.tlsSecret", "NATS_CERT", "tls.crt", SecretKey{n.TLSSecret.Name, corev1.TLSCertKey}},
		{"nats.tlsSecret", "NATS_KEY", "tls.key", SecretKey{n.TLSSecret.Name, corev1.TLSPrivateKeyKey}},
	} {
		if f.secret.Name != "" {
			all = append(all, f)
		}
	}
	return all
}

// mounts returns what the sidecar sees.
func (s Settings) mounts(values map[string]string) []corev1.VolumeMount {
	mounts := []corev1.VolumeMount{
		{Name: volumeSocket, MountPath: SocketDir},
		// Kubernetes would put the app's token there.
		{Name: volumeToken, MountPath: tokenDir, ReadOnly: true},
	}
	if len(s.NATS.files()) > 0 {
		mounts = append(mounts, corev1.VolumeMount{Name: volumeNATS, MountPath: natsDir, ReadOnly: true})
	}
	if values["config"] != "" {
		// The folder and not the file: a file that is mounted never changes.
		mounts = append(mounts, corev1.VolumeMount{Name: volumeConfig, MountPath: configDir, ReadOnly: true})
	}
	return mounts
}

// volumes returns what the sidecar's mounts stand on.
func (s Settings) volumes(values map[string]string) []corev1.Volume {
	volumes := []corev1.Volume{inMemory(volumeSocket), inMemory(volumeToken)}
	if files := s.NATS.files(); len(files) > 0 {
		secrets := new(corev1.ProjectedVolumeSource)
		for _, f := range files {
			secrets.Sources = append(secrets.Sources, corev1.VolumeProjection{Secret: &corev1.SecretProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: f.secret.Name},
				Items:                []corev1.KeyToPath{{Key: f.secret.Key, Path: f.name}},
			}})
		}
		volumes = append(volumes, corev1.Volume{Name: volumeNATS, VolumeSource: corev1.VolumeSource{Projected: secrets}})
	}
	if name := values["config"]; name != "" {
		volumes = append(volumes, corev1.Volume{Name: volumeConfig, VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Optional: new(true)},
		}})
	}
	return volumes
}

// inMemory is a volume that holds a socket, or nothing.
func inMemory(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium:    corev1.StorageMediumMemory,
		SizeLimit: new(resource.MustParse("1Mi")),
	}}}
}
