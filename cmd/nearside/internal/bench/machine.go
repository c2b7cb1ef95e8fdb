package bench

import (
	"bufio"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine describes where this process runs, for whoever reads its results
// elsewhere.
type Machine struct {
	CPUs     int    `json:"cpus"`                // that this process may use
	CPU      string `json:"cpu_model,omitempty"` // as the kernel names it
	Kernel   string `json:"kernel"`
	Platform string `json:"platform"`
	Go       string `json:"go"`
}

// ThisMachine describes this machine; what cannot be found out is left empty.
func ThisMachine() Machine {
	m := Machine{
		CPUs: runtime.GOMAXPROCS(0), CPU: cpuModel(), Go: runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	return m
}

func cpuModel() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "" // no Linux
	}
	defer func() { _ = file.Close() }() // only read
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// cpuTime is what this process has used of processors, in and outside the
// kernel; 0 if that is not known.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
