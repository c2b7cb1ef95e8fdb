package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// app is the whole of it: a Redis client and a database.
type app struct {
	cache    *redis.Client
	database database
	log      *slog.Logger
}

func newApp(log *slog.Logger) *app {
	socket := os.Getenv("NEARSIDE_SOCKET")
	if socket == "" {
		socket = "/run/nearside/nearside.sock"
	}
	cache := redis.NewClient(&redis.Options{
		Network: "unix", Addr: socket, MaxRetries: -1,
		ReadTimeout: 7 * time.Second, // longer than a DEL waits for the stream (publish_timeout)
	})
	return &app{cache: cache, database: database{url: databaseURL()}, log: log}
}

// read is cache-aside: a cache that is away costs time, and is never an error.
func (a *app) read(ctx context.Context, id string) (value, from string, err error) {
	value, err = a.cache.Get(ctx, "product:"+id).Result()
	if err == nil {
		return value, "cache", nil
	}
	away := !errors.Is(err, redis.Nil)
	value, err = a.database.get(ctx, id)
	if err != nil || away {
		return value, "database", err
	}
	if err := a.cache.Set(ctx, "product:"+id, value, 5*time.Minute).Err(); err != nil {
		a.log.Warn("not cached", "id", id, "error", err)
	}
	return value, "database", nil
}

// drop tells every pod. Without the stream's acknowledgement it must be repeated.
func (a *app) drop(ctx context.Context, id string) error {
	return a.cache.Del(ctx, "product:"+id).Err()
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	switch r.Method {
	case http.MethodGet:
		value, from, err := a.read(r.Context(), id)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("X-From", from)
		fmt.Fprint(w, value)
	case http.MethodPut:
		value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err == nil {
			err = a.database.put(r.Context(), id, string(value)) // commit first,
		}
		if err == nil {
			err = a.drop(r.Context(), id) // then drop it in every pod
		}
		answer(w, err)
	case http.MethodDelete:
		answer(w, a.drop(r.Context(), id))
	default:
		http.Error(w, "GET, PUT or DELETE", http.StatusMethodNotAllowed)
	}
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// serveApp needs the cache when it starts and when it ends, as an app that warms up, and
// that writes what it has at the end, does. While it runs it can do without.
func serveApp(ctx context.Context, log *slog.Logger, _ []string) error {
	a := newApp(log)
	defer func() { _ = a.cache.Close() }()
	if err := a.cache.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("the sidecar is not there when the app starts: %w", err)
	}
	log.Info("the sidecar is there at the start")
	mux := http.NewServeMux()
	mux.Handle("/products/{id}", a)
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	return listen(ctx, mux, a.end)
}

// end keeps on serving for a while, for others still send requests here, and uses the
// cache to the last.
func (a *app) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		if err := a.cache.Ping(context.WithoutCancel(ctx)).Err(); err != nil {
			a.log.Error("the sidecar ended before the app", "error", err)
			return
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			a.log.Info("the sidecar is there at the end")
			return
		case <-tick.C:
		}
	}
}

// job is a Job's pod: it must end although its sidecar would go on.
func job(ctx context.Context, log *slog.Logger, _ []string) error {
	a := newApp(log)
	defer func() { _ = a.cache.Close() }()
	for i := range 10 {
		id := "job-" + strconv.Itoa(i)
		if err := a.database.put(ctx, id, "done"); err != nil {
			return err
		}
		if err := a.drop(ctx, id); err != nil {
			return err
		}
		if value, _, err := a.read(ctx, id); err != nil || value != "done" {
			return fmt.Errorf("product %s is %q: %w", id, value, err)
		}
	}
	log.Info("done")
	return nil
}
