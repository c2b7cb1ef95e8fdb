package demo

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder makes the demo put its files where the test can look for them.
func folder(t *testing.T) string {
	dir, err := os.MkdirTemp("", "d") //nolint:usetesting // the paths of sockets go below and must be short
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.Remove(dir), "the demo leaves nothing behind") })
	t.Setenv("TMPDIR", dir)
	return dir
}

func TestOnceProvesWhatItShows(t *testing.T) {
	folder(t)
	var out bytes.Buffer
	c := Command()
	c.SetArgs([]string{"--once", "--duration", "2s"})
	c.SetOut(&out)
	require.NoError(t, c.ExecuteContext(t.Context()), out.String())
	t.Log("\n" + out.String())

	require.Contains(t, out.String(), attribution)
	require.Contains(t, out.String(), "No stale read.")
	for line, positive := range map[string]bool{"stale reads": false, "old fills refused": true, "reads": true, "writes": true} {
		found := regexp.MustCompile(`(?m)^` + line + ` +([\d,]+)`).FindStringSubmatch(out.String())
		require.NotNil(t, found, line)
		require.Equal(t, positive, strings.Trim(found[1], "0") != "", "%s: %s", line, found[1])
	}
	require.Regexp(t, `(?m)^all +[\d,]+ +[1-9][\d,]*`, out.String(), "hits")
	require.Regexp(t, `(?m)^0:0\d [\d,]+ reads`, out.String(), "a line a second")
}

func TestNothingMeasuredFails(t *testing.T) {
	folder(t)
	c := Command()
	c.SetArgs([]string{"--once", "--duration", "1ns"})
	c.SetOut(io.Discard)
	c.SilenceErrors, c.SilenceUsage = true, true
	require.ErrorIs(t, c.ExecuteContext(t.Context()), errUnmeasured)
}

func TestDurationMustBePositive(t *testing.T) {
	c := Command()
	c.SetArgs([]string{"--duration", "0s"})
	c.SilenceErrors, c.SilenceUsage = true, true
	require.ErrorContains(t, c.ExecuteContext(t.Context()), "--duration is 0s")
}

// ender ends a context as soon as a text has been printed.
type ender struct {
	bytes.Buffer
	text string
	end  func(printed string)
}

func (e *ender) Write(b []byte) (int, error) {
	n, err := e.Buffer.Write(b)
	if e.end != nil && strings.Contains(e.String(), e.text) {
		end := e.end
		e.end = nil
		end(e.String())
	}
	return n, err
}

func TestInterruptDuringTheLoadEndsCleanly(t *testing.T) {
	for _, once := range []bool{false, true} {
		folder(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out := &ender{text: " reads  ", end: func(string) { cancel() }}
		err := run(ctx, newScreen(out), options{duration: time.Hour, once: once})
		if once {
			require.ErrorIs(t, err, errInterrupted)
		} else {
			require.NoError(t, err)
		}
		require.Contains(t, out.String(), "stale reads")
		require.NotContains(t, out.String(), "stay up")
	}
}

// What the demo invites to works: the paths are real and a client reaches the
// data through them.
func TestSocketsStayUpAfterTheLoad(t *testing.T) {
	dir := folder(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var g errgroup.Group
	defer func() { require.NoError(t, g.Wait()) }()
	out := &ender{text: "Ctrl-C ends the demo.", end: func(printed string) {
		g.Go(func() error {
			defer cancel()
			found := regexp.MustCompile(`redis-cli -s (\S+) DEL (\S+)`).FindStringSubmatch(printed)
			if !strings.HasPrefix(found[1], dir) || len(found[1]) > 107 {
				return os.ErrNotExist
			}
			client, err := resp.Dial(ctx, found[1], resp.ClientConfig{})
			if err != nil {
				return err
			}
			defer client.Close()
			if _, err := client.Do(ctx, "DEL", found[2]); err != nil {
				return err
			}
			// Whatever people store there, the readers must bear it.
			_, err = client.Do(ctx, "SET", found[2], "by hand")
			return err
		})
	}}
	require.NoError(t, run(ctx, newScreen(out), options{duration: 300 * time.Millisecond}))
	require.Contains(t, out.String(), "No stale read.")
	left, err := filepath.Glob(dir + "/*")
	require.NoError(t, err)
	require.Empty(t, left)
}

// deaf is a bus whose sidecar says that it has applied every event, and drops
// nothing.
type deaf struct{ bus.Bus }

func (d deaf) Follow(ctx context.Context, h bus.Handler, c bus.FollowConfig) error {
	return d.Bus.Follow(ctx, deafHandler{h}, c)
}

type deafHandler struct{ bus.Handler }

func (d deafHandler) Apply(a bus.Delivery) {
	a.Event = bus.Event{Op: bus.OpPulse}
	d.Handler.Apply(a)
}

// A sidecar that breaks the promise is caught.
func TestDemoFailsWhenSidecarsServeStaleValues(t *testing.T) {
	folder(t)
	cities, err := loadCities()
	require.NoError(t, err)
	l := newLoad(cities)
	var out bytes.Buffer
	err = l.play(t.Context(), newScreen(&out), options{duration: time.Second, once: true},
		func(b bus.Bus) bus.Bus { return deaf{l.wrap(b)} })
	require.ErrorIs(t, err, errStale, out.String())
	require.ErrorContains(t, err, "though it had applied the invalidation")
	require.NotContains(t, out.String(), "No stale read.")
}
