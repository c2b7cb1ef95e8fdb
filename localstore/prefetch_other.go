//go:build !amd64 && !arm64

package localstore

import "unsafe"

// prefetch would ask the processor to load the cache line at p.
func prefetch(unsafe.Pointer) {}
