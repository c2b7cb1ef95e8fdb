package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/embedded"
	"github.com/nearside-cache/nearside/bus/natsbus"
	"github.com/nearside-cache/nearside/sidecar"
)

// names of the sidecars, and of their sockets without .sock.
var names = [...]string{"pod-a", "pod-b", "pod-c"}

// memory is the L1 budget of each: the whole data set fits.
const memory = 16 << 20

// pod is one sidecar with its own attachment to the stream.
type pod struct {
	name    string
	socket  string
	bus     *natsbus.Bus
	sidecar *sidecar.Sidecar
}

// fleet is the sidecars and their broker, with all their files in one folder.
type fleet struct {
	dir    string
	broker *embedded.Server
	pods   []*pod

	stop   context.CancelFunc // of the sidecars
	wait   sync.WaitGroup
	failed chan error // of a sidecar that ended by itself; has room for all
}

// startFleet returns when every sidecar is ready. wrap stands between each
// sidecar and its bus. On an error nothing is left behind.
func startFleet(ctx context.Context, wrap func(bus.Bus) bus.Bus) (_ *fleet, err error) {
	f := &fleet{failed: make(chan error, len(names))}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.dir, err = os.MkdirTemp("", "nearside-demo-"); err != nil {
		return nil, fmt.Errorf("temporary folder: %w", err)
	}
	if f.broker, err = embedded.Start(embedded.Config{Dir: filepath.Join(f.dir, "nats")}); err != nil {
		return nil, err
	}
	subjects, err := bus.NewSubjects(bus.DefaultDomain)
	if err != nil {
		return nil, err
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.stop = stop
	for _, name := range names {
		if err := f.startPod(work, name, subjects, wrap); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, p := range f.pods {
		select {
		case <-p.sidecar.Ready():
		case err := <-f.failed:
			return nil, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return f, nil
}

func (f *fleet) startPod(ctx context.Context, name string, subjects bus.Subjects, wrap func(bus.Bus) bus.Bus) (err error) {
	p := &pod{name: name, socket: filepath.Join(f.dir, name+".sock")}
	if p.bus, err = natsbus.Open(ctx, natsbus.Config{
		InProcess: f.broker, Name: "nearside demo " + name,
		Stream: natsbus.StreamConfig{Subjects: subjects}, CreateStream: true,
	}); err != nil {
		return err
	}
	f.pods = append(f.pods, p)
	cfg := sidecar.DefaultConfig()
	cfg.Socket, cfg.Admin, cfg.Memory, cfg.Bus = p.socket, "127.0.0.1:0", memory, wrap(p.bus)
	if p.sidecar, err = sidecar.Listen(cfg); err != nil {
		return fmt.Errorf("%w (the folder of the sockets is made in TMPDIR)", err)
	}
	f.wait.Go(func() {
		if err := p.sidecar.Run(ctx); err != nil {
			f.failed <- fmt.Errorf("%s: %w", name, err)
		}
	})
	return nil
}

// Close ends everything and removes the folder.
func (f *fleet) Close() error {
	if f.stop != nil {
		f.stop()
	}
	f.wait.Wait()
	var faults []error
	for _, p := range f.pods {
		faults = append(faults, p.bus.Close())
	}
	if f.broker != nil {
		faults = append(faults, f.broker.Close())
	}
	if f.dir != "" {
		faults = append(faults, os.RemoveAll(f.dir))
	}
	return errors.Join(faults...)
}
