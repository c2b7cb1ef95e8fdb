//go:build !linux

package sidecar

import "context"

// drivers are those that work on this system, the default first.
var drivers = []string{"goroutine"}

func newDriver(ctx context.Context, s *server) (driver, error) { return goroutines{s, ctx}, nil }
