package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// annotated has a pod that asks tried and not kept, without kubectl, whose start would
// take longer than what it is to see. A pod that was refused is an error.
func (s *scene) annotated(ctx context.Context) (injected bool, err error) {
	url := fmt.Sprintf("http://%s/api/v1/namespaces/%s/pods?dryRun=All", s.proxy.address, appSpace)
	text := strings.ReplaceAll(manifest("tried", true, "job"), "cache-aside:dev", s.appImage)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(text))
	if err != nil {
		return false, err
	}
	request.Header.Set("Content-Type", "application/yaml")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s: %s", response.Status, data)
	}
	return strings.Contains(string(data), `"nearside.dev/status"`), err
}

// admissions are pods that asked, one after the other.
type admissions struct {
	count, bare int // bare: let in without a sidecar
	refused     []error
}

// admissions tries pods until stopped.
func (s *scene) admissions(ctx context.Context) (stop func() admissions) {
	until, cancel := context.WithCancel(ctx)
	done := make(chan admissions)
	go func() {
		var a admissions
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ; until.Err() == nil; <-tick.C {
			a.add(s.annotated(ctx)) // to its end, also when stopped meanwhile
		}
		done <- a
	}()
	return func() admissions { cancel(); return <-done }
}

func (a *admissions) add(injected bool, err error) {
	a.count++
	switch {
	case err != nil:
		a.refused = append(a.refused, err)
	case !injected:
		a.bare++
	}
}

func (a admissions) allInjected() error {
	if a.bare > 0 {
		return fmt.Errorf("%d of %d pods were let in without a sidecar", a.bare, a.count)
	}
	return nil
}
