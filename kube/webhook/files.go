package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"

	"github.com/nearside-cache/nearside/kube/inject"
)

// Files that are read again when they change: labels of
// nearside_injector_reloads_total.
const (
	fileSettings    = "settings"
	fileCertificate = "certificate"
)

const (
	// settle is how long a folder must be quiet before its files are read: what
	// changes a ConfigMap or a Secret takes several steps.
	settle = 200 * time.Millisecond
	// readAgain is how often they are read although nothing told of a change.
	readAgain = time.Minute
	// maxSettings bounds the settings file, in bytes.
	maxSettings = 1 << 20
)

// follow calls reload when something in a folder may have changed, and now and
// then, until ctx ends.
func follow(ctx context.Context, dir string, log hclog.Logger, reload func()) {
	var (
		events   chan fsnotify.Event
		failures chan error
	)
	if w, err := fsnotify.NewWatcher(); err != nil {
		log.Warn("changes are found late: the folder cannot be watched", "folder", dir, "error", err)
	} else {
		defer func() {
			if err := w.Close(); err != nil {
				log.Warn("closing the watch of a folder", "folder", dir, "error", err)
			}
		}()
		if err := w.Add(dir); err != nil {
			log.Warn("changes are found late: the folder cannot be watched", "folder", dir, "error", err)
		}
		events, failures = w.Events, w.Errors
	}
	quiet := time.NewTimer(0) // it may have changed before it was watched
	defer quiet.Stop()
	for {
		select {
		case <-events:
			quiet.Reset(settle)
		case err := <-failures:
			log.Warn("a change may be found late", "folder", dir, "error", err)
		case <-quiet.C:
			reload()
			quiet.Reset(readAgain)
		case <-ctx.Done():
			return
		}
	}
}

// ErrSettings says that the settings file has faults, which are all told.
var ErrSettings = errors.New("webhook: the settings cannot be used")

// readSettings reads a settings file of at most 1 MiB. version is the program's
// own and kubernetes that of the API server: see inject.Settings. The contents are
// nil if it could not be read.
func readSettings(path, version, kubernetes string) (s inject.Settings, data []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, nil, fmt.Errorf("%w: %w", ErrSettings, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, maxSettings+1))
	if err == nil && len(data) > maxSettings {
		err = fmt.Errorf("more than %d bytes", maxSettings)
	}
	if err == nil {
		s, err = inject.ReadSettings(data)
	}
	if err != nil {
		return s, data, fmt.Errorf("%w: %s: %w", ErrSettings, path, err)
	}
	s.Version, s.Kubernetes = version, kubernetes
	return s, data, nil
}

// readCertificates reads what cert-manager, or whoever, has put into a folder.
func readCertificates(dir string) (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(filepath.Join(dir, keyServing), filepath.Join(dir, keyServingKey))
	if err != nil {
		return nil, fmt.Errorf("webhook: the certificate in %s: %w", dir, err)
	}
	return &c, nil
}
