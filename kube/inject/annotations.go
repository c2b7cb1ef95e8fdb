package inject

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Names in a pod's metadata.
const (
	// Prefix is what the names of all annotations begin with.
	Prefix = "nearside.dev/"
	// AnnotationInject opts a pod in ("true") or out ("false").
	AnnotationInject = Prefix + "inject"
	// AnnotationStatus is written by the injection: what was injected, as JSON.
	AnnotationStatus = Prefix + "status"
	// LabelInjected is "true" on a pod that has a sidecar.
	LabelInjected = Prefix + "injected"
)

// Annotation is one by which a pod prevails over a setting.
type Annotation struct {
	// Name is the annotation without Prefix.
	Name string
	// Setting is the path of the setting.
	Setting string
	// Allowed is what a value must match, and Want says it in words.
	Allowed *regexp.Regexp
	Want    string
	// Does says what the annotation decides.
	Does string
}

// Annotations returns those that a pod may have besides AnnotationInject, in the
// order in which faults are told. The slice is the caller's.
func Annotations() []Annotation { return slices.Clone(annotations) }

// The policy and the library chart have them from here, patterns and words
// included: what Go, Helm and CEL take for a good value is the same.
var annotations = []Annotation{
	{"image", "image", regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}$`), "the name of an image", "The sidecar's whole image, tag included."},
	{"memory", "memory", regexp.MustCompile(`^((3[2-9]|[4-9][0-9]|[1-9][0-9]{2,5})Mi|[1-9][0-9]{0,2}Gi)$`), "a whole number of Mi or Gi, at least 32Mi, such as 128Mi", "Its memory, request and limit. The cache gets its share of it."},
	{"cpu", "cpu", regexp.MustCompile(`^([1-9][0-9]{0,5}m|[1-9][0-9]{0,2}|[0-9]{1,2}\.[0-9]{1,3})$`), "a number of CPUs such as 50m or 0.5", "The CPU that it requests. It has no limit."},
	{"domain", "domain", regexp.MustCompile(`^[a-z0-9_-]{1,32}$`), "1 to 32 characters of a-z, 0-9, _ and -", "Whose stream it follows: sidecars of one domain invalidate one another."},
	{"config", "config", regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$`), "the name of a ConfigMap, or nothing", "A ConfigMap in the pod's namespace whose key nearside.yaml is its configuration file. It reloads."},
	{"socket-mode", "socketMode", regexp.MustCompile(`^0?[0-7]{3}$`), "a file mode in octal digits such as 0666", "The socket file's mode."},
	{"log-level", "logLevel", regexp.MustCompile(`^(trace|debug|info|warn|error)$`), "trace, debug, info, warn or error", "The least that it logs."},
	{"mode", "mode", regexp.MustCompile(`^(auto|native|classic)$`), "auto, native or classic", "How it is put into the pod."},
	{"admin-port", "admin.port", regexp.MustCompile(`^(0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$`), "a port from 1 to 65535, or 0 for none", "Where it serves metrics. With hostNetwork there are none unless this asks for it."},
	{"app-env", "appEnv", regexp.MustCompile(`^(true|false)$`), "true or false", "Whether the app's containers get NEARSIDE_SOCKET and REDIS_URL, unless they have them."},
}

// values is what the settings say of everything that an annotation can say, in
// the words of the annotation.
func (s Settings) values() map[string]string {
	return map[string]string{
		"image":       s.image(),
		"memory":      s.Memory,
		"cpu":         s.CPU,
		"domain":      s.Domain,
		"config":      s.Config,
		"socket-mode": s.SocketMode,
		"log-level":   s.LogLevel,
		"mode":        s.Mode,
		"admin-port":  strconv.Itoa(s.Admin.Port),
		"app-env":     strconv.FormatBool(s.AppEnv),
	}
}

// valuesOf is what holds for a pod: what its annotations say, and the settings
// else.
func (s Settings) valuesOf(pod *corev1.Pod) (map[string]string, []string) {
	var faults []string
	values := s.values()
	if pod.Spec.HostNetwork {
		// The port would be one of the node, and taken by the next such pod.
		values["admin-port"] = "0"
	}
	for _, a := range annotations {
		value, ok := pod.Annotations[Prefix+a.Name]
		if !ok {
			continue
		}
		values[a.Name] = value
		if !a.Allowed.MatchString(value) {
			faults = append(faults, refusal(Prefix+a.Name, value, a.Want))
		}
	}
	if values["mode"] == ModeAuto {
		values["mode"] = ModeClassic
		if s.native() {
			values["mode"] = ModeNative
		}
	}
	return values, append(faults, unknown(pod.Annotations)...)
}

func refusal(name, value, want string) string {
	return fmt.Sprintf("annotation %s is %.60q: want %s", name, value, want)
}

// unknown refuses annotations that nobody reads: a typing error would otherwise
// go unnoticed.
func unknown(given map[string]string) []string {
	var faults []string
	for name := range given {
		short, ours := strings.CutPrefix(name, Prefix)
		known := slices.ContainsFunc(annotations, func(a Annotation) bool { return a.Name == short })
		if ours && !known && name != AnnotationInject && name != AnnotationStatus {
			faults = append(faults, fmt.Sprintf("annotation %s is not known: want one of %s", name, names()))
		}
	}
	slices.Sort(faults)
	return faults
}

// names lists the annotations that a user may set.
func names() string {
	all := []string{"inject"}
	for _, a := range annotations {
		all = append(all, a.Name)
	}
	return strings.Join(all, ", ")
}

// Wanted tells whether a pod of this metadata asks for a sidecar. The error says
// what is allowed.
func (s Settings) Wanted(o metav1.ObjectMeta) (bool, error) {
	switch value := o.Annotations[AnnotationInject]; value {
	case "true":
		return true, nil
	case "false", "":
		return false, nil
	default:
		return false, &Error{Faults: []string{refusal(AnnotationInject, value, "true or false")}}
	}
}
