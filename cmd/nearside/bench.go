package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/bench"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

func newBench() *cobra.Command {
	return newGroup("bench", "Measure a sidecar, or any server that speaks RESP",
		newBenchGet(), newBenchSet(), newBenchMixed(), newBenchInvalidate(), newBenchLag(), newBenchHitRatio())
}

// benchCodes ends the help of a measurement; failed says what 1 is for.
func benchCodes(failed string) string {
	return `

Ctrl-C ends it and prints what was measured. -o json prints one object, which
docs/benchmarks.md describes.

Exit codes: 0 measured, 1 ` + failed + `, 2 wrong usage,
3 no server answers or a connection broke, 4 not acknowledged, 5 refused,
7 the server answered with an error.`
}

// benchmark is what all measurements have in common.
type benchmark struct {
	client
	addr   string
	prefix string
	size   int
}

func (b *benchmark) register(fs *pflag.FlagSet) {
	fs.SortFlags = false
	b.client.register(fs)
	fs.StringVar(&b.addr, "addr", "", "measure a server at host:port, and no socket")
	b.registerKeys(fs)
}

func (b *benchmark) registerKeys(fs *pflag.FlagSet) {
	fs.StringVar(&b.prefix, "prefix", "bench:", "what keys begin with")
}

func (b *benchmark) registerSize(fs *pflag.FlagSet) {
	fs.Var(settings.Size(&b.size), "size", "bytes of a value")
}

// usualSize is that of a value if nobody says.
const usualSize = 100

// check returns what is wrong with the flags that all have, and takes --addr.
func (b *benchmark) check() error {
	if b.addr != "" {
		b.socket = b.addr
	}
	switch {
	case b.size < 1 || b.size > api.MaxBulk:
		return fmt.Errorf("size is %d: want 1 to %d", b.size, api.MaxBulk)
	case len(b.prefix) > maxPrefix:
		return fmt.Errorf("prefix has %d bytes: want at most %d", len(b.prefix), maxPrefix)
	}
	return nil
}

// maxPrefix leaves room in a key for what follows.
const maxPrefix = 1000

// ownPrefix makes the prefix one of this run, which finds nothing of a former
// one.
func (b *benchmark) ownPrefix() { b.prefix = b.unique() }

// unique is a key, and what keys can begin with, that was never used before.
func (b *benchmark) unique() string { return fmt.Sprintf("%s%x:", b.prefix, time.Now().UnixMicro()) }

func (b *benchmark) target() bench.Target {
	return bench.Target{Address: b.socket, Password: b.password}
}

// serverInfo is what a server says of itself.
type serverInfo struct {
	Address string `json:"address"`
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
}

// greet finds out whether the server answers this client, and what it is.
func (b *benchmark) greet(ctx context.Context) (_ serverInfo, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	conn, err := b.dial(ctx, nil)
	if err != nil {
		return serverInfo{}, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	hello, err := conn.Do(ctx, "HELLO", "3")
	if err != nil {
		return serverInfo{}, b.failed(err)
	}
	s := serverInfo{Address: b.socket}
	for i := 0; i+1 < len(hello.Elems); i += 2 {
		switch value := hello.Elems[i+1].Text(); hello.Elems[i].Text() {
		case "nearside_version":
			s.Name, s.Version = "nearside", value
		case "server":
			s.Name = value
		case "version":
			s.Version = value
		}
	}
	return s, nil
}

// tryValue stores a value and reads it, so that a server that refuses it is not
// measured at refusing. A server that drops it is: notes tell so.
func (b *benchmark) tryValue(ctx context.Context, notes io.Writer) error {
	key := b.unique() + "try" // a SET of one that was stored lately would be dropped
	value := string(make([]byte, b.size))
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	conn, err := b.dial(ctx, nil)
	if err != nil {
		return err
	}
	replies, err := conn.Pipeline(ctx, []string{"SET", key, value, "EX", "60"}, []string{"GET", key})
	if err = errors.Join(err, conn.Close()); err != nil {
		return b.failed(err)
	}
	for i, what := range []string{"stored", "read"} {
		if err := replies[i].Err(); err != nil {
			return fmt.Errorf("a value of %d bytes cannot be %s: %w", b.size, what, err)
		}
	}
	if replies[1].Str != value {
		fmt.Fprintf(notes, "The server does not keep what SET stores under %s: nearside explain %s tells why. Misses are measured.\n", key, key)
	}
	return nil
}

// measuring words an error of what was measured.
func (b *benchmark) measuring(err error) error {
	if err == nil || errors.Is(err, bench.ErrTrace) || errors.Is(err, bench.ErrLag) {
		return err
	}
	return b.failed(err)
}

// progress shows a line a second, if notes is a terminal, until stop is called.
func progress(notes io.Writer, line func(since time.Duration) string) (stop func()) {
	shown := newProgressLine(notes)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer shown.clear()
		begin, second := time.Now(), time.NewTicker(time.Second)
		defer second.Stop()
		for {
			select {
			case <-end:
				return
			case <-second.C:
				shown.show(line(time.Since(begin)))
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}
