package webhook

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/nearside-cache/nearside/kube/inject"
)

const (
	// MaxReview bounds the body of a review, in bytes. An API server takes
	// requests of up to 3 MiB, and a review is one in JSON and what is around it.
	MaxReview = 8 << 20
	// maxUnderWay bounds the bodies that are held at once, in bytes: what is more
	// waits for its turn, or until its API server gives up. A review of a usual pod
	// has 10 to 20 KiB.
	maxUnderWay = 2 * MaxReview
	// logEvery is how often a denied pod is logged.
	logEvery = time.Second
)

// handler answers the reviews of API servers.
type handler struct {
	settings *atomic.Pointer[inject.Settings]
	turns    *semaphore.Weighted // of maxUnderWay
	metrics  *metrics
	log      hclog.Logger
	denials  rate.Sometimes // one that is not logged is counted, and its author told
}

func newHandler(s *atomic.Pointer[inject.Settings], m *metrics, log hclog.Logger) *handler {
	return &handler{
		settings: s, turns: semaphore.NewWeighted(maxUnderWay), metrics: m, log: log,
		denials: rate.Sometimes{First: 1, Interval: logEvery},
	}
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.metrics.took(time.Now())
	weight := r.ContentLength
	if weight < 0 || weight > MaxReview {
		weight = MaxReview // of an unknown length, or refused before it is read
	}
	if h.turns.Acquire(r.Context(), weight) != nil {
		return // whoever asked has gone
	}
	defer h.turns.Release(weight)
	data, code, err := body(w, r)
	if err != nil {
		h.refuse(w, code, err)
		return
	}
	review, err := decode(data)
	if err != nil {
		h.refuse(w, http.StatusBadRequest, err)
		return
	}
	q := review.Request
	a, result, err := admit(*h.settings.Load(), q)
	if err != nil {
		h.refuse(w, http.StatusBadRequest, err)
		return
	}
	h.metrics.admissions.WithLabelValues(result).Inc()
	log := h.log.With("result", result, "namespace", q.Namespace, "name", q.Name, "uid", q.UID, "dry_run", q.DryRun != nil && *q.DryRun)
	if a.Allowed {
		log.Debug("answered a review")
	} else {
		// Controllers try again and again.
		h.denials.Do(func() { log.Info("denied a pod", "why", a.Result.Message) })
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer(a)); err != nil {
		log.Warn("the answer did not reach the API server", "error", err)
	}
}

// body reads a request's body, or tells with which code it is refused.
func body(w http.ResponseWriter, r *http.Request) (_ []byte, code int, err error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, http.StatusUnsupportedMediaType, errors.New("want application/json")
	}
	if r.ContentLength > MaxReview {
		return nil, http.StatusRequestEntityTooLarge, errTooLarge
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxReview))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, http.StatusRequestEntityTooLarge, errTooLarge
	case err != nil:
		return nil, http.StatusBadRequest, err
	}
	return data, 0, nil
}

var errTooLarge = errors.New("a review has at most 8 MiB")

// refuse answers what is no review. Whoever sends it may send much of it.
func (h *handler) refuse(w http.ResponseWriter, code int, err error) {
	h.metrics.admissions.WithLabelValues(resultMalformed).Inc()
	h.log.Debug("refused a request", "code", code, "error", err)
	http.Error(w, err.Error(), code)
}
