package main

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
	"github.com/nearside-cache/nearside/kube/cluster"
	"github.com/nearside-cache/nearside/kube/webhook"
)

// clusterOptions say which cluster, and as whom.
type clusterOptions struct{ cluster.Config }

func (o *clusterOptions) register(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "the file that says where the cluster is; empty: as kubectl, or in a pod its service account")
	fs.StringVar(&o.Context, "context", "", "the context of that file; empty: its current one")
}

// connect returns a client, and the namespace that the context or the pod is in.
func (o *clusterOptions) connect() (*cluster.Client, string, error) {
	o.UserAgent = "nearside/" + readBuild().version
	c, namespace, err := cluster.Connect(o.Config)
	if err != nil {
		return nil, "", &codeError{codeUsage, err}
	}
	return c, namespace, nil
}

// injectorOptions is everything that injector can be told.
type injectorOptions struct {
	webhook.Config
	cluster   clusterOptions
	logLevel  string
	logFormat string
}

func (o *injectorOptions) register(fs *pflag.FlagSet) {
	o.Lives, o.logLevel, o.logFormat = webhook.DefaultLives(), "info", logText
	fs.StringVar(&o.Listen, "listen", ":8443", "where the API servers find /mutate, by HTTPS")
	fs.StringVar(&o.Admin, "admin", ":9464", "where /metrics, /healthz and /readyz are")
	fs.StringVar(&o.Settings, "settings", "", "a YAML file with the settings of the sidecars, followed when it changes; empty: the defaults")
	fs.StringVar(&o.Namespace, "namespace", "", "the injector's own; empty: that of its pod, or of the context")
	fs.StringVar(&o.Service, "service", "nearside-injector", "the Service by which the API servers find the injector")
	fs.StringVar(&o.Secret, "secret", "nearside-injector-tls", "the Secret that holds the certificates of all replicas")
	fs.StringVar(&o.Webhook, "webhook", "nearside-injector", "the MutatingWebhookConfiguration that is told whom to trust")
	fs.StringVar(&o.CertDir, "cert-dir", "", "serve tls.crt and tls.key of this folder, which somebody else renews, and leave the Secret and the webhook's configuration alone")
	fs.StringVar(&o.Kubernetes, "kubernetes-version", "", "what mode auto goes by; empty: ask the API server, or with --cert-dir take it for a new one")
	fs.DurationVar(&o.Drain, "drain", 5*time.Second, "how long to serve on, unready, after SIGTERM")
	o.cluster.register(fs)
	fs.Var(settings.Choice(&o.logLevel, "trace", "debug", "info", "warn", "error"), "log-level", "the least that is logged: trace, debug, info, warn or error")
	fs.Var(settings.Choice(&o.logFormat, logText, logJSON), "log-format", "how it is logged: text or json")
}

func newInjector() *cobra.Command {
	var o injectorOptions
	cmd := &cobra.Command{
		Use:   "injector",
		Short: "Run the admission webhook that gives pods their sidecar",
		Long: `Answers the API servers of a Kubernetes cluster: a pod whose annotation
nearside.dev/inject is "true" gets a sidecar, and one whose annotations are
wrong is refused with the reason. It changes nothing else, also not when it is
asked again or for a dry run.

It makes its certificate, keeps it in a Secret that all replicas share, renews
it without a restart, and writes the authorities to trust into its
MutatingWebhookConfiguration. With --cert-dir somebody else does all that.

SIGTERM and SIGINT: it says that it is not ready, serves on for --drain, answers
what it was asked, and ends. See docs/kubernetes/injector.md.

Exit codes: 0 ended by a signal, 1 it failed, 2 wrong usage, or settings with
faults, which are all listed.`,
		Example: `  nearside injector --settings /etc/nearside/sidecar.yaml
  nearside injector --cert-dir /certs --listen :8443
  nearside injector --kubeconfig ~/.kube/config --namespace nearside`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.register(cmd.Flags())
	return cmd
}

// run serves until ctx ends.
func (o *injectorOptions) run(ctx context.Context) error {
	log := (&serveOptions{logLevel: o.logLevel, logFormat: o.logFormat}).logger().Named("injector")
	o.Logger, o.Version = log, readBuild().version
	if o.CertDir == "" {
		api, namespace, err := o.cluster.connect()
		if err != nil {
			return err
		}
		if o.Namespace == "" {
			o.Namespace = namespace
		}
		o.API = api
		if o.Kubernetes == "" {
			v, ok := askVersion(ctx, api, log)
			if !ok {
				return nil
			}
			o.Kubernetes = v
		}
	}
	s, err := webhook.Listen(o.Config)
	if err != nil {
		return asUsage(err)
	}
	log.Info("serving", "version", o.Version, "listen", s.Addr(), "admin", s.AdminAddr(), "namespace", o.Namespace, "kubernetes", o.Kubernetes)
	return s.Run(ctx)
}

// asUsage marks what is wrong with the settings.
func asUsage(err error) error {
	if errors.Is(err, webhook.ErrSettings) {
		return &codeError{codeUsage, err}
	}
	return err
}

// askVersion asks the API server for its version until it answers; false: ctx has
// ended first.
func askVersion(ctx context.Context, api *cluster.Client, log hclog.Logger) (string, bool) {
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		v, err := api.Version(ctx)
		if err == nil {
			return v.GitVersion, true
		}
		log.Warn("the API server does not tell its version, trying again", "error", err, "in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return "", false
		}
	}
}
