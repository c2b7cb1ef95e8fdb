package nemesis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
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
		s.process = newProcess(dir, s.spec.Name, func() *exec.Cmd { return b.Command(s.spec) }, failed)
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

// isolate cuts a server off the others, its clients not.
func (c *cluster) isolate(i int) {
	for _, p := range c.around(i) {
		p.up.set(true, 0)
		p.down.set(true, 0)
	}
}

// around returns the routes that a server may have with others.
func (c *cluster) around(i int) (ps []*proxy) {
	for ends, p := range c.direct {
		if ends[0] == i || ends[1] == i {
			ps = append(ps, p)
		}
	}
	return append(ps, c.told...) // whoever dialled these is not known
}

// heal opens all routes and runs all servers.
func (c *cluster) heal() error {
	for _, p := range c.direct {
		p.open()
	}
	for _, p := range c.told {
		p.open()
	}
	var errs []error
	for _, s := range c.servers {
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
	}
	for _, p := range c.direct {
		errs = append(errs, p.close())
	}
	for _, p := range c.told {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}
