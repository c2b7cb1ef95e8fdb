package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/nearside-cache/nearside/bus/embedded"
	"github.com/nearside-cache/nearside/bus/natsbus"
	"github.com/nearside-cache/nearside/sidecar"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the sidecar",
		Long: `Serves a cache on a Unix socket to every Redis client, and keeps it coherent by
the invalidations of a NATS JetStream stream, which it creates when there is
none. It starts while NATS is away, and goes on trying.

--config names a YAML file with the same settings (max_value for --max-value),
and the policies of namespaces. nearside config example prints one. SIGHUP and a
change of the file read the policies anew, without dropping a connection; a file
with a fault is refused whole. Other settings wait for a restart.

A variable NEARSIDE_… that is no setting has no effect, and the log says so.

Without --memory, in a container with a memory limit, the cache gets half of the
limit, and Go's collector works to keep the process below 90 % of it.

SIGTERM and SIGINT: what has been asked is answered, then it ends, within 2 s.

Exit codes: 0 ended by a signal, 1 it failed, 2 wrong usage or a configuration
with faults, which are all listed, 5 NATS does not permit to follow the stream,
6 the stream cannot give the guarantees.`,
		Example: `  nearside serve --nats nats://nats:4222 --memory 256MiB
  nearside serve --config /etc/nearside/nearside.yaml
  nearside serve --nats embedded --data /tmp/nearside \
      --nats-listen 127.0.0.1:4222 --socket /tmp/nearside.sock`,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{readsItsSettings: "yes"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), cmd.Flags(), cmd.ErrOrStderr())
		},
	}
	new(serveOptions).register(cmd.Flags())
	return cmd
}

// serve runs a sidecar until ctx ends.
func serve(ctx context.Context, given *pflag.FlagSet, notes io.Writer) error {
	o, fs, err := loadServe(given)
	if err != nil {
		return err
	}
	log := o.logger()
	if o.missing != "" {
		log.Warn("there is no configuration file: the defaults hold until there is one", "file", o.missing)
	}
	warnUnknown(log)
	o.limitMemory(log)
	e := newEffective(o.settings)
	o.sidecar.Settings = e.String
	n, err := openNode(ctx, o, log)
	if err != nil {
		return err
	}
	o.greet(notes, n, log)
	r := reloader{given: given, running: fs, sidecar: n.sidecar, effective: e, log: log.Named("config"), last: o.file}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.sidecar.Run(ctx) })
	g.Go(func() error { return r.run(ctx) })
	g.Go(func() error { return n.announce(ctx, o, log) })
	return errors.Join(g.Wait(), n.close())
}

// node is a sidecar and what it stands on.
type node struct {
	broker  *embedded.Server // nil unless embedded
	bus     *natsbus.Bus
	sidecar *sidecar.Sidecar
}

func openNode(ctx context.Context, o *serveOptions, log hclog.Logger) (_ *node, err error) {
	n := new(node)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if o.nats.URL == natsEmbedded {
		n.broker, err = embedded.Start(embedded.Config{Dir: o.data, Listen: o.natsListen, Logger: log.Named("server")})
		if err != nil {
			return n, err
		}
		o.nats.InProcess = n.broker
	}
	o.nats.CreateStream = true
	o.nats.Logger = log.Named("bus")
	if n.bus, err = natsbus.Open(ctx, o.nats.Config); err != nil {
		return n, err
	}
	o.sidecar.Domain = o.nats.domain
	o.sidecar.Bus, o.sidecar.Logger, o.sidecar.Version = n.bus, log, readBuild().version
	n.sidecar, err = sidecar.Listen(o.sidecar)
	return n, err
}

// close closes what the sidecar stands on, and the sidecar not: that Run does.
func (n *node) close() error {
	var errs []error
	if n.bus != nil {
		errs = append(errs, n.bus.Close())
	}
	if n.broker != nil {
		errs = append(errs, n.broker.Close())
	}
	return errors.Join(errs...)
}

// announce logs how far the start has come.
func (n *node) announce(ctx context.Context, o *serveOptions, log hclog.Logger) error {
	if !n.bus.Status().Connected {
		log.Warn("NATS is away: serving, but not ready until it is reached; trying on", "nats", o.nats.where())
	}
	select {
	case <-n.sidecar.Ready():
		log.Info("ready", "stream", n.bus.Status().Stream, "applied", n.sidecar.Applied().String())
	case <-ctx.Done():
	}
	return nil
}

// greet tells people what is served and what to try. Programs that read the log
// are told in a line of their own kind.
func (o *serveOptions) greet(w io.Writer, n *node, log hclog.Logger) {
	stream, socket := n.bus.Status().Stream, o.sidecar.Socket
	if o.logFormat == logJSON {
		log.Info("serving", "version", o.sidecar.Version, "socket", socket, "tcp", n.sidecar.TCPAddr(),
			"admin", n.sidecar.AdminAddr(), "stream", stream, "nats", o.natsWords(n))
		return
	}
	fmt.Fprintf(w, "nearside %s serves %s\n", o.sidecar.Version, socket)
	fmt.Fprintf(w, "  stream  %s on %s\n", stream, o.natsWords(n))
	if addr := n.sidecar.TCPAddr(); addr != "" {
		fmt.Fprintf(w, "  tcp     %s\n", addr)
	}
	if addr := n.sidecar.AdminAddr(); addr != "" {
		fmt.Fprintf(w, "  admin   http://%s/metrics /healthz /readyz\n", addr)
	}
	fmt.Fprintf(w, "  try     redis-cli -s %s SET greeting hello\n", socket)
	fmt.Fprintf(w, "          nearside explain greeting --socket %s\n", socket)
}

func (o *serveOptions) natsWords(n *node) string {
	switch {
	case n.broker == nil:
		return o.nats.where()
	case n.broker.URL() == "":
		return "embedded NATS, files in " + o.data
	default:
		return "embedded NATS, " + n.broker.URL() + ", files in " + o.data
	}
}
