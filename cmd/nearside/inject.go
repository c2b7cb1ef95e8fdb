package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
	"github.com/nearside-cache/nearside/kube/inject"
	"github.com/nearside-cache/nearside/kube/inject/manifest"
)

// maxManifests is how much a stream of manifests may have. A cluster takes
// objects of at most 1.5 MiB.
const maxManifests = 256 << 20

// filter is a command that edits the pods in a stream of manifests.
type filter struct {
	file     string
	settings string // path of the settings
	version  string // of Kubernetes
	all      bool
	tagged   bool // a pod was given the image of this binary's version
}

// released matches the versions that there are images of. The Go command makes others
// up for builds between them.
var released = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)[.0-9]*)?$`)

func newInject() *cobra.Command {
	var f filter
	cmd := &cobra.Command{
		Use:   "inject [-f FILE]",
		Short: "Give the pods in manifests their sidecar",
		Long: `Reads Kubernetes manifests, YAML or JSON, gives the pods in them their sidecar
and prints them. It does what the injector in the cluster does, for those who
want to see it, or to have it in their repository; the injector then leaves
these pods as they are.

Pods are those of Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job,
CronJob and List whose template has the annotation nearside.dev/inject: "true";
with --all, those too that do not have it. Everything else is printed as it was
read, byte for byte. A pod that has a sidecar stays as it is: to inject anew,
nearside uninject first. What was done is told on standard error. The image is
the one of this binary's version unless --settings names another.

Exit codes: 0 printed, 1 a manifest cannot be read, or a pod cannot have a
sidecar, every one of which is told: nothing is printed then, 2 wrong usage, or
settings with faults, which are all listed.`,
		Example: `  nearside inject -f deploy.yaml | kubectl apply -f -
  helm template shop ./shop | nearside inject --all > shop.yaml
  nearside uninject < old.yaml | nearside inject --settings sidecar.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.readSettings()
			if err != nil {
				return err
			}
			err = f.run(cmd, func(p manifest.Pod) (bool, string, error) { return f.inject(s, p) })
			if err == nil && f.tagged && !released.MatchString(s.Version) {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: this binary is of no release, and the sidecar's image has its version for a tag, %s: name an image with --settings\n", s.Version)
			}
			return err
		},
	}
	f.register(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&f.all, "all", false, `inject pods without the annotation, too; not those that say "false"`)
	fs.StringVar(&f.settings, "settings", "", "a file with the settings of the sidecars: the chart's values below sidecar")
	fs.StringVar(&f.version, "kubernetes", "", "the version of the cluster, such as v1.28: before 1.29 auto is classic")
	for _, name := range []string{"all", "settings", "kubernetes"} {
		settings.CommandLineOnly(fs, name)
	}
	return cmd
}

func newUninject() *cobra.Command {
	var f filter
	cmd := &cobra.Command{
		Use:   "uninject [-f FILE]",
		Short: "Take the sidecar from the pods in manifests",
		Long: `Reads Kubernetes manifests, YAML or JSON, takes from the pods in them what was
injected, and prints them. Everything else is printed as it was read. The
annotations that ask for a sidecar stay.

Exit codes: 0 printed, 1 a manifest cannot be read: nothing is printed then,
2 wrong usage.`,
		Example: `  nearside uninject -f deploy.yaml | kubectl apply -f -
  kubectl get deployment shop -o yaml | nearside uninject`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd, func(p manifest.Pod) (bool, string, error) {
				if (inject.Settings{}).Remove(p.Pod) {
					return true, "the sidecar is taken away", nil
				}
				return false, "nothing was injected", nil
			})
		},
	}
	f.register(cmd)
	return cmd
}

func (f *filter) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.file, "file", "f", "-", "the manifests; -: standard input")
	settings.CommandLineOnly(cmd.Flags(), "file")
}

// readSettings returns the settings of the sidecars.
func (f *filter) readSettings() (inject.Settings, error) {
	s := inject.Defaults()
	if f.settings != "" {
		text, err := os.ReadFile(f.settings)
		if err != nil {
			return s, &codeError{codeUsage, fmt.Errorf("the settings cannot be opened: %w", err)}
		}
		if s, err = inject.ReadSettings(text); err != nil {
			return s, &codeError{codeUsage, fmt.Errorf("%s: %w", f.settings, err)}
		}
	}
	s.Version, s.Kubernetes = readBuild().version, f.version
	return s, nil
}

// inject gives a pod its sidecar if it asks for one, and says what was done.
func (f *filter) inject(s inject.Settings, p manifest.Pod) (bool, string, error) {
	switch wanted, err := s.Wanted(p.ObjectMeta); {
	case err != nil:
		return false, "", err
	case !wanted && p.Pod.Annotations[inject.AnnotationInject] != "":
		return false, "wants no sidecar", nil
	case !wanted && !f.all && p.Annotations[inject.AnnotationInject] != "":
		return false, "NOT injected: the annotation " + inject.AnnotationInject + " is on the object; want it on the template of its pods", nil
	case !wanted && !f.all:
		return false, "not annotated with " + inject.AnnotationInject + `: "true"; --all injects it`, nil
	}
	changed, err := s.Inject(p.Pod)
	switch {
	case err != nil:
		return false, "", err
	case !changed:
		return false, "has its sidecar already", nil
	}
	f.tagged = f.tagged || s.Image.Tag == "" && p.Pod.Annotations[inject.Prefix+"image"] == ""
	return true, "injected", nil
}

// run edits the stream, prints it, and tells of every pod what was done.
func (f *filter) run(cmd *cobra.Command, edit func(manifest.Pod) (bool, string, error)) error {
	data, err := f.read(cmd.InOrStdin())
	if err != nil {
		return err
	}
	var told strings.Builder
	out, err := manifest.Edit(data, func(p manifest.Pod) (bool, error) {
		changed, words, err := edit(p)
		if err == nil {
			fmt.Fprintf(&told, "%s: %s\n", printable(p.Object), words)
		}
		return changed, err
	})
	if err != nil {
		return err
	}
	if _, err := cmd.OutOrStdout().Write(out); err != nil {
		return fmt.Errorf("writing the manifests: %w", err)
	}
	if told.Len() == 0 {
		told.WriteString("there is no pod in these manifests\n")
	}
	fmt.Fprint(cmd.ErrOrStderr(), told.String())
	return nil
}

// read returns the manifests.
func (f *filter) read(stdin io.Reader) (_ []byte, err error) {
	in := stdin
	if f.file != "-" {
		file, err := os.Open(f.file)
		if err != nil {
			return nil, fmt.Errorf("the manifests cannot be opened: %w", err)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		in = file
	} else if terminal, ok := stdin.(*os.File); ok && term.IsTerminal(int(terminal.Fd())) {
		return nil, &codeError{codeUsage, errors.New("nothing to read: want manifests on standard input, or -f FILE")}
	}
	data, err := io.ReadAll(io.LimitReader(in, maxManifests+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the manifests: %w", err)
	case len(data) > maxManifests:
		return nil, fmt.Errorf("the manifests have more than %d bytes: want them in parts", maxManifests)
	}
	return data, nil
}
