package main

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
	"github.com/nearside-cache/nearside/sidecar"
)

// serveOptions is everything that serve can be told.
type serveOptions struct {
	sidecar    sidecar.Config
	nats       natsOptions
	config     string // path of the configuration file
	optional   bool   // it may be missing
	missing    string // its path, if it is
	file       []byte // its contents
	data       string
	natsListen string
	logLevel   string
	logFormat  string
	settings   *settings.Reader // where each setting was given
	container  container
}

// Log formats.
const (
	logText = "text"
	logJSON = "json"
)

func (o *serveOptions) register(fs *pflag.FlagSet) {
	o.sidecar = sidecar.DefaultConfig()
	o.logLevel, o.logFormat = "info", logText
	c := &o.sidecar
	defer settings.Secret(fs, "password")
	fs.StringVar(&o.config, "config", "", "the configuration file, YAML; nearside config example prints one")
	fs.BoolVar(&o.optional, "config-optional", false, "start with the defaults while the configuration file is missing, and read it as soon as it is there")
	fs.StringVar(&c.Socket, "socket", c.Socket, "the Unix socket to serve")
	fs.Var(settings.Mode(&c.SocketMode), "socket-mode", "the socket file's mode")
	fs.StringVar(&c.SocketGroup, "socket-group", "", "the socket file's group, by name or number")
	fs.Var(settings.UIDs(&c.AllowUIDs), "allow-uids", "user ids whose processes may connect to the socket, with commas between; empty: all")
	fs.StringVar(&c.TCP, "tcp", "", "a loopback address for clients without Unix sockets, such as 127.0.0.1:6379")
	fs.StringVar(&c.Admin, "admin", c.Admin, "where /metrics, /healthz and /readyz are; empty: nowhere")
	fs.StringVar(&c.Password, "password", "", "what clients must give with AUTH; better in the environment or the file than where ps shows it")
	fs.StringVar(&c.AuditLog, "audit-log", "", "a file that gets the audit records, which the log has too")
	fs.Var(settings.Size(&c.Memory), "memory", "the hard budget of the cache, in a container half of its limit unless given; buffers of connections may take a quarter on top")
	fs.Var(settings.Size(&c.MaxValue), "max-value", "the largest value")
	fs.IntVar(&c.MaxConnections, "max-connections", c.MaxConnections, "clients connected at once")
	fs.DurationVar(&c.PublishTimeout, "publish-timeout", c.PublishTimeout, "how long a DEL waits for the stream")
	o.nats.register(fs)
	fs.Lookup("nats").Usage += `; "embedded": one in this process`
	fs.StringVar(&o.data, "data", "", "the folder of the embedded server's files")
	fs.StringVar(&o.natsListen, "nats-listen", "", "where the embedded server listens for others, such as 127.0.0.1:4222; empty: nowhere")
	fs.Var(settings.Choice(&o.logLevel, "trace", "debug", "info", "warn", "error"), "log-level", "the least that is logged: trace, debug, info, warn or error")
	fs.Var(settings.Choice(&o.logFormat, logText, logJSON), "log-format", "how it is logged: text or json")
}

// faultsError is a configuration with faults, all of them.
type faultsError []error

// Error lists the faults, one a line.
func (e faultsError) Error() string {
	var b strings.Builder
	if len(e) == 1 {
		b.WriteString("the configuration has a fault:")
	} else {
		fmt.Fprintf(&b, "the configuration has %d faults:", len(e))
	}
	for _, fault := range e {
		b.WriteString("\n  " + fault.Error())
	}
	return b.String()
}

// loadServe reads the settings that the given flags, the environment and the
// file make together. The error is a faultsError with everything that is wrong.
// It changes nothing of given, which holds a parsed command line.
func loadServe(given *pflag.FlagSet) (*serveOptions, *pflag.FlagSet, error) {
	o, fs := new(serveOptions), pflag.NewFlagSet("serve", pflag.ContinueOnError)
	o.register(fs)
	var err error
	given.Visit(func(f *pflag.Flag) {
		if fs.Lookup(f.Name) != nil {
			err = errors.Join(err, fs.Set(f.Name, f.Value.String()))
		}
	})
	if err != nil {
		return nil, nil, err // a flag's text is not what its Set reads: a bug
	}
	sources, err := o.sources(fs)
	if err != nil {
		return nil, nil, faultsError{err}
	}
	o.file = sources.File
	r := settings.Read(fs, o.sidecar.Policies, sources)
	o.settings = r
	if faults := r.Faults(o.validate()); len(faults) > 0 {
		return nil, nil, faultsError(faults)
	}
	return o, fs, nil
}

// sources finds the configuration file and reads it.
func (o *serveOptions) sources(fs *pflag.FlagSet) (s settings.Sources, err error) {
	o.container = readContainer()
	s = settings.Sources{Lookup: os.LookupEnv, FileName: o.config, Derived: o.container.settings()}
	config := fs.Lookup("config")
	if v, ok := os.LookupEnv(settings.Variable(config)); ok && !config.Changed {
		s.FileName = v
	}
	if s.FileName == "" {
		return s, nil
	}
	file, err := os.Open(s.FileName)
	if errors.Is(err, iofs.ErrNotExist) && o.mayBeMissing(fs) {
		o.missing, s.FileName = s.FileName, ""
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("config: the file cannot be opened: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if s.File, err = io.ReadAll(io.LimitReader(file, settings.MaxFile+1)); err != nil {
		return s, fmt.Errorf("config: the file cannot be read: %w", err)
	}
	if len(s.File) > settings.MaxFile {
		return s, fmt.Errorf("config: the file %s has more than %d bytes", s.FileName, settings.MaxFile)
	}
	return s, nil
}

// mayBeMissing tells whether the configuration file is optional. That cannot stand
// in the file, and is asked before the environment is read as a whole, which
// finds the faults of the variable.
func (o *serveOptions) mayBeMissing(fs *pflag.FlagSet) bool {
	f := fs.Lookup("config-optional")
	v, ok := os.LookupEnv(settings.Variable(f))
	if !ok || f.Changed {
		return o.optional
	}
	optional, err := strconv.ParseBool(v)
	return err == nil && optional
}

// validate reports all faults at once, joined.
func (o *serveOptions) validate() error {
	faults := []error{o.nats.complete(), o.sidecar.Validate(), o.nats.Validate()}
	embedded := o.nats.URL == natsEmbedded
	if embedded && o.data == "" {
		faults = append(faults, errors.New("data is empty: an embedded server wants a folder for its files"))
	}
	if !embedded && o.natsListen != "" {
		faults = append(faults, fmt.Errorf("nats-listen is %q: want it only with --nats %s", o.natsListen, natsEmbedded))
	}
	if !embedded && o.data != "" {
		faults = append(faults, fmt.Errorf("data is %q: want it only with --nats %s", o.data, natsEmbedded))
	}
	return errors.Join(faults...)
}

func (o *serveOptions) logger() hclog.Logger {
	color := hclog.AutoColor // none unless stderr is a terminal
	if os.Getenv("NO_COLOR") != "" {
		color = hclog.ColorOff
	}
	return hclog.New(&hclog.LoggerOptions{
		Name:       "nearside",
		Level:      hclog.LevelFromString(o.logLevel),
		JSONFormat: o.logFormat == logJSON,
		Color:      color,
		Output:     os.Stderr,
	})
}
