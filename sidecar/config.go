package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/clock"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Config says what a Sidecar serves and where.
type Config struct {
	// Socket is the path of the Unix socket, at most 107 bytes.
	Socket string
	// SocketMode is the socket file's mode. Who may connect is decided by who can
	// reach the path: in a pod, by the mount.
	SocketMode fs.FileMode
	// SocketGroup owns the socket file, by name or number; empty leaves it as is.
	SocketGroup string
	// AllowUIDs are the users whose processes may connect to the socket, by the
	// kernel's word; empty means all. Linux only.
	AllowUIDs []uint32
	// TCP is an optional address for clients without Unix sockets. It must be a
	// loopback address; empty means none.
	TCP string
	// Admin is where /metrics, /healthz and /readyz are served; empty means
	// nowhere.
	Admin string
	// Password is asked for by AUTH; empty means that none is needed.
	Password string
	// AuditLog is a file that audit records are appended to, besides the log; empty
	// means none.
	AuditLog string

	// Memory is the hard L1 budget in bytes: entries, fences and misses. Buffers
	// of connections may take a quarter of it on top.
	Memory int64
	// MaxValue is the largest value in bytes. A larger one raises the smallest
	// Memory that works.
	MaxValue int
	// MaxConnections bounds the clients connected at once; more are answered with
	// an error and closed.
	MaxConnections int
	// Driver says how connections are served: "loop" by event loops (Linux only),
	// "goroutine" by a goroutine each; empty chooses what is fastest on this system.
	// Clients see no difference: it is for tests and measurements.
	Driver string
	// FrameTimeout is how long a client may take from the first to the last byte
	// of a command.
	FrameTimeout time.Duration
	// WriteTimeout is how long a client may not read its answers.
	WriteTimeout time.Duration
	// PublishTimeout bounds how long a DEL waits for the stream.
	PublishTimeout time.Duration
	// DrainTimeout bounds how long Run takes to end.
	DrainTimeout time.Duration

	Policies *policy.Set
	// Settings describes the settings in effect, as JSON, for those who ask. It must
	// be safe for concurrent use.
	Settings func() string
	// Domain names the domain, for what is shared in it.
	Domain string
	// Bus is the domain's stream. The Sidecar follows it and does not close it.
	Bus bus.Bus
	// Clock ages everything; nil means clock.Boot.
	Clock   clock.Clock
	Version string
	Logger  hclog.Logger
}

// DefaultConfig returns what `nearside serve` uses where it is told nothing
// else. Bus must be set.
func DefaultConfig() Config {
	return Config{
		Socket:         "/run/nearside/nearside.sock",
		SocketMode:     0o666,
		Admin:          "127.0.0.1:9464",
		Memory:         64 << 20,
		MaxValue:       api.DefaultMaxValue,
		MaxConnections: 10_000,
		FrameTimeout:   30 * time.Second,
		WriteTimeout:   10 * time.Second,
		PublishTimeout: 5 * time.Second,
		DrainTimeout:   1500 * time.Millisecond,
		Policies:       policy.DefaultSet(),
		Domain:         "default",
		Logger:         hclog.NewNullLogger(),
		Settings:       func() string { return "[]" },
		Version:        "dev",
	}
}

// Validate reports all faults at once, joined. Each names the setting, what it
// is and what it may be.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if n := len(c.Socket); n == 0 || n > api.MaxSocketPath {
		fault("socket has a path of %d bytes: want 1 to %d, the longest that a Unix socket can be bound to", n, api.MaxSocketPath)
	}
	if c.SocketMode&^fs.ModePerm != 0 || c.SocketMode == 0 {
		fault("socket-mode is %#o: want 0001 to 0777", uint32(c.SocketMode))
	}
	if c.SocketGroup != "" {
		if _, err := groupID(c.SocketGroup); err != nil {
			fault("socket-group: %w", err)
		}
	}
	if len(c.AllowUIDs) > 0 && !canTellPeers {
		fault("allow-uids: this system does not tell who connects to a socket")
	}
	if len(c.AllowUIDs) > 0 && c.TCP != "" {
		fault("allow-uids is set and tcp is %q: who connects over TCP cannot be told", c.TCP)
	}
	if c.TCP != "" {
		if err := loopback(c.TCP); err != nil {
			fault("tcp is %q: %w", c.TCP, err)
		}
	}
	if c.MaxValue < 1 || c.MaxValue > api.MaxBulk {
		fault("max-value is %d bytes: want 1 to %d", c.MaxValue, api.MaxBulk)
	}
	if c.Memory < minMemory {
		fault("memory is %d bytes: want %d (8 MiB) or more", c.Memory, minMemory)
	}
	if c.MaxConnections < 1 {
		fault("max-connections is %d: want 1 or more", c.MaxConnections)
	}
	if c.Driver != "" && !slices.Contains(drivers, c.Driver) {
		fault("driver is %q: want one of %q, or nothing", c.Driver, drivers)
	}
	for _, d := range []struct {
		name string
		is   time.Duration
	}{
		{"frame-timeout", c.FrameTimeout}, {"write-timeout", c.WriteTimeout},
		{"publish-timeout", c.PublishTimeout}, {"drain-timeout", c.DrainTimeout},
	} {
		if d.is <= 0 {
			fault("%s is %v: want more than 0", d.name, d.is)
		}
	}
	if err := c.Policies.Validate(); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

const minMemory = 8 << 20

func groupID(group string) (int, error) {
	if n, err := strconv.Atoi(group); err == nil && n >= 0 {
		return n, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}
