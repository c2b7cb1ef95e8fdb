package inject

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Settings are what an installation decides for the sidecars that it injects.
// Annotations of a pod prevail over some of them. They are the values below
// "sidecar" of the chart, one to one. Settings are immutable once read, and may
// then be used concurrently.
type Settings struct {
	// Image is what the sidecar runs.
	Image Image `json:"image"`
	// Memory is the container's request and limit. What the cache may hold follows
	// from it.
	Memory string `json:"memory"`
	// CPU is what the container requests. There is no limit: it would delay reads.
	CPU string `json:"cpu"`
	// Domain is whose stream the sidecar follows.
	Domain string `json:"domain"`
	// NATS is where the stream is.
	NATS NATS `json:"nats"`
	// Config names a ConfigMap in the pod's namespace with a key nearside.yaml, the
	// configuration file of serve; empty: none.
	Config string `json:"config"`
	// SocketMode is the socket file's mode, in octal digits.
	SocketMode string `json:"socketMode"`
	// LogLevel is the least that is logged.
	LogLevel string `json:"logLevel"`
	// LogFormat is text or json.
	LogFormat string `json:"logFormat"`
	// Mode is native, classic or auto: see ModeNative.
	Mode string `json:"mode"`
	// Admin is where metrics are.
	Admin Admin `json:"admin"`
	// AppEnv tells the app's containers where the socket is.
	AppEnv bool `json:"appEnv"`
	// ExtraEnv is added to the sidecar's environment.
	ExtraEnv []corev1.EnvVar `json:"extraEnv"`

	// Version is the program's own: the image's tag where Image has none, and what
	// the status tells. Empty stands for "dev".
	Version string `json:"-"`
	// Kubernetes is the version of the API server, such as v1.28.3, which mode auto
	// goes by. Empty stands for one that knows native sidecars.
	Kubernetes string `json:"-"`
}

// Image names a container image.
type Image struct {
	// Repository is the image without its tag.
	Repository string `json:"repository"`
	// Tag is the image's tag; empty: the version of the program that injects.
	Tag string `json:"tag"`
	// PullPolicy is Always, IfNotPresent or Never.
	PullPolicy corev1.PullPolicy `json:"pullPolicy"`
}

// NATS says where the stream is, and what to log in with. The Secrets are in the
// pod's namespace.
type NATS struct {
	// URL is one or more servers, with commas between.
	URL string `json:"url"`
	// CredsSecret holds a .creds file.
	CredsSecret SecretKey `json:"credsSecret"`
	// NKeySecret holds an nkey seed.
	NKeySecret SecretKey `json:"nkeySecret"`
	// TLSSecret holds the certificate to show and its key, as tls.crt and tls.key.
	TLSSecret Secret `json:"tlsSecret"`
	// CASecret holds the authorities to trust.
	CASecret SecretKey `json:"caSecret"`
	// JetStreamDomain is the JetStream domain, if the stream is behind a leaf node.
	JetStreamDomain string `json:"jetStreamDomain"`
}

// Secret names a Secret; an empty name stands for none.
type Secret struct {
	Name string `json:"name"`
}

// SecretKey names a key of a Secret; an empty name stands for none.
type SecretKey struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

// Admin says where metrics and health are served.
type Admin struct {
	// Port is the TCP port; 0: none. With hostNetwork a pod has none unless its
	// annotation asks for one.
	Port int `json:"port"`
}

// Modes of injection.
const (
	// ModeAuto is native, and classic before Kubernetes 1.29.
	ModeAuto = "auto"
	// ModeNative is an init container with restartPolicy Always: it starts before
	// the app and ends after it.
	ModeNative = "native"
	// ModeClassic is one more container. A pod that shall complete cannot have it.
	ModeClassic = "classic"
)

// Defaults returns the settings that hold where nothing else is said.
func Defaults() Settings {
	return Settings{
		Image:  Image{Repository: "ghcr.io/nearside-cache/nearside", PullPolicy: corev1.PullIfNotPresent},
		Memory: "128Mi",
		CPU:    "50m",
		Domain: "default",
		NATS: NATS{
			URL:         "nats://nearside-nats.nearside.svc:4222",
			CredsSecret: SecretKey{Key: "nats.creds"},
			NKeySecret:  SecretKey{Key: "nats.nk"},
			CASecret:    SecretKey{Key: "ca.crt"},
		},
		SocketMode: "0666",
		LogLevel:   "info",
		LogFormat:  "json",
		Mode:       ModeAuto,
		Admin:      Admin{Port: 9464},
		ExtraEnv:   []corev1.EnvVar{},
	}
}

// ReadSettings reads settings from YAML or JSON. What it does not name has its
// default. The error joins every fault that was found, each with its path.
func ReadSettings(data []byte) (Settings, error) {
	s := Defaults()
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return Settings{}, fmt.Errorf("the settings cannot be read: %w", err)
	}
	unknown, err := kjson.UnmarshalStrict(text, &s)
	if err != nil {
		return Settings{}, fmt.Errorf("the settings cannot be read: %w", err)
	}
	if err := errors.Join(append(unknown, s.Validate())...); err != nil {
		return Settings{}, err
	}
	return s, nil
}

var (
	secretKey = regexp.MustCompile(`^[A-Za-z0-9._-]{1,253}$`)
	natsURL   = regexp.MustCompile(`^\S+$`)
	policies  = regexp.MustCompile(`^(Always|IfNotPresent|Never)$`)
	formats   = regexp.MustCompile(`^(text|json)$`)
)

// Validate returns every fault of the settings, joined, each with its path.
func (s Settings) Validate() error {
	var faults []error
	check := func(path, value string, allowed *regexp.Regexp, want string) {
		if !allowed.MatchString(value) {
			faults = append(faults, fmt.Errorf("%s is %.60q: want %s", path, value, want))
		}
	}
	values := s.values()
	for _, a := range annotations {
		check(a.Setting, values[a.Name], a.Allowed, a.Want)
	}
	check("image.pullPolicy", string(s.Image.PullPolicy), policies, "Always, IfNotPresent or Never")
	check("logFormat", s.LogFormat, formats, "text or json")
	check("nats.url", s.NATS.URL, natsURL, "NATS servers with commas between, such as nats://nats.example:4222")
	for _, f := range s.NATS.files() {
		check(f.setting+".key", f.secret.Key, secretKey, "a key of the Secret")
	}
	return errors.Join(append(faults, s.extraFaults()...)...)
}

// extraFaults refuses variables that the injection sets itself: which of the two
// holds would be a riddle.
func (s Settings) extraFaults() []error {
	var faults []error
	extra := s.ExtraEnv
	s.ExtraEnv, s.Config = nil, "any"
	own := s.environment(s.values())
	for i, v := range extra {
		if v.Name == "" || slices.ContainsFunc(own, func(o corev1.EnvVar) bool { return o.Name == v.Name }) {
			faults = append(faults, fmt.Errorf("extraEnv[%d].name is %q: want a variable that the injection does not set itself", i, v.Name))
		}
	}
	return faults
}

// version returns the program's own.
func (s Settings) version() string {
	if s.Version == "" {
		return "dev"
	}
	return s.Version
}

// image returns the whole name of the image.
func (s Settings) image() string {
	if s.Image.Tag == "" {
		return s.Image.Repository + ":" + s.version()
	}
	return s.Image.Repository + ":" + s.Image.Tag
}

// native tells what mode auto is.
func (s Settings) native() bool {
	m := minor.FindStringSubmatch(s.Kubernetes)
	if m == nil {
		return true
	}
	n, err := strconv.Atoi(m[1])
	return err != nil || n >= firstNative
}

// firstNative is the minor version of Kubernetes 1 from which native sidecars
// are on without a feature gate.
const firstNative = 29

var minor = regexp.MustCompile(`^v?1\.([0-9]+)`)
