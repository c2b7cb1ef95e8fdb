package nemesis

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// standing is an origin that is asked over HTTP.
type standing struct {
	*fixture
	web    *web
	counts counts
}

func stand(t *testing.T) *standing {
	s := &standing{fixture: newFixture()}
	s.clock = func() time.Duration { return 0 } // of many goroutines
	var err error
	s.web, err = newWeb(s.origin, s.judge, &s.counts, 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.web.close()) })
	return s
}

// known looks at what the judge knows of a key's loads.
func (s *standing) known(key string, look func(*loads)) {
	h := s.keys[key]
	h.mu.Lock()
	defer h.mu.Unlock()
	look(&h.loads)
}

// told is what the origin answered.
type told struct {
	status int
	header http.Header
	body   string
}

// ask asks as a pod's loader does.
func (s *standing) ask(t *testing.T, pod, key string, header ...string) (told, error) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.web.url(pod)+"/"+key, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return told{}, err
	}
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return told{response.StatusCode, response.Header, string(body)}, nil
}

// The origin says what is asked of one (docs/loaders.md), and the judge knows who was
// told what.
func TestWeb(t *testing.T) {
	s := stand(t)
	s.origin.commit(someLoad)
	r, err := s.ask(t, "pod-a", someLoad)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, r.status)
	require.Equal(t, "2", r.header.Get(versionHeader))
	require.Equal(t, tagOf(someLoad), r.header.Get(tagsHeader))
	f, err := foundIn(someLoad, r.body)
	require.NoError(t, err)
	require.EqualValues(t, 2, f.version)
	s.known(someLoad, func(l *loads) { require.Contains(t, l.given[f.serial], "pod-a") })

	etag := r.header.Get("ETag")
	r, err = s.ask(t, "pod-b", someLoad, "If-None-Match", etag)
	require.NoError(t, err)
	require.Equal(t, http.StatusNotModified, r.status)
	s.known(someLoad, func(l *loads) { require.Contains(t, l.given[f.serial], "pod-b") })

	s.origin.commit(someLoad)
	r, err = s.ask(t, "pod-b", someLoad, "If-None-Match", etag)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, r.status, "it was changed")

	for key, version := range map[string]string{someLoad: "4", ownSpace: "", someBare: ""} {
		s.origin.remove(key)
		r, err = s.ask(t, "pod-a", key)
		require.NoError(t, err)
		require.Equal(t, http.StatusNotFound, r.status)
		require.Equal(t, version, r.header.Get(versionHeader))
		s.known(key, func(l *loads) { require.Contains(t, l.absent, "pod-a") })
	}
}

// Now and then an answer is older than what was asked for, and then nobody may keep it.
func TestWebLags(t *testing.T) {
	s := stand(t)
	s.origin.commit(someLoad)
	var refused bool
	for !refused {
		r, err := s.ask(t, "pod-a", someLoad, "X-Nearside-At-Least", "2")
		require.NoError(t, err)
		f, err := foundIn(someLoad, r.body)
		require.NoError(t, err)
		s.known(someLoad, func(l *loads) { _, refused = l.refused[f.serial] })
		require.Equal(t, refused, f.version < 2)
	}
	require.NotZero(t, s.counts.all()[olderAnswers])
}

func TestWebFails(t *testing.T) {
	s := stand(t)
	s.web.down.Store(&outage{pod: "pod-a"})
	_, err := s.ask(t, "pod-a", someLoad)
	require.Error(t, err)
	_, err = s.ask(t, "pod-b", someLoad)
	require.NoError(t, err, "it is down for one only")
	s.web.down.Store(nil)
	s.web.errors.Store(true)
	seen := make(map[int]bool)
	for !seen[http.StatusOK] || !seen[http.StatusServiceUnavailable] {
		r, err := s.ask(t, "pod-a", someLoad)
		require.NoError(t, err)
		seen[r.status] = true
	}
	s.web.errors.Store(false)
	s.web.slow.Store(int64(time.Millisecond))
	before := s.web.hurt.Load()
	_, err = s.ask(t, "pod-a", someLoad)
	require.NoError(t, err)
	require.Greater(t, s.web.hurt.Load(), before)
}
