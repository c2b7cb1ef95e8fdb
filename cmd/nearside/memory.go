package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/docker/go-units"
	"github.com/hashicorp/go-hclog"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/cgroup"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

const (
	// cacheShare is the percentage of a container's memory limit that the cache
	// gets where nobody says how much. Of the rest half is for the buffers of
	// connections, and half for what a process needs at rest and for garbage.
	cacheShare = 50
	// collectorShare is the percentage of a container's memory limit from which
	// the collector works harder. What Go does not count has the rest.
	collectorShare = 90
	// mostShare is the percentage from which a cache leaves too little for the
	// buffers of connections and for the process itself.
	mostShare = 75
)

// share returns so many percent of n.
func share(n, percent int64) int64 { return n/100*percent + n%100*percent/100 }

// container is what the container around a process allows.
type container struct {
	memory int64 // bytes; 0: no limit, or no container
	err    error // why it could not be found out
}

func readContainer() container {
	memory, _, err := cgroup.MemoryLimit(os.DirFS("/"))
	return container{memory, err}
}

// settings returns what follows from the container's limit.
func (c container) settings() []settings.Derived {
	if c.memory == 0 {
		return nil
	}
	return []settings.Derived{{
		Flag:   "memory",
		Value:  strconv.FormatInt(share(c.memory, cacheShare), 10),
		Origin: fmt.Sprintf("%d %% of the container's memory limit of %s", cacheShare, units.BytesSize(float64(c.memory))),
	}}
}

// collectorLimit returns the bytes from which the collector works harder. Without
// a container that is before garbage doubles the budget of the cache: by then the
// cache, its clients' buffers and what a process needs at rest are full.
func (c container) collectorLimit(budget int64) int64 {
	const atRest = 64 << 20
	if c.memory > 0 {
		return share(c.memory, collectorShare)
	}
	return budget + budget/4 + atRest
}

// limitMemory bounds the heap, and tells what was made of the container's limit.
// GOMEMLIMIT in the environment prevails.
func (o *serveOptions) limitMemory(log hclog.Logger) {
	c, budget := o.container, o.sidecar.Memory
	limit := c.collectorLimit(budget)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	} else {
		limit = debug.SetMemoryLimit(-1)
	}
	if c.err != nil {
		log.Warn("the cache is not sized by the container: give --memory and GOMEMLIMIT", "error", c.err)
	}
	if c.memory == 0 {
		return
	}
	size := func(n int64) string { return units.BytesSize(float64(n)) }
	log.Info("memory", "container", size(c.memory), "cache", size(budget), "gomemlimit", size(limit), "from", o.settings.Origin("memory"))
	if budget > share(c.memory, mostShare) {
		log.Warn("the cache may grow until the container is killed: give it less memory, or the container more",
			"cache", size(budget), "container", size(c.memory))
	}
}
