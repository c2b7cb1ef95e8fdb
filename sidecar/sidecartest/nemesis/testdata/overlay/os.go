// This file is added to package os of processes that the nemesis harms.

package os

import (
	"syscall"
	"time"
)

var nemesisDisk, _ = syscall.Getenv("NEARSIDE_NEMESIS_DISK")

// full is the error of every write to a file on the disk while that is full.
func (f *File) full() error {
	if nemesisDisk == "" || !time.NemesisDiskFull() || len(f.name) < len(nemesisDisk) || f.name[:len(nemesisDisk)] != nemesisDisk {
		return nil
	}
	return syscall.ENOSPC
}
