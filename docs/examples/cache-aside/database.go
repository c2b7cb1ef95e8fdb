package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

// databaseURL takes what Kubernetes says of the Service "database" of the namespace, which
// needs no name service.
func databaseURL() string {
	return "http://" + net.JoinHostPort(os.Getenv("DATABASE_SERVICE_HOST"), os.Getenv("DATABASE_SERVICE_PORT"))
}

// database is a client of serveDatabase.
type database struct{ url string }

func (d database) get(ctx context.Context, id string) (string, error) {
	return call(ctx, http.MethodGet, d.url+"/"+id, "")
}

func (d database) put(ctx context.Context, id, value string) error {
	_, err := call(ctx, http.MethodPut, d.url+"/"+id, value)
	return err
}

// call is one request whose answer must be good; it returns the body.
func call(ctx context.Context, method, url, body string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return "", fmt.Errorf("%s %s: %s: %s", method, url, response.Status, strings.TrimSpace(string(data)))
	}
	return string(data), nil
}

// serveDatabase keeps what was put. Of what was not it says "new".
func serveDatabase(ctx context.Context, _ *slog.Logger, _ []string) error {
	var rows sync.Map
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{id}", func(w http.ResponseWriter, r *http.Request) {
		value, _ := rows.LoadOrStore(r.PathValue("id"), "new")
		fmt.Fprint(w, value)
	})
	mux.HandleFunc("PUT /{id}", func(w http.ResponseWriter, r *http.Request) {
		value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		rows.Store(r.PathValue("id"), string(value))
	})
	return listen(ctx, mux, func() {})
}
