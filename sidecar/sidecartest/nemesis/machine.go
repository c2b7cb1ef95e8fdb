package nemesis

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The binaries of a run are built with changes of the standard library (see
// testdata/overlay) that look for these in their environment.
const (
	machineEnv = "NEARSIDE_NEMESIS_MACHINE" // path of the machine's file
	diskEnv    = "NEARSIDE_NEMESIS_DISK"    // the folder that may be full
)

// machine is what a process believes of the machine that it runs on: how late it
// is, and whether its disk is full. It outlives the process. Its methods are safe
// for concurrent use.
type machine struct {
	path   string
	shared []byte
	words  *[3]int64 // as in testdata/overlay/time.go
}

func newMachine(dir, name string) (*machine, error) {
	m := &machine{path: filepath.Join(dir, name+".machine")}
	f, err := os.OpenFile(m.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("machine of %s: %w", name, err)
	}
	if err = f.Truncate(int64(unsafe.Sizeof(*m.words))); err == nil {
		m.shared, err = unix.Mmap(int(f.Fd()), 0, int(unsafe.Sizeof(*m.words)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("machine of %s: %w", name, err)
	}
	m.words = (*[3]int64)(unsafe.Pointer(&m.shared[0]))
	return m, nil
}

// setAhead lets the wall clock jump to d ahead of the real one, in seconds.
func (m *machine) setAhead(d time.Duration) { atomic.StoreInt64(&m.words[0], int64(d/time.Second)) }

// ahead returns how far ahead the wall clock is.
func (m *machine) ahead() time.Duration {
	return time.Duration(atomic.LoadInt64(&m.words[0])) * time.Second
}

// shown returns the time that the process was told last; zero when it has not
// asked yet.
func (m *machine) shown() time.Time { return time.Unix(atomic.LoadInt64(&m.words[1]), 0) }

// setFull fills the disk, or makes room on it.
func (m *machine) setFull(full bool) {
	word := int64(0)
	if full {
		word = 1
	}
	atomic.StoreInt64(&m.words[2], word)
}

func (m *machine) heal() {
	m.setAhead(0)
	m.setFull(false)
}

// close must come after the last use.
func (m *machine) close() error { return unix.Munmap(m.shared) }
