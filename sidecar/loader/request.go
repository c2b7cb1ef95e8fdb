package loader

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/loader/address"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Headers of requests on a subject and of the replies to them; docs/loaders.md
// says what they mean.
const (
	keyHeader         = "Nearside-Key"
	wantHeader        = "Nearside-At-Least"
	etagHeader        = "Nearside-ETag"
	statusHeader      = "Nearside-Status"
	versionHeader     = "Nearside-Version"
	ttlHeader         = "Nearside-TTL"
	tagsHeader        = "Nearside-Tags"
	serviceCodeHeader = "Nats-Service-Error-Code" // of the NATS micro services
)

// asked asks by request and reply over the bus.
type asked struct {
	at        address.Subject
	reading   reading
	header    map[string][]string
	limit     int
	requester bus.Requester
}

func newAsked(p policy.Loader, headers map[string]string, d Deps) (*asked, error) {
	if d.Requester == nil {
		return nil, fmt.Errorf("subject %s: this sidecar has no bus that can ask", p.Subject)
	}
	at, err := address.ParseSubject(p.Subject)
	if err != nil {
		return nil, err
	}
	field := splitField(p.VersionField)
	s := &asked{
		at: at, reading: reading{field: field, versioned: len(field) > 0}, limit: p.MaxBody,
		header: map[string][]string{"User-Agent": {d.UserAgent}}, requester: d.Requester,
	}
	for name, value := range headers {
		s.header[name] = []string{value}
	}
	return s, nil
}

// fits implements asker.
func (s *asked) fits(key string) error {
	_, err := s.at.Expand(key)
	return err
}

// ask implements asker. It is conditional where a request over HTTP would be.
func (s *asked) ask(ctx context.Context, r Request) (Result, error) {
	subject, err := s.at.Expand(r.Key)
	if err != nil {
		return Result{}, err
	}
	header := maps.Clone(s.header)
	header[keyHeader] = []string{bus.SubjectToken(r.Key)}
	if r.AtLeast > 0 {
		header[wantHeader] = []string{strconv.FormatUint(r.AtLeast, 10)}
	}
	conditional := r.ETag != "" && r.Version >= r.AtLeast
	if conditional {
		header[etagHeader] = []string{r.ETag}
	}
	reply, err := s.requester.Request(ctx, subject, header, []byte(r.Key))
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrFailed, hideSubject(err, subject))
	}
	if len(reply.Body) > s.limit {
		return Result{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(reply.Body), s.limit)
	}
	a, err := parseReply(reply)
	if err != nil {
		return Result{}, err
	}
	return s.reading.result(a, r, conditional)
}

// hiddenError is an error without the subject in its text, which has the key in
// it.
type hiddenError struct {
	error
	text string
}

func (e hiddenError) Error() string { return e.text }
func (e hiddenError) Unwrap() error { return e.error }

func hideSubject(err error, subject string) error {
	return hiddenError{err, strings.ReplaceAll(err.Error(), subject, "the subject")}
}

// parseReply reads the headers of a reply. Their names are found in any case.
func parseReply(reply bus.Reply) (answer, error) {
	get := func(name string) string {
		for n, values := range reply.Header {
			if len(values) > 0 && strings.EqualFold(n, name) {
				return values[0]
			}
		}
		return ""
	}
	a := answer{status: http.StatusOK, version: get(versionHeader), etag: parseETag(get(etagHeader)), body: reply.Body}
	for _, name := range []string{serviceCodeHeader, statusHeader} {
		if text := get(name); text != "" {
			status, err := strconv.Atoi(text)
			if err != nil || status < 100 || status > 999 {
				return answer{}, fmt.Errorf("%w: its %s is no status", ErrBadAnswer, name)
			}
			a.status = status
		}
	}
	if text := get(ttlHeader); text != "" {
		ms, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return answer{}, fmt.Errorf("%w: its %s is no number of milliseconds", ErrBadAnswer, ttlHeader)
		}
		a.ttl = time.Duration(min(max(ms, minTTL), maxDelta*1000)) * time.Millisecond
	}
	var err error
	a.tags, err = parseTags([]string{get(tagsHeader)})
	if a.status != http.StatusOK {
		a.body = nil
	}
	return a, err
}

// close implements asker: the bus is not this one's to close.
func (*asked) close() {}
