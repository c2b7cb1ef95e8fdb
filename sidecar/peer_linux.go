package sidecar

import (
	"net"

	"golang.org/x/sys/unix"
)

// canTellPeers says whether credentials can work on this system.
const canTellPeers = true

// credentials returns the process at the other end.
func credentials(nc *net.UnixConn) (peer, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return peer{}, err
	}
	if failed != nil {
		return peer{}, failed
	}
	return peer{cred.Uid, cred.Pid}, nil
}
