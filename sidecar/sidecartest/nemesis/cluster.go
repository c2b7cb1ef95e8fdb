package nemesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Broker knows NATS, which this package does not.
type Broker interface {
	// Command returns a process, not started, that runs a server.
	Command(ServerSpec) *exec.Cmd
	// Leader returns the name of the server that leads the domain's stream. urls
	// are those of all servers, separated by commas.
	Leader(ctx context.Context, urls string) (string, error)
	// Replicas returns how many servers hold the stream and are up to date.
	Replicas(ctx context.Context, urls string) (int, error)
	// DeleteStream deletes it.
	DeleteStream(ctx context.Context, urls string) error
	// Newest returns when, by the leader's clock, the stream took its last message.
	Newest(ctx context.Context, urls string) (time.Time, error)
	// Fill stores what nobody wants until the servers take no more, and reports
	// whether they said so before ctx ended. Empty makes room again.
	Fill(ctx context.Context, urls string) (full bool, err error)
	Empty(ctx context.Context, urls string) error
	// DeleteBuckets deletes the buckets of the shared tier. FillBuckets fills them
	// until what was in them has given way. CopyBuckets copies what is in them;
	// restore puts it back, over what is newer. All return how many buckets, or
	// entries, they harmed.
	DeleteBuckets(ctx context.Context, urls string) (int, error)
	FillBuckets(ctx context.Context, urls string) (int, error)
	CopyBuckets(ctx context.Context, urls string) (n int, restore func(ctx context.Context, urls string) (int, error), err error)
}

// ServerSpec says how a server shall run. Its clients must not be told of other
// servers' addresses.
type ServerSpec struct {
	Name  string
	Store string // folder
	Port  int    // of clients, on 127.0.0.1
	// Of a cluster: where it listens for routes, what others are told of that, and
	// where the others are. Routes is empty for a server alone.
	ClusterPort int
	Advertise   string
	Routes      []string
}

// server is one server of the cluster.
type server struct {
	*process
	spec ServerSpec
}

func (s *server) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.spec.Port)) }

// cluster is the NATS servers and the routes between them.
type cluster struct {
	broker  Broker
	servers []*server
	direct  map[[2]int]*proxy // routes that from dials to to
	told    []*proxy          // routes to a server whose address was learned from others
}

// newCluster starts n servers. On an error what was started is the caller's to
// close.
func newCluster(dir string, n int, b Broker, failed func(error)) (*cluster, error) {
	c := &cluster{broker: b, direct: make(map[[2]int]*proxy)}
	ports, err := freePorts(2 * n)
	if err != nil {
		return c, err
	}
	for i := range n {
		s := &server{spec: ServerSpec{
			Name: fmt.Sprintf("nats-%d", i), Store: filepath.Join(dir, fmt.Sprintf("store-%d", i)),
			Port: ports[2*i], ClusterPort: ports[2*i+1],
		}}
		if s.process, err = newProcess(dir, s.spec.Name, s.spec.Store, func() *exec.Cmd { return b.Command(s.spec) }, failed); err != nil {
			return c, err
		}
		c.servers = append(c.servers, s)
	}
	if n > 1 {
		if err := c.route(); err != nil {
			return c, err
		}
	}
	for _, s := range c.servers {
		if err := s.start(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// route puts a proxy between each two servers, for each direction.
func (c *cluster) route() error {
	for to, target := range c.servers {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(target.spec.ClusterPort))
		told, err := newProxy(addr)
		if err != nil {
			return err
		}
		c.told = append(c.told, told)
		target.spec.Advertise = told.addr()
		for from, s := range c.servers {
			if from == to {
				continue
			}
			p, err := newProxy(addr)
			if err != nil {
				return err
			}
			c.direct[[2]int{from, to}] = p
			s.spec.Routes = append(s.spec.Routes, "nats://"+p.addr())
		}
	}
	return nil
}

// freePorts returns ports that nobody listened on just now.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, listenErr := net.Listen("tcp", "127.0.0.1:0")
		if listenErr != nil {
			return nil, errors.Join(err, fmt.Errorf("free ports: %w", listenErr))
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// urls of all servers, past every proxy.
func (c *cluster) urls() string {
	var text string
	for i, s := range c.servers {
		if i > 0 {
			text += ","
		}
		text += "nats://" + s.addr()
	}
	return text
}

// leader returns the server that leads the stream, nil when none does.
func (c *cluster) leader(ctx context.Context) *server {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	name, err := c.broker.Leader(ctx, c.urls())
	if err != nil {
		return nil
	}
	for _, s := range c.servers {
		if s.name == name {
			return s
		}
	}
	return nil
}

// isolate cuts what a server says to the others, what they say to it, or both;
// its clients it still hears.
func (c *cluster) isolate(i int, says, hears bool) {
	for ends, p := range c.direct {
		switch i {
		case ends[0]:
			p.up.set(says, 0)
			p.down.set(hears, 0)
		case ends[1]:
			p.up.set(hears, 0)
			p.down.set(says, 0)
		}
	}
	for _, p := range c.told { // whoever dialled these is not known
		p.up.set(true, 0)
		p.down.set(true, 0)
	}
}

// slow delays what servers say to each other.
func (c *cluster) slow(d time.Duration) {
	for _, p := range c.routes() {
		p.up.set(false, d)
		p.down.set(false, d)
	}
}

// routes are all ways between servers.
func (c *cluster) routes() []*proxy { return append(slices.Collect(maps.Values(c.direct)), c.told...) }

// held counts what the routes held up so far.
func (c *cluster) held() (n int64) {
	for _, p := range c.routes() {
		n += p.held.Load()
	}
	return n
}

// open opens all routes.
func (c *cluster) open() {
	for _, p := range c.routes() {
		p.open()
	}
}

// heal opens all routes, puts clocks and disks right, and runs all servers.
func (c *cluster) heal() error {
	c.open()
	var errs []error
	for _, s := range c.servers {
		s.machine.heal()
		s.signal(syscall.SIGCONT)
		errs = append(errs, s.start())
	}
	return errors.Join(errs...)
}

// close ends the servers, without regard to what they hold.
func (c *cluster) close() error {
	var errs []error
	for _, s := range c.servers {
		s.end(syscall.SIGKILL)
		errs = append(errs, s.machine.close())
	}
	for _, p := range c.routes() {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}
