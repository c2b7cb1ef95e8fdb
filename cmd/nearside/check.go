package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/nearside-cache/nearside/bus/natsbus"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
	"github.com/nearside-cache/nearside/kube/check"
)

// checkOptions is everything that check can be told.
type checkOptions struct {
	cluster   clusterOptions
	nats      natsOptions
	namespace string
	podsIn    string
	pre       bool
	proxy     bool
	timeout   time.Duration
	output    output
}

func (o *checkOptions) register(fs *pflag.FlagSet) {
	fs.BoolVar(&o.pre, "pre", false, "check whether nearside can be installed, before it is")
	fs.BoolVar(&o.proxy, "proxy", false, "check pods and their sidecars only")
	settings.CommandLineOnly(fs, "pre")
	settings.CommandLineOnly(fs, "proxy")
	fs.StringVar(&o.namespace, "namespace", "nearside", "where nearside is installed, or is to be")
	fs.StringVar(&o.podsIn, "pods-in", "", "look at the pods of one namespace; empty: of all")
	o.cluster.register(fs)
	o.nats.register(fs)
	nats := fs.Lookup("nats")
	nats.DefValue, nats.Usage = "", "NATS servers as they are reached from here; empty: what is checked of NATS is skipped"
	o.nats.URL = ""
	fs.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long all of it may take")
	o.output.register(fs)
}

func newCheck() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check an installation in Kubernetes, and the pods with sidecars",
		Long: `Asks the API server, the injector, NATS and the sidecars whether all is in
order, and says what to do where it is not. It changes nothing.

✓ in order, ! deserves a look, ✗ has to be mended, - could not be asked.
What needs a right that the user of this kubeconfig has not is skipped, and
said. NATS is checked if --nats says where it is reached from here, with the
permissions of the user that is given.

As kubectl-nearside in the PATH this binary is a plugin: kubectl nearside check.
See docs/kubernetes/check.md for each check.

Exit codes: 0 nothing has to be mended, 1 something has, 2 wrong usage.`,
		Example: `  nearside check --pre
  nearside check -o json | jq '.checks[] | select(.result == "failed")'
  nearside check --proxy --pods-in shop
  nearside check --nats nats://127.0.0.1:4222 --nats-creds sidecar.creds`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
			defer cancel()
			return o.run(ctx, cmd.OutOrStdout())
		},
	}
	o.register(cmd.Flags())
	cmd.MarkFlagsMutuallyExclusive("pre", "proxy")
	return cmd
}

func (o *checkOptions) run(ctx context.Context, w io.Writer) error {
	c, namespace, err := o.cluster.connect()
	if err != nil {
		return err
	}
	t := check.Target{Cluster: c, Namespace: o.namespace, Pods: o.podsIn, Trial: namespace, Version: readBuild().version}
	if o.podsIn != "" {
		t.Trial = o.podsIn
	}
	if t.Trial == o.namespace || strings.HasPrefix(t.Trial, "kube-") {
		t.Trial = "default" // nothing is injected there
	}
	var checks []check.Check
	switch {
	case o.pre:
		checks = append(check.Pre(t), o.natsChecks()...)
	case o.proxy:
		checks = check.DataPlane(t)
	default:
		// The first is the API server's version again.
		checks = append(append(check.Injector(t), o.natsChecks()...), check.DataPlane(t)[1:]...)
	}
	p := checkPrinter{w: w, json: o.output.isJSON(), color: isTerminal(w)}
	count := check.Run(ctx, checks, p.print)
	if err := p.end(count); err != nil {
		return err
	}
	if count[check.Failed] > 0 {
		return &codeError{codeFailed, errNoWords}
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
}

const groupNATS = "nats"

// idLogin is the ID of the check of what is given to log in with. It is there only
// where NATS is checked.
const idLogin = "nats-login"

// natsChecks are those that need a connection to NATS.
func (o *checkOptions) natsChecks() []check.Check {
	checks := []check.Check{
		{
			ID: "stream", Group: groupNATS, Name: "the stream gives the guarantees", Ask: o.checkStream,
			Hint: "nearside stream info explains each setting; nearside stream ensure makes a stream that is missing",
		},
		{
			ID: "nats-permissions", Group: groupNATS, Name: "the user may do what a sidecar does", Ask: o.checkPermissions,
			Hint: "give the user exactly the permissions of docs/kubernetes/permissions.md; a NATS without users, such as the bundled one, permits everything to everybody, which is for trying out",
		},
	}
	if o.nats.URL == "" {
		return checks
	}
	for i := range checks {
		checks[i].Needs = []string{idLogin}
	}
	return append([]check.Check{{
		ID: idLogin, Group: groupNATS, Name: "what to log in to NATS with can be read", Ask: o.checkLogin,
		Hint: "want the files of a sidecar's Secrets, on this machine: kubectl get secret NAME -o jsonpath='{.data.nats\\.creds}' | base64 -d; a NATS without users, such as the bundled one, needs none: leave the flag away",
	}}, checks...)
}

// checkLogin looks at the flags and the files that they name.
func (o *checkOptions) checkLogin(context.Context) check.Finding {
	if err := errors.Join(o.nats.complete(), o.nats.Validate()); err != nil {
		return failedNATS(err)
	}
	if o.nats.Credentials == "" && o.nats.NKeySeed == "" && o.nats.Cert == "" {
		return check.Finding{Result: check.OK, Summary: "nothing is given: as a user without credentials, or of the URL"}
	}
	return check.Finding{Result: check.OK}
}

func skippedNATS() check.Finding {
	return check.Finding{Result: check.Skipped, Summary: "give --nats as it is reached from here, and what sidecars log in with"}
}

func failedNATS(err error) check.Finding {
	return check.Finding{Result: check.Failed, Summary: err.Error()}
}

// checkStream is what nearside stream info does.
func (o *checkOptions) checkStream(ctx context.Context) check.Finding {
	if o.nats.URL == "" {
		return skippedNATS()
	}
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	info, _, err := o.nats.inspect(ctx, false)
	if o.pre && info.Name == "" && codeOf(err) == codeUnfit {
		return check.Finding{Result: check.OK, Summary: "it is not there yet: the installation makes it"}
	}
	if err != nil && info.Name == "" {
		return failedNATS(err)
	}
	f := check.Finding{Result: check.OK, Summary: fmt.Sprintf("%s, %d replicas, kept for %v", info.Name, info.Replicas, info.MaxAge)}
	for _, d := range info.Deviations {
		f.Items = append(f.Items, d.String())
		if f.Result = check.Warning; d.Fatal {
			err = fmt.Errorf("stream %s cannot give the guarantees", info.Name)
		}
	}
	if err != nil {
		f.Result, f.Summary = check.Failed, err.Error()
	}
	return f
}

// checkPermissions tries what a sidecar does, and what nobody may do.
func (o *checkOptions) checkPermissions(ctx context.Context) check.Finding {
	if o.nats.URL == "" {
		return skippedNATS()
	}
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	wrong, err := o.denied(ctx)
	if err != nil {
		return failedNATS(err)
	}
	f := check.Finding{Result: check.OK, Summary: "all that it needs, and not what nobody may do"}
	for _, p := range wrong {
		f.Items = append(f.Items, wordsOf(p))
		switch {
		case p.Optional:
			f.Summary = "all that it needs where an operator makes the stream"
		case p.Forbidden && f.Result == check.OK:
			f.Result, f.Summary = check.Warning, "it may do more than a sidecar should"
		case !p.Forbidden:
			f.Result, f.Summary = check.Failed, "it may not do all that a sidecar does"
		}
	}
	return f
}

func wordsOf(p natsbus.Permission) string {
	verb := "publish"
	if p.Subscribe {
		verb = "subscribe"
	}
	if p.Forbidden {
		return fmt.Sprintf("may %s on %s, where only the server may: sidecars apply whatever arrives there", verb, p.Subject)
	}
	return fmt.Sprintf("may not %s on %s, for %s", verb, p.Subject, p.For)
}

func (o *checkOptions) denied(ctx context.Context) (_ []natsbus.Permission, err error) {
	b, err := o.nats.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // nothing was written
	return b.Denied(ctx)
}
