package sidecar_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/sidecar"
)

func TestAllowUIDs(t *testing.T) {
	me := uint32(os.Getuid())
	s, _ := start(t, func(c *sidecar.Config) { c.AllowUIDs = []uint32{me + 1, me} })
	require.Equal(t, "PONG", s.Dial(t).Do("PING").Str)

	s, _ = start(t, func(c *sidecar.Config) { c.AllowUIDs = []uint32{me + 1} })
	require.Regexp(t, `^-NOPERM user \d+ may not connect: --allow-uids does not list it\r\n$`, dialRaw(t, s).rest())

	cfg := config(t)
	cfg.AllowUIDs, cfg.TCP = []uint32{me}, "127.0.0.1:0"
	_, err := sidecar.Listen(cfg)
	require.ErrorContains(t, err, "who connects over TCP cannot be told")
}
