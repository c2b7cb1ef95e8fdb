// Package embedded runs a NATS server with JetStream inside this process, its
// files in one directory. It is the broker of demos, tests and single-node
// setups; a fleet needs servers of its own.
package embedded

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"
)

const (
	// defaultMaxStore is the limit of the files when Config names none.
	defaultMaxStore = 1 << 30
	// maxMemory limits memory streams, of which nearside has none: without a
	// limit the server would reserve three quarters of the machine.
	maxMemory = 16 << 20
	// maxPayload lets an update event carry the largest value of a sidecar.
	maxPayload = 2 << 20
	// readyTimeout bounds the wait for the listener. Recovery of the files is
	// not under it.
	readyTimeout = 10 * time.Second
	lockName     = "nearside.lock"
)

// ErrInUse says that another process runs a server on the same directory.
var ErrInUse = errors.New("embedded: the directory is in use by another server")

// Config says where the server keeps its files and whether it listens.
type Config struct {
	// Dir holds the files of JetStream; it is created when missing.
	Dir string
	// Listen is an optional TCP address, "127.0.0.1:0" for any free port.
	// Empty: no port, only ClientOption connects. The listener asks nobody for
	// a password: keep it on loopback.
	Listen string
	// MaxStore limits the files, in bytes; 0 is 1 GiB.
	MaxStore int64
	// Logger gets the server's errors at warn and the rest at debug. nil:
	// silence.
	Logger hclog.Logger
}

// Server is a running server. It is safe for concurrent use.
type Server struct {
	srv    *server.Server
	listen bool
	lock   *os.File
	close  sync.Once
}

// Start returns when the server is ready. ErrInUse says that the directory has
// another server.
func Start(cfg Config) (*Server, error) {
	opts, err := options(cfg)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	srv, err := start(opts, cfg.Logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded: start NATS server on %s: %w", cfg.Dir, err), lock.Close())
	}
	return &Server{srv: srv, listen: cfg.Listen != "", lock: lock}, nil
}

func options(cfg Config) (*server.Options, error) {
	if cfg.Dir == "" {
		return nil, errors.New("embedded: no directory given for the stream's files")
	}
	if cfg.MaxStore < 0 {
		return nil, fmt.Errorf("embedded: MaxStore is %d, want a number of bytes", cfg.MaxStore)
	}
	opts := &server.Options{
		ServerName:             "nearside-embedded",
		NoSigs:                 true, // the signals are the process's
		NoLog:                  true,
		DontListen:             cfg.Listen == "",
		JetStream:              true,
		StoreDir:               cfg.Dir,
		JetStreamMaxMemory:     maxMemory,
		JetStreamMaxStore:      cfg.MaxStore,
		MaxPayload:             maxPayload,
		DisableJetStreamBanner: true,
	}
	if opts.JetStreamMaxStore == 0 {
		opts.JetStreamMaxStore = defaultMaxStore
	}
	if cfg.Listen != "" {
		host, port, err := splitListen(cfg.Listen)
		if err != nil {
			return nil, err
		}
		opts.Host, opts.Port = host, port
	}
	return opts, nil
}

// splitListen turns "host:port" into the server's own form, where 0 would mean
// the default port and -1 any free one.
func splitListen(addr string) (string, int, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("embedded: listen address %q, want host:port: %w", addr, err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("embedded: port of listen address %q: %w", addr, err)
	}
	if port == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(port), nil
}

// lockDir takes the directory for this process. The server itself would let
// two of its kind write the same files.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded: create directory for the stream's files: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("embedded: directory for the stream's files is not writable: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		closed := f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("%w: %s", ErrInUse, dir), closed)
		}
		return nil, errors.Join(fmt.Errorf("embedded: lock %s: %w", f.Name(), err), closed)
	}
	return f, nil
}

func start(opts *server.Options, logger hclog.Logger) (*server.Server, error) {
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	log := &serverLog{logger: logger}
	if logger == nil {
		log.logger = hclog.NewNullLogger()
	}
	srv.SetLogger(log, false, false)
	srv.Start()
	err = log.fatal()
	if err == nil && !srv.ReadyForConnections(readyTimeout) {
		err = fmt.Errorf("not ready after %v", readyTimeout)
	}
	if err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, err
	}
	return srv, nil
}

// InProcessConn opens one connection of a client in this process, for which the
// server needs no port. natsbus.Config takes the Server for it.
func (s *Server) InProcessConn() (net.Conn, error) {
	conn, err := s.srv.InProcessConn()
	if err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	return conn, nil
}

// ClientOption makes nats.Connect use the server without a port; the URL given
// to Connect is then not looked at.
func (s *Server) ClientOption() nats.Option { return nats.InProcessServer(s.srv) }

// URL is the address for clients of other processes, empty when the server
// does not listen.
func (s *Server) URL() string {
	if !s.listen {
		return ""
	}
	return s.srv.ClientURL()
}

// Close stops the server and waits until its files are closed. It may be called
// more than once.
func (s *Server) Close() error {
	var err error
	s.close.Do(func() {
		s.srv.Shutdown()
		s.srv.WaitForShutdown()
		if err = s.lock.Close(); err != nil {
			err = fmt.Errorf("embedded: release the directory: %w", err)
		}
	})
	return err
}
