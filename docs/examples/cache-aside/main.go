// Command cache-aside is an app as there are many: it answers over HTTP from a Redis
// client, and from its database where the cache has nothing. Its Redis is the sidecar's
// socket. The database is a map in a pod of its own. It also holds what the end-to-end
// test of the chart needs inside of a cluster.
//
//	cache-aside serve      the app
//	cache-aside database   its database
//	cache-aside job        reads a few products, and ends
//	cache-aside measure    how long after a DEL in one pod the others see it
//	cache-aside kill       ends a process of another pod, from a pod that may
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	commands := map[string]func(context.Context, *slog.Logger, []string) error{
		"serve": serveApp, "database": serveDatabase, "job": job, "measure": measure, "kill": kill,
	}
	name := ""
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	command, ok := commands[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "usage: cache-aside serve|database|job|measure|kill [arguments]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := command(ctx, log, os.Args[2:])
	stop()
	if err != nil {
		log.Error(name, "error", err)
		os.Exit(1)
	}
}

// listen serves h until ctx has ended and last has returned, which still has the server.
func listen(ctx context.Context, h http.Handler, last func()) error {
	server := &http.Server{Addr: ":8080", Handler: h, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	last()
	deadline, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
