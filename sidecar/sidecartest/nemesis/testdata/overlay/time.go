// This file is added to package time of processes that the nemesis harms.

package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// nemesis is a file's memory that is shared with the nemesis. Its words are the
// seconds that the wall clock is ahead, what it showed last, and whether the
// disk is full.
var nemesis = mapNemesis()

func mapNemesis() *[3]int64 {
	path, ok := syscall.Getenv("NEARSIDE_NEMESIS_MACHINE")
	if !ok {
		return new([3]int64)
	}
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("nemesis: " + path + ": " + err.Error())
	}
	b, err := syscall.Mmap(fd, 0, 3*8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		panic("nemesis: " + path + ": " + err.Error())
	}
	_ = syscall.Close(fd)
	return (*[3]int64)(unsafe.Pointer(&b[0]))
}

// jumped is what the wall clock shows when the system's is at sec. The monotonic
// clock does not jump.
func jumped(sec int64) int64 {
	sec += atomic.LoadInt64(&nemesis[0])
	atomic.StoreInt64(&nemesis[1], sec)
	return sec
}

// NemesisDiskFull reports whether the disk is full.
func NemesisDiskFull() bool { return atomic.LoadInt64(&nemesis[2]) != 0 }
