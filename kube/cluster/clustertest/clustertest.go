// Package clustertest is an API server in memory for tests: it keeps objects as
// JSON, with resource versions, conflicts, pages and watches. It knows nothing of
// validation, defaults or admission.
package clustertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/nearside-cache/nearside/kube/cluster"
)

// Server is the API server. Its fields may be set before it is used; it is safe
// for concurrent use.
type Server struct {
	// Intercept may answer a request in the place of the server, with a status that
	// is an error; nil: the server answers.
	Intercept func(*http.Request) *metav1.Status
	// Handle answers what is no object, such as /version and pods' proxies; nil: 404.
	Handle http.Handler
	// Admit changes what is created, as admission does, and answers objects that
	// are questions; nil: all stay as they are.
	Admit func(resource string, object map[string]any)
	// Page is how many objects an answer of a list holds at most; 0: all.
	Page int

	mu      sync.Mutex
	version int
	objects map[string]map[string]any // by path
	watches []*watcher
}

type watcher struct {
	path   string
	events chan []byte // closed by the server, when the request ends or Break is called
}

// Client returns a client of the server, without a socket between, so that it may
// be used in virtual time.
func (s *Server) Client() (*cluster.Client, error) {
	return cluster.New(&rest.Config{Host: "http://cluster.test", Transport: s})
}

// Put writes an object as if somebody else did. path is as in the API, such as
// /api/v1/namespaces/a/pods/b.
func (s *Server) Put(path string, obj runtime.Object) error {
	data, err := json.Marshal(obj)
	if err != nil {
		return fmt.Errorf("clustertest: %w", err)
	}
	var o map[string]any
	if err := json.Unmarshal(data, &o); err != nil {
		return fmt.Errorf("clustertest: %w", err)
	}
	// Watches tell objects apart by these.
	o["kind"], o["apiVersion"] = reflect.TypeOf(obj).Elem().Name(), version(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.storeLocked(path, o)
	return nil
}

func version(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if parts[0] == "api" {
		return parts[1]
	}
	return parts[1] + "/" + parts[2]
}

// Remove deletes an object, if there is one.
func (s *Server) Remove(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[path]; ok {
		delete(s.objects, path)
		s.tellLocked("DELETED", path, o)
	}
}

// Break ends all watches, as servers do now and then.
func (s *Server) Break() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watches {
		close(w.events)
	}
	s.watches = nil
}

// Version is how many writes there were.
func (s *Server) Version() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

func (s *Server) storeLocked(path string, o map[string]any) {
	if s.objects == nil {
		s.objects = map[string]map[string]any{}
	}
	s.version++
	meta(o)["resourceVersion"] = strconv.Itoa(s.version)
	event := "MODIFIED"
	if s.objects[path] == nil {
		event = "ADDED"
	}
	s.objects[path] = o
	s.tellLocked(event, path, o)
}

// tellLocked sends an event to watchers, of which one that does not keep up loses
// it: none of the tests has so many.
func (s *Server) tellLocked(event, path string, o map[string]any) {
	for _, w := range s.watches {
		if w.path == path {
			select {
			case w.events <- eventOf(event, o):
			default:
			}
		}
	}
}

func eventOf(event string, o map[string]any) []byte {
	data, _ := json.Marshal(map[string]any{"type": event, "object": o}) // it was JSON
	return data
}

// meta returns an object's metadata, which it gets if there is none.
func meta(o map[string]any) map[string]any {
	m, ok := o["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		o["metadata"] = m
	}
	return m
}

// RoundTrip implements http.RoundTripper.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if r.URL.Query().Get("watch") == "true" || r.URL.Query().Get("watch") == "1" {
		return s.watch(r)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result(), nil
}

func (s *Server) watch(r *http.Request) (*http.Response, error) {
	if st := s.intercepted(r); st != nil {
		w := httptest.NewRecorder()
		fail(w, st)
		return w.Result(), nil
	}
	path := r.URL.Path
	if name, ok := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name="); ok {
		path += "/" + name
	}
	s.mu.Lock()
	watching := &watcher{path, make(chan []byte, 100)}
	s.watches = append(s.watches, watching)
	if o := s.objects[path]; o != nil {
		watching.events <- eventOf("ADDED", o)
	}
	s.mu.Unlock()
	in, out := io.Pipe()
	go func() { // ends with the request, or with Break
		defer func() { _ = out.Close() }() // a pipe's never fails
		for {
			select {
			case event, ok := <-watching.events:
				if !ok {
					return
				}
				if _, err := out.Write(event); err != nil {
					return
				}
			case <-r.Context().Done():
				return
			}
		}
	}()
	return &http.Response{
		StatusCode: http.StatusOK, Body: in, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
	}, nil
}

func (s *Server) intercepted(r *http.Request) *metav1.Status {
	if s.Intercept == nil {
		return nil
	}
	return s.Intercept(r)
}

// ServeHTTP implements http.Handler, watches aside.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if st := s.intercepted(r); st != nil {
		fail(w, st)
		return
	}
	body, err := io.ReadAll(bodyOf(r))
	if err != nil {
		fail(w, status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error()))
		return
	}
	_, resource, name := split(r.URL.Path)
	switch {
	case resource == "" || strings.Contains(name, "/"):
		if s.Handle == nil {
			http.NotFound(w, r)
			return
		}
		s.Handle.ServeHTTP(w, r)
	case r.Method == http.MethodPost:
		s.create(w, r, resource, body)
	case r.Method == http.MethodGet && name == "":
		s.list(w, r)
	default:
		s.one(w, r.Method, r.URL.Path, body)
	}
}

func bodyOf(r *http.Request) io.Reader {
	if r.Body == nil {
		return bytes.NewReader(nil)
	}
	return r.Body
}

// split takes a path apart: in which namespace, empty if in none or all, which
// resource, empty if the path is of no object, and the name with what follows it.
func split(path string) (namespace, resource, name string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(parts) > 2 && parts[0] == "api":
		parts = parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		parts = parts[3:]
	default:
		return "", "", ""
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		namespace, parts = parts[1], parts[2:]
	}
	return namespace, parts[0], strings.Join(parts[1:], "/")
}

func (s *Server) create(w http.ResponseWriter, r *http.Request, resource string, body []byte) {
	var o map[string]any
	if err := json.Unmarshal(body, &o); err != nil {
		fail(w, status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error()))
		return
	}
	if s.Admit != nil {
		s.Admit(resource, o)
	}
	if strings.HasSuffix(resource, "reviews") || r.URL.Query().Get("dryRun") != "" {
		say(w, http.StatusCreated, o)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := r.URL.Path + "/" + fmt.Sprint(meta(o)["name"])
	if s.objects[path] != nil {
		fail(w, status(http.StatusConflict, metav1.StatusReasonAlreadyExists, path))
		return
	}
	s.storeLocked(path, o)
	say(w, http.StatusCreated, o)
}

// one reads or changes one object.
func (s *Server) one(w http.ResponseWriter, method, path string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.objects[path]
	if old == nil {
		fail(w, status(http.StatusNotFound, metav1.StatusReasonNotFound, path))
		return
	}
	if method == http.MethodGet {
		say(w, http.StatusOK, old)
		return
	}
	o, err := changed(method, old, body)
	if err != nil {
		fail(w, status(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, err.Error()))
		return
	}
	if v, ok := meta(o)["resourceVersion"]; ok && v != meta(old)["resourceVersion"] {
		fail(w, status(http.StatusConflict, metav1.StatusReasonConflict, path))
		return
	}
	s.storeLocked(path, o)
	say(w, http.StatusOK, o)
}

// changed returns what an update or a patch makes of an object.
func changed(method string, old map[string]any, body []byte) (map[string]any, error) {
	if method == http.MethodPatch {
		doc, err := json.Marshal(old)
		if err != nil {
			return nil, err
		}
		patch, err := jsonpatch.DecodePatch(body)
		if err != nil {
			return nil, err
		}
		if body, err = patch.Apply(doc); err != nil {
			return nil, err
		}
	}
	var o map[string]any
	return o, json.Unmarshal(body, &o)
}

// list answers a page of the objects below a path, in the order of their paths.
// Without a namespace in the path it is those of all.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		fail(w, status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error()))
		return
	}
	namespace, resource, _ := split(r.URL.Path)
	group := strings.TrimSuffix(strings.TrimSuffix(r.URL.Path, resource), "namespaces/"+namespace+"/")
	var paths []string
	for _, path := range slices.Sorted(maps.Keys(s.objects)) {
		ns, res, _ := split(path)
		if strings.HasPrefix(path, group) && res == resource && (namespace == "" || ns == namespace) && path > r.URL.Query().Get("continue") && selector.Matches(labelsOf(s.objects[path])) {
			paths = append(paths, path)
		}
	}
	next := map[string]any{"resourceVersion": strconv.Itoa(s.version)}
	if s.Page > 0 && len(paths) > s.Page {
		paths = paths[:s.Page]
		next["continue"] = paths[s.Page-1]
	}
	items := make([]any, 0, len(paths))
	for _, path := range paths {
		items = append(items, s.objects[path])
	}
	say(w, http.StatusOK, map[string]any{"metadata": next, "items": items})
}

func labelsOf(o map[string]any) labels.Set {
	set := labels.Set{}
	given, _ := meta(o)["labels"].(map[string]any)
	for k, v := range given {
		set[k] = fmt.Sprint(v)
	}
	return set
}

func status(code int32, reason metav1.StatusReason, message string) *metav1.Status {
	return &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}
}

// Forbidden is the status of a request without the right to it.
func Forbidden() *metav1.Status {
	return status(http.StatusForbidden, metav1.StatusReasonForbidden, "forbidden")
}

func fail(w http.ResponseWriter, st *metav1.Status) {
	st.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	say(w, int(st.Code), st)
}

func say(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // a client that has gone needs no answer
}
