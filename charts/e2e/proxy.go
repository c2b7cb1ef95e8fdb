package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// proxy is a kubectl that listens on this machine for what is in the cluster.
type proxy struct {
	process *exec.Cmd
	address string
}

// startProxy starts a kubectl that says first, in so many words, where it listens.
func startProxy(ctx context.Context, says string, args ...string) (*proxy, error) {
	process := exec.CommandContext(ctx, "kubectl", args...)
	process.Stderr = os.Stderr
	out, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_, rest, ok := strings.Cut(line, says)
	if err != nil || !ok {
		return nil, errors.Join(fmt.Errorf("kubectl %s says %q: %w", args[0], line, err), process.Process.Kill())
	}
	return &proxy{process: process, address: strings.Fields(rest)[0]}, nil
}

func (p *proxy) close() {
	if err := p.process.Process.Kill(); err != nil {
		fmt.Println("kubectl:", err)
	}
	_ = p.process.Wait() // it was killed
}

// shop asks the app; at is services/shop or pods/NAME. It says where the answer is from.
func (p *proxy) shop(ctx context.Context, at, method, id, body string) (value, from string, err error) {
	url := fmt.Sprintf("http://%s/api/v1/namespaces/%s/%s:8080/proxy/products/%s", p.address, appSpace, at, id)
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s %s: %s: %s", method, url, response.Status, data)
	}
	return string(data), response.Header.Get("X-From"), err
}

// load is a steady stream of reads. Every answer must be good.
type load struct {
	stop  context.CancelFunc
	done  sync.WaitGroup
	mutex sync.Mutex
	reads int
	hits  int
	errs  []error
}

// startLoad reads from each of the places until stopped: services/shop, or pods/NAME.
func (p *proxy) startLoad(ctx context.Context, places ...string) *load {
	until, stop := context.WithCancel(ctx)
	l := &load{stop: stop}
	for _, place := range places {
		l.done.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-until.Done():
					return
				case <-tick.C:
				}
				value, from, err := p.shop(ctx, place, http.MethodGet, fmt.Sprintf("load-%d", i%20), "")
				l.count(value, from, err)
			}
		})
	}
	return l
}

func (l *load) count(value, from string, err error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if err == nil && value != "new" {
		err = fmt.Errorf("read %q", value)
	}
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	l.reads++
	if from == "cache" {
		l.hits++
	}
}

// finish ends the load. One failed read is a failure.
func (l *load) finish() (string, error) {
	l.stop()
	l.done.Wait()
	if len(l.errs) > 0 {
		return "", fmt.Errorf("%d of %d reads failed, first: %w", len(l.errs), l.reads+len(l.errs), l.errs[0])
	}
	if l.reads == 0 {
		return "", errors.New("nothing was read")
	}
	return fmt.Sprintf("%d reads, %d from the cache, none failed", l.reads, l.hits), nil
}
