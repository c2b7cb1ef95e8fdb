package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"github.com/nearside-cache/nearside/api"
	"github.com/nearside-cache/nearside/bus"
)

// keyList is a list of keys of one namespace, one a line.
type keyList struct {
	in        io.ReadCloser
	namespace string
	size      int64        // of the list in bytes; 0: unknown
	read      atomic.Int64 // bytes of it
	err       error        // why its end was not reached; set before feed closes its channel
}

// listedKey is a line of the list.
type listedKey struct {
	key   string
	fault error // why it is no key of the namespace
}

// openKeys opens the list in a file, or on standard input.
func openKeys(name, namespace string, stdin io.Reader) (*keyList, error) {
	if name == "-" {
		return &keyList{in: io.NopCloser(stdin), namespace: namespace}, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, &codeError{codeUsage, fmt.Errorf("keys-from: the list cannot be opened: %w", err)}
	}
	l := &keyList{in: file, namespace: namespace}
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		l.size = info.Size()
	}
	return l, nil
}

// lineRoom is what a line may have besides its key: blanks, a carriage return.
const lineRoom = 1024

// each hands every key to use, until use returns false or the list ends.
func (l *keyList) each(use func(listedKey) bool) error {
	lines := bufio.NewScanner(l.in)
	lines.Buffer(nil, api.MaxKey+lineRoom)
	number := 0
	for lines.Scan() {
		number++
		l.read.Add(int64(len(lines.Bytes())) + 1)
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		key, err := l.keyOf(text)
		if err != nil {
			err = fmt.Errorf("line %d: %w", number, err)
		}
		if !use(listedKey{key: key, fault: err}) {
			return nil
		}
	}
	err := lines.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		err = fmt.Errorf("it is longer than any key: want at most %d bytes", api.MaxKey)
	}
	if err != nil {
		return fmt.Errorf("keys-from: line %d cannot be read: %w", number+1, err)
	}
	return nil
}

// feed is each for a channel, which it closes, until ctx ends.
func (l *keyList) feed(ctx context.Context, keys chan<- listedKey, pace func(context.Context) error) {
	defer close(keys)
	l.err = l.each(func(k listedKey) bool {
		if k.fault == nil && pace(ctx) != nil {
			return false
		}
		select {
		case keys <- k:
			return true
		case <-ctx.Done():
			return false
		}
	})
}

// keyOf returns the key that a line names. One that has no namespace gets that of
// the list; one of another namespace is refused, for it may be the wrong list.
func (l *keyList) keyOf(text string) (string, error) {
	key := text
	if of := bus.NamespaceOf(text); of != l.namespace {
		if strings.Contains(text, ":") {
			return text, fmt.Errorf("it is of namespace %s: write %s:%.100s if that is the key", printable(of), l.namespace, text)
		}
		key = l.namespace + ":" + text
	}
	if len(key) > api.MaxKey {
		return key, fmt.Errorf("the key has %d bytes: want at most %d", len(key), api.MaxKey)
	}
	return key, nil
}

// done is the part of the list that was read, 0 when that is not known.
func (l *keyList) done() float64 {
	if l.size == 0 {
		return 0
	}
	return min(1, float64(l.read.Load())/float64(l.size))
}
