// Package audit writes down who changed what a sidecar does while it serves: one
// JSON object a line, to the log, and to a file where there is one.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// Who is a client as far as the sidecar knows it.
type Who struct {
	// Peer is the process at the other end of the connection, in the kernel's words,
	// or why it cannot be told.
	Peer string `json:"peer"`
	// Client is the name that the client gave itself, and ID its number here.
	Client string `json:"client,omitempty"`
	ID     int64  `json:"client_id,omitempty"`
}

// Itself is who makes the changes that no client asks for.
var Itself = Who{Peer: "nearside"}

// What was done. Values are append-only.
const (
	Toggle      = "toggle"       // a client changed a setting
	Reset       = "reset"        // a client gave a setting back to the policy
	Rollback    = "rollback"     // the time of a toggle has ended
	CrossTenant = "cross-tenant" // a wide purge named no tenant where there are tenants
)

// Record is one change. Fields are append-only.
type Record struct {
	Time      time.Time  `json:"time"` // by the machine's wall clock
	What      string     `json:"what"`
	Namespace string     `json:"namespace"`
	Setting   string     `json:"setting,omitempty"`
	Before    string     `json:"before,omitempty"`
	After     string     `json:"after,omitempty"`
	Until     *time.Time `json:"until,omitempty"` // when it is rolled back; nil: never
	Detail    string     `json:"detail,omitempty"`
	By        Who        `json:"by"`
}

// Log takes records. It is safe for concurrent use.
type Log struct {
	mu       sync.Mutex // orders the lines of the file
	file     string
	log      hclog.Logger
	failures prometheus.Counter
}

// Open returns a Log that writes to log, and appends to a file unless its name is
// empty. The file is opened for each record, which are few, so that it can be
// rotated; that it can be opened is tried at once.
func Open(file string, log hclog.Logger, r prometheus.Registerer) (*Log, error) {
	l := &Log{file: file, log: log, failures: prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "nearside", Name: "audit_errors_total", Help: "Audit records that could not be written to the file; the log has them.",
	})}
	r.MustRegister(l.failures)
	if err := l.append(nil); err != nil {
		return nil, fmt.Errorf("audit-log: %w", err)
	}
	return l, nil
}

// Write takes a record, which gets the time of now. What cannot be written to the
// file is still in the log: a change that an outage needs is not refused because
// a disk is full.
func (l *Log) Write(r Record) {
	r.Time = time.Now().UTC()
	line, err := json.Marshal(r)
	if err != nil {
		panic("audit: a record cannot be marshalled: " + err.Error())
	}
	l.log.Info(string(line))
	if err := l.append(append(line, '\n')); err != nil {
		l.failures.Inc()
		l.log.Error("the audit record could not be written to the file", "error", err)
	}
}

// append writes a line with one call, so that those of other processes on the
// same file do not mix with it.
func (l *Log) append(line []byte) (err error) {
	if l.file == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.OpenFile(l.file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("opening the file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(line); err != nil {
		return fmt.Errorf("writing to the file: %w", err)
	}
	return nil
}
