package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"
	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/sidecar"
)

// settle is how long a folder must be quiet before a changed file is read: an
// editor or a ConfigMap takes several steps.
const settle = 100 * time.Millisecond

// reloader reads the configuration anew and gives the sidecar its policies.
type reloader struct {
	given   *pflag.FlagSet // the command line
	running *pflag.FlagSet // the settings that the sidecar was started with
	sidecar *sidecar.Sidecar
	// effective tells what holds, which a reload changes.
	effective *effective
	log       hclog.Logger
	last      []byte // contents of the file when it was last read
}

// run reloads on SIGHUP and when the file has changed, until ctx ends.
func (r *reloader) run(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	path := r.path()
	changes, failures, stop := r.watch(path)
	defer stop()
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	for {
		select {
		case <-hup:
			r.last = contents(path)
			r.reload()
		case <-changes:
			quiet.Reset(settle)
		case <-quiet.C:
			// The folder has other files, and a write may change nothing. The first
			// time, the file may have changed before it was watched.
			if now := contents(path); now != nil && !bytes.Equal(now, r.last) {
				r.last = now
				r.reload()
			}
		case err := <-failures:
			r.log.Warn("a change of the configuration file may go unnoticed: send SIGHUP", "error", err)
		case <-ctx.Done():
			return nil
		}
	}
}

// path returns the configuration file's path, empty without one.
func (r *reloader) path() string { return r.running.Lookup("config").Value.String() }

// contents returns a file's contents, nil when it cannot be read: it may be
// about to be replaced, and a reload would say why.
func contents(path string) []byte {
	if path == "" {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return data
}

// watch watches the file's folder: editors and Kubernetes put another file, or
// another link, in the place of the old one, and a watch of the file itself
// would stay with that. The channels are nil without a file.
func (r *reloader) watch(path string) (<-chan fsnotify.Event, <-chan error, func()) {
	none := func() {}
	if path == "" {
		return nil, nil, none
	}
	w, err := fsnotify.NewWatcher()
	if err == nil {
		if err = w.Add(filepath.Dir(path)); err == nil {
			return w.Events, w.Errors, func() { r.closed(w) }
		}
		r.closed(w)
	}
	r.log.Warn("changes of the configuration file cannot be watched: send SIGHUP after one", "error", err)
	return nil, nil, none
}

func (r *reloader) closed(w *fsnotify.Watcher) {
	if err := w.Close(); err != nil {
		r.log.Warn("closing the watch of the configuration file", "error", err)
	}
}

// reload takes over the policies of a configuration without fault, and refuses
// another whole.
func (r *reloader) reload() {
	o, fs, err := loadServe(r.given)
	if err == nil && o.missing != "" {
		// It was there, or was never: in neither case do the defaults hold from now on.
		err = fmt.Errorf("config: the file %s is missing", o.missing)
	}
	if err != nil {
		r.sidecar.PoliciesRefused()
		r.refuse(err)
		return
	}
	if err := r.sidecar.SetPolicies(o.sidecar.Policies); err != nil {
		r.refuse(err)
		return
	}
	r.effective.reload(o.settings)
	r.log.Info("the policies were reloaded", "namespaces", len(o.sidecar.Policies.Namespaces))
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Value.String() != r.running.Lookup(f.Name).Value.String() {
			r.log.Warn("a setting has changed that waits for a restart", "setting", f.Name)
		}
	})
}

// refuse logs every fault in a line of its own.
func (r *reloader) refuse(err error) {
	var faults faultsError
	if !errors.As(err, &faults) {
		faults = faultsError{err}
	}
	r.log.Error("the configuration was not reloaded, the old policies stay", "faults", len(faults))
	for i, fault := range faults {
		r.log.Error("fault", "number", fmt.Sprintf("%d/%d", i+1, len(faults)), "what", fault)
	}
}
