//go:build linux

// Command loadgen measures GET hits of one server on a Unix socket and prints
// one line of JSON. It is made to cost little beside the server: one thread, an
// epoll loop of its own, requests of constant size and answers that are counted,
// not parsed. With -report it makes a table of such lines instead.
//
// The server must hold the values: -fill stores them first. Keys look like those
// of redis-benchmark with -r: PREFIX:000000000042.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// load is what is asked of a server.
type load struct {
	Conns int `json:"conns"`
	Depth int `json:"depth"` // requests on their way on each connection
	Size  int `json:"size"`  // of a value in bytes
	Keys  int `json:"keys"`
}

// result is one measurement. Latencies are from sending a batch of Depth
// requests to its last answer, in microseconds.
type result struct {
	load
	Server       string  `json:"server"`
	Generator    string  `json:"generator"`
	Round        int     `json:"round"`
	OpsPerSecond float64 `json:"ops_per_second"`
	P50          float64 `json:"p50_us"`
	P99          float64 `json:"p99_us"`
	Max          float64 `json:"max_us"`
	// CPU is what the server's process took for one request, in microseconds of
	// all its threads; 0 when not known. It is what neighbours on the machine
	// disturb least.
	CPU float64 `json:"cpu_us,omitempty"`
}

// options are the flags.
type options struct {
	load
	socket, protocol, prefix, server string
	round, pid                       int
	duration, warmup                 time.Duration
	fill                             bool
	report, plot                     string
}

func parseFlags() options {
	var o options
	flag.StringVar(&o.socket, "socket", "", "path of the server's Unix socket")
	flag.StringVar(&o.protocol, "protocol", "resp", "resp, or memcached for its meta protocol")
	flag.StringVar(&o.server, "server", "", "name of the server in the result")
	flag.StringVar(&o.prefix, "prefix", "key", "what keys begin with")
	flag.IntVar(&o.round, "round", 0, "number of the round in the result")
	flag.IntVar(&o.pid, "pid", 0, "the server's process, whose CPU time is measured")
	flag.IntVar(&o.Conns, "conns", 50, "connections, 1 to 10000")
	flag.IntVar(&o.Depth, "depth", 1, "requests on their way on each connection, 1 to 1000")
	flag.IntVar(&o.Size, "size", 100, "bytes of a value, 1 to 1048576")
	flag.IntVar(&o.Keys, "keys", 1000, "number of keys, asked for at random, 1 to 100000000")
	flag.DurationVar(&o.duration, "duration", time.Second, "time that is measured, up to 1h")
	flag.DurationVar(&o.warmup, "warmup", 200*time.Millisecond, "time before that, up to 1h")
	flag.BoolVar(&o.fill, "fill", false, "only store the values and see that they are kept")
	flag.StringVar(&o.report, "report", "", "make a table of the results in this file, one JSON object a line")
	flag.StringVar(&o.plot, "plot", "", "draw the results of -report into this file, as SVG")
	flag.Parse()
	return o
}

// check bounds what a run can take.
func (o options) check() error {
	for _, f := range []struct {
		name      string
		is, limit int
	}{
		{"conns", o.Conns, 10_000}, {"depth", o.Depth, 1000}, {"size", o.Size, 1 << 20}, {"keys", o.Keys, 100_000_000},
		{"duration", int(o.duration), int(time.Hour)}, {"warmup", int(o.warmup) + 1, int(time.Hour) + 1},
	} {
		if f.is < 1 || f.is > f.limit {
			return fmt.Errorf("-%s is out of range: see -help", f.name)
		}
	}
	return nil
}

func main() {
	if err := run(parseFlags()); err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.report != "" {
		return report(o.report, o.plot, os.Stdout)
	}
	if err := o.check(); err != nil {
		return err
	}
	p, err := newProtocol(o.protocol, o.prefix, o.Size)
	if err != nil {
		return err
	}
	if o.fill {
		return fill(o, p)
	}
	r, err := measure(o, p)
	if err != nil {
		return err
	}
	r.load, r.Server, r.Generator, r.Round = o.load, o.server, "loadgen", o.round
	return json.NewEncoder(os.Stdout).Encode(r)
}
