package sidecar

import (
	"net"

	"golang.org/x/sys/unix"
)

// canTellPeers says whether peerUID can work on this system.
const canTellPeers = true

// peerUID returns the user of the process at the other end, as the kernel noted
// it when the connection was made.
func peerUID(nc *net.UnixConn) (uint32, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	return cred.Uid, nil
}
