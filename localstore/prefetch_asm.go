//go:build amd64 || arm64

package localstore

import "unsafe"

// prefetch asks the processor to load the cache line at p. It reads nothing and cannot
// fail, so it needs no lock.
//
//go:noescape
func prefetch(p unsafe.Pointer)
