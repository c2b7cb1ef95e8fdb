package sidecar

import (
	"errors"
	"fmt"
	"net"
)

// peer is the process at the other end of a connection, as the kernel noted it
// when the connection was made.
type peer struct {
	uid uint32
	pid int32
}

var errNoUnixSocket = errors.New("only a Unix socket tells who connects")

// peerOf returns the peer of a connection, where the system tells it.
func peerOf(nc net.Conn) (peer, error) {
	unixConn, ok := nc.(*net.UnixConn)
	if !ok {
		return peer{}, errNoUnixSocket
	}
	return credentials(unixConn)
}

// peerWords names the peer of a connection for the audit.
func peerWords(nc net.Conn) string {
	p, err := peerOf(nc)
	switch {
	case errors.Is(err, errNoUnixSocket):
		return fmt.Sprintf("%s %v", nc.RemoteAddr().Network(), nc.RemoteAddr())
	case err != nil:
		return "not known: " + err.Error()
	}
	return fmt.Sprintf("uid %d, pid %d", p.uid, p.pid)
}
