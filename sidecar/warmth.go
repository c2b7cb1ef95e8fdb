package sidecar

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/hot"
)

// warmth leaves the names of the hottest keys to the next life at this socket, which
// loads them anew, the hottest first: a restart then costs the origin no herd of
// readers that all miss (C7). Values are not left, nor keys of sensitive namespaces.
type warmth struct {
	path  string
	cache *cache.Cache
	log   hclog.Logger
}

const (
	warmKeys  = 256
	warmEvery = time.Minute
	warmBytes = 1 << 20 // of the file at most
)

// run queues what the last life left, once the stream is followed, and then writes
// down what is hot until ctx ends, and once more then. Failures cost a colder start
// and nothing else.
func (w warmth) run(ctx context.Context) {
	select {
	case <-w.cache.Ready():
	case <-ctx.Done():
		return
	}
	left, err := w.read()
	if err != nil {
		w.log.Warn("the hot keys of the last life cannot be read", "file", w.path, "error", err)
	}
	w.cache.Rewarm(left)
	tick := time.NewTicker(warmEvery)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			running = false
		}
		if err := w.write(); err != nil {
			w.log.Warn("the hot keys cannot be written down for the next life", "file", w.path, "error", err)
		}
	}
}

// read returns the keys of the file; none where there is no file, or one that was not
// written whole.
func (w warmth) read() ([]hot.Key, error) {
	f, err := os.Open(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, warmBytes))
	if err != nil {
		return nil, err
	}
	var keys []hot.Key
	lines := json.NewDecoder(bytes.NewReader(data))
	for len(keys) < warmKeys {
		var k hot.Key
		if lines.Decode(&k) != nil || k.Key == "" || len(k.Key) > api.MaxKey {
			break
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// write replaces the file.
func (w warmth) write() error {
	keys := w.cache.Hottest(warmKeys)
	if len(keys) == 0 {
		return nil // what an earlier life left may still be as good as anything
	}
	var b bytes.Buffer
	lines := json.NewEncoder(&b)
	for _, k := range keys {
		if err := lines.Encode(k); err != nil {
			return fmt.Errorf("hot keys: %w", err)
		}
	}
	if b.Len() > warmBytes {
		b.Truncate(bytes.LastIndexByte(b.Bytes()[:warmBytes], '\n') + 1)
	}
	next := w.path + ".next"
	if err := os.WriteFile(next, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("hot keys: %w", err)
	}
	if err := os.Rename(next, w.path); err != nil {
		return fmt.Errorf("hot keys: %w", err)
	}
	return nil
}
