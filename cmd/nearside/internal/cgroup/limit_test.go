package cgroup_test

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/cgroup"
)

const (
	v2     = "sys/fs/cgroup/memory.max"
	v1     = "sys/fs/cgroup/memory/memory.limit_in_bytes"
	hybrid = "sys/fs/cgroup/unified/memory.max" // not a container's
)

func system(files map[string]string) fs.FS {
	root := fstest.MapFS{}
	for name, text := range files {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

func TestMemoryLimit(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"v2":                            {map[string]string{v2: "134217728\n"}, 128 << 20},
		"v1":                            {map[string]string{v1: "268435456\n"}, 256 << 20},
		"v2 before v1":                  {map[string]string{v2: "134217728\n", v1: "1\n"}, 128 << 20},
		"v2 without a limit":            {map[string]string{v2: "max\n"}, 0},
		"v2 decides that there is none": {map[string]string{v2: "max\n", v1: "1\n"}, 0},
		"v1 without a limit":            {map[string]string{v1: "9223372036854771712\n"}, 0},
		"v1, pages of 64 KiB":           {map[string]string{v1: "9223372036854710272\n"}, 0},
		"v1, all ones":                  {map[string]string{v1: "18446744073709551615\n"}, 0},
		"no container":                  {map[string]string{hybrid: "1\n"}, 0},
	} {
		limit, ok, err := cgroup.MemoryLimit(system(c.files))
		require.NoError(t, err, name)
		require.Equal(t, c.want > 0, ok, name)
		require.Equal(t, c.want, limit, name)
	}
}

func TestMemoryLimitUnreadable(t *testing.T) {
	for _, text := range []string{"", "128Mi", "-1"} {
		_, ok, err := cgroup.MemoryLimit(system(map[string]string{v2: text}))
		require.ErrorContains(t, err, "the container's memory limit cannot be read: /"+v2, text)
		require.False(t, ok)
	}
	_, _, err := cgroup.MemoryLimit(fstest.MapFS{v2: {Mode: fs.ModeDir}})
	require.ErrorContains(t, err, "the container's memory limit cannot be read: ")
}
