package natsbus

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"

	"github.com/nearside-cache/nearside/bus"
)

// Limits and times of the connection. Short pings find a half-open connection
// in some two seconds; the client's own default takes four minutes.
const (
	pingInterval    = time.Second
	pingsMissed     = 2
	dialTimeout     = 2 * time.Second
	reconnectWait   = 100 * time.Millisecond
	reconnectJitter = 200 * time.Millisecond
	// DefaultLiveBuffer is how many live events wait at most while the handler
	// is busy.
	DefaultLiveBuffer = 65_536
	// liveBufferBytes bounds what these hold together.
	liveBufferBytes = 32 << 20
)

// Config says where the broker is and how to attach to a domain.
type Config struct {
	// URL is one or more comma-separated addresses, with user and password in
	// them if there are any. Not looked at when InProcess is set.
	URL string
	// InProcess is an embedded server to connect to without a port.
	InProcess interface{ InProcessConn() (net.Conn, error) }
	// Credentials is the path of a .creds file; NKeySeed that of a file with an
	// nkey seed. At most one of them.
	Credentials, NKeySeed string
	// CA, Cert and Key are paths of PEM files: whom to trust, and who we are.
	CA, Cert, Key string
	// Name is how the connection is called in the broker's lists.
	Name string
	// InboxPrefix replaces "_INBOX" where permissions demand it.
	InboxPrefix string
	// JetStreamDomain is needed where the stream is behind a leaf node.
	JetStreamDomain string

	// Stream is checked on attaching, and every time the leader is asked.
	Stream StreamConfig
	// CreateStream makes the stream when it is missing.
	CreateStream bool

	// LiveBuffer is how many live events may wait; 0 is DefaultLiveBuffer. On
	// overflow events are fetched from the stream instead.
	LiveBuffer int
	// Process is the random id of this process in pulses; empty: a new one.
	Process string
	// Monotonic is the clock of pulses; nil: the time since boot, suspended time
	// included.
	Monotonic func() time.Duration
	// Logger may be nil.
	Logger hclog.Logger

	// tap, in tests, stands between the subscription and the follower; nil: nothing does.
	tap func(bus.Message) []bus.Message
}

// Validate reports all faults at once, joined. Each names the setting as
// nearside's flags do, what it is and what it may be.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.URL == "" && c.InProcess == nil {
		fault("nats is empty, there is no NATS URL: want one such as nats://127.0.0.1:4222")
	}
	if c.Credentials != "" && c.NKeySeed != "" {
		fault("nats-creds and nats-nkey are both given: want one")
	} else if _, err := c.options(); err != nil {
		faults = append(faults, err)
	}
	if (c.Cert == "") != (c.Key == "") {
		fault("nats-cert is %q and nats-key is %q: want both or none", c.Cert, c.Key)
	}
	if strings.ContainsAny(c.JetStreamDomain, " \t\r\n.*>") {
		fault("nats-domain is %q: want a JetStream domain, one token of a subject", c.JetStreamDomain)
	}
	if c.LiveBuffer < 0 {
		fault("the live buffer is %d events: want 1 or more, or 0 for %d", c.LiveBuffer, DefaultLiveBuffer)
	}
	return errors.Join(append(faults, c.Stream.faults()...)...)
}

func (c *Config) complete() error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("natsbus: %w", err)
	}
	if c.LiveBuffer == 0 {
		c.LiveBuffer = DefaultLiveBuffer
	}
	if c.Process == "" {
		c.Process = newID()
	}
	if c.Monotonic == nil {
		c.Monotonic = sinceBoot
	}
	if c.Name == "" {
		c.Name = "nearside " + c.Stream.Subjects.Domain()
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return nil
}

// options returns the connection's settings without its handlers.
func (c *Config) options() ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name(c.Name),
		nats.RetryOnFailedConnect(true), // a sidecar starts while NATS is away
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // credentials may be put right while we wait
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.ReconnectBufSize(-1), // B8: no publish waits unseen in memory
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsMissed),
		nats.Timeout(dialTimeout),
		nats.SkipHostLookup(), // the dialer looks up too, and within the timeout
	}
	if c.InProcess != nil {
		opts = append(opts, nats.InProcessServer(c.InProcess))
	}
	if c.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(c.InboxPrefix))
	}
	if c.Credentials != "" {
		// The client reads the file at every connect and so follows rotation, but
		// would retry for ever when it was never there.
		if _, err := os.Stat(c.Credentials); err != nil {
			return nil, fmt.Errorf("nats-creds: the credentials file cannot be read: %w", err)
		}
		opts = append(opts, nats.UserCredentials(c.Credentials))
	}
	if c.NKeySeed != "" {
		opt, err := nats.NkeyOptionFromSeed(c.NKeySeed)
		if err != nil {
			return nil, fmt.Errorf("nats-nkey: the nkey seed file %s cannot be used: %w", c.NKeySeed, err)
		}
		opts = append(opts, opt)
	}
	if c.CA != "" {
		opts = append(opts, nats.RootCAs(c.CA))
	}
	if c.Cert != "" || c.Key != "" {
		opts = append(opts, nats.ClientCert(c.Cert, c.Key))
	}
	return opts, nil
}
