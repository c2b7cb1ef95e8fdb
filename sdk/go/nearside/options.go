package nearside

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// DefaultSocket is where a sidecar listens unless it was told otherwise.
const DefaultSocket = "/run/nearside/nearside.sock"

// Defaults of Options and L0Options.
const (
	DefaultConnections  = 2
	DefaultTimeout      = 500 * time.Millisecond
	DefaultWriteTimeout = 5 * time.Second
	DefaultL0Entries    = 10_000
	DefaultL0Bound      = 5 * time.Second
)

// maxSocketPath is what the kernel takes, without the zero at the end.
const maxSocketPath = 107

// policyWait is how long a sidecar waits for freshness and for loads where neither the
// read nor the policy says otherwise.
const policyWait = time.Second

// Options say how a Client reaches its sidecar. The zero value is good.
type Options struct {
	// Socket is the path of the sidecar's Unix socket. Empty: the environment variable
	// NEARSIDE_SOCKET, or else DefaultSocket.
	Socket string
	// Name is shown in the sidecar's list of clients: printable, no blanks. Empty: the
	// name of the program.
	Name string
	// Password is needed where the sidecar has one.
	Password string
	// Connections is how many are kept open. Callers share them; a second one helps where
	// values are large. With an L0 there is one: what arrives on two has no order, and a
	// reader could see a key go back.
	Connections int
	// Timeout is how long the sidecar may take for what it need not wait for. A read that
	// waits (see Wait) may take as much longer. Of a sidecar that is silent for as long,
	// the connection is given up, and reads fail at once until there is a new one.
	Timeout time.Duration
	// WriteTimeout bounds Invalidate, Update, Barrier, and fills that have to be
	// published, the wait for a connection included.
	WriteTimeout time.Duration
	// L0, if not nil, keeps answers in the app's own memory.
	L0 *L0Options
	// Dial replaces the connection to Socket, for sidecars that listen on a loopback
	// address, and for tests.
	Dial func(ctx context.Context) (net.Conn, error)
	// Clock replaces CLOCK_BOOTTIME, for simulations.
	Clock func() time.Duration
}

// L0Options say what is kept in the app's own memory.
//
// What is kept is served without asking the sidecar, as long as that can be proven to be
// what the read asks for: the sidecar tells on the same connection what has become
// stale, and at each pulse, four times a second, up to which moment it has told
// everything. Without such news, L0 is silent. It exists on Linux only, and where app and
// sidecar run on one kernel; elsewhere all reads go to the sidecar.
type L0Options struct {
	// MaxEntries bounds the number of entries. A sidecar tracks 65,536 at most for a
	// connection.
	MaxEntries int
	// MaxBytes bounds what entries take, keys and overhead included, in place of
	// MaxEntries.
	MaxBytes int64
	// Bound is for how long L0 serves anything without news from the sidecar, however
	// little freshness the read asks for.
	Bound time.Duration
}

// complete returns o with defaults in place of what is zero.
func (o Options) complete() (Options, error) {
	if o.Socket == "" {
		o.Socket = os.Getenv("NEARSIDE_SOCKET")
	}
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	if len(o.Socket) > maxSocketPath && o.Dial == nil {
		return o, fmt.Errorf("nearside: the socket's path has %d bytes, at most %d are possible: %s", len(o.Socket), maxSocketPath, o.Socket)
	}
	if o.Name == "" {
		o.Name = programName()
	}
	setDefault(&o.Connections, DefaultConnections)
	setDefault(&o.Timeout, DefaultTimeout)
	setDefault(&o.WriteTimeout, DefaultWriteTimeout)
	if o.Connections < 0 || o.Timeout < 0 || o.WriteTimeout < 0 {
		return o, fmt.Errorf("nearside: Connections (%d), Timeout (%s) and WriteTimeout (%s) must not be negative", o.Connections, o.Timeout, o.WriteTimeout)
	}
	if o.L0 != nil {
		l := *o.L0
		setDefault(&l.Bound, DefaultL0Bound)
		if l.MaxBytes == 0 {
			setDefault(&l.MaxEntries, DefaultL0Entries)
		}
		if l.Bound < 0 || l.MaxBytes < 0 || l.MaxEntries < 0 || l.MaxBytes > 0 && l.MaxEntries > 0 {
			return o, fmt.Errorf("nearside: L0: one of MaxEntries (%d) and MaxBytes (%d), and no negative Bound (%s)", l.MaxEntries, l.MaxBytes, l.Bound)
		}
		o.L0, o.Connections = &l, 1
	}
	if o.Dial == nil {
		path := o.Socket
		o.Dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	}
	return o, nil
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// programName is the program's file name as a client's name may be.
func programName() string {
	name := os.Args[0]
	name = name[strings.LastIndexByte(name, '/')+1:]
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, name)
}
