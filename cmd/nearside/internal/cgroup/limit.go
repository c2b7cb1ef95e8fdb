// Package cgroup knows how much memory the container may take that this process
// runs in.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
)

// Files of a container's own limit, below the root of its file system. Runtimes
// mount the container's own group there, whatever group that is for the node.
// The limits of the groups around it are left out on purpose: where a container
// has none, they are those of the node, which others need too.
var files = []string{
	"sys/fs/cgroup/memory.max",                   // cgroup v2
	"sys/fs/cgroup/memory/memory.limit_in_bytes", // cgroup v1
}

// unlimited is what cgroup v1 says where there is no limit: the largest int64 in
// whole pages, which have 64 KiB at most.
const unlimited = math.MaxInt64 - 64<<10

// MemoryLimit returns the container's memory limit in bytes. ok is false where
// there is none, or no container. root is the root of the file system.
func MemoryLimit(root fs.FS) (limit int64, ok bool, err error) {
	for _, name := range files {
		data, err := fs.ReadFile(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, false, fmt.Errorf("the container's memory limit cannot be read: %w", err)
		}
		return parse(name, strings.TrimSpace(string(data)))
	}
	return 0, false, nil
}

func parse(name, text string) (limit int64, ok bool, err error) {
	if text == "max" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("the container's memory limit cannot be read: /%s: %w", name, err)
	}
	if n >= unlimited {
		return 0, false, nil
	}
	return int64(n), true, nil
}
