package loader

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Limits of what an answer may carry besides its value.
const (
	maxTags  = 64          // as in NEAR.FILL
	maxETag  = 512         // a longer one is as none: the value is not revalidated
	minTTL   = 1           // ms: "not at all" must not become "as the policy says"
	maxDelta = 1<<31 - 1   // s, RFC 9111 section 1.2.2
	maxAfter = time.Minute // of Retry-After
)

// answer is an origin's answer by either way, before it is judged.
type answer struct {
	status  int
	version string
	etag    string
	tags    []string
	ttl     time.Duration
	after   time.Duration // wants to be left alone for so long
	body    []byte        // of a 200 only
}

// reading says how answers are read.
type reading struct {
	field     []string // path to the version in the body, empty for none
	versioned bool     // an answer with a value must have a version
}

// result judges an answer to r. conditional says that r.ETag was sent.
func (d reading) result(a answer, r Request, conditional bool) (Result, error) {
	switch {
	case a.status == http.StatusOK, a.status == http.StatusNotFound, a.status == http.StatusGone:
		version, err := d.version(a)
		if err != nil {
			return Result{}, err
		}
		return Result{Value: a.body, Version: version, ETag: a.etag, TTL: a.ttl, Tags: a.tags, Negative: a.status != http.StatusOK}, nil
	case a.status == http.StatusNotModified && conditional:
		return d.unchanged(a, r)
	case a.status == http.StatusNotModified:
		return Result{}, fmt.Errorf("%w: status 304 to a request without an ETag", ErrBadAnswer)
	case a.status >= 500, a.status == http.StatusTooManyRequests, a.status == http.StatusRequestTimeout, a.status == http.StatusTooEarly:
		return Result{}, busyError{fmt.Errorf("%w: status %d", ErrFailed, a.status), a.after}
	default:
		return Result{}, fmt.Errorf("%w: status %d, want 200, 304, 404, 410 or 5xx", ErrBadAnswer, a.status)
	}
}

// unchanged is the result of a 304. What it does not say is as it was.
func (d reading) unchanged(a answer, r Request) (Result, error) {
	result := Result{Version: r.Version, ETag: r.ETag, TTL: a.ttl, Tags: a.tags, NotModified: true}
	if a.version != "" {
		version, err := parseVersion(a.version)
		if err != nil {
			return Result{}, err
		}
		result.Version = version
	}
	if a.etag != "" {
		result.ETag = a.etag
	}
	return result, nil
}

func (d reading) version(a answer) (uint64, error) {
	switch {
	case a.version != "":
		return parseVersion(a.version)
	case a.status == http.StatusOK && len(d.field) > 0:
		return fieldVersion(a.body, d.field)
	case a.status == http.StatusOK && d.versioned:
		return 0, fmt.Errorf("%w: it has no version where the policy says that it has", ErrBadAnswer)
	default:
		return 0, nil
	}
}

func parseVersion(text string) (uint64, error) {
	v, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("%w: its version is no decimal number from 1 to 2^64-1", ErrBadAnswer)
	}
	return v, nil
}

// fieldVersion reads the version at a path of names in a JSON body, which may be
// a number or text. What stands behind it is not looked at.
func fieldVersion(body []byte, path []string) (uint64, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	for _, name := range path {
		if err := seekField(d, name); err != nil {
			return 0, fmt.Errorf("%w: its field %s: %w", ErrBadAnswer, strings.Join(path, "."), err)
		}
	}
	value, err := d.Token()
	if err != nil {
		return 0, fmt.Errorf("%w: its field %s: %w", ErrBadAnswer, strings.Join(path, "."), errNotJSON)
	}
	switch value := value.(type) {
	case json.Number:
		return parseVersion(value.String())
	case string:
		return parseVersion(value)
	default:
		return 0, fmt.Errorf("%w: its field %s is neither a number nor text", ErrBadAnswer, strings.Join(path, "."))
	}
}

// Errors of fields, without what the decoder has to say: it quotes the body.
var (
	errNotJSON  = errors.New("the body is not JSON")
	errNoObject = errors.New("what should hold it is no object")
	errNoSuch   = errors.New("there is none")
)

// seekField reads an object up to the value of the field.
func seekField(d *json.Decoder, name string) error {
	switch open, err := d.Token(); {
	case err != nil:
		return errNotJSON
	case open != json.Delim('{'):
		return errNoObject
	}
	for d.More() {
		field, err := d.Token()
		if err != nil {
			return errNotJSON
		}
		if field == name {
			return nil
		}
		if err := skipValue(d); err != nil {
			return err
		}
	}
	return errNoSuch
}

// skipValue reads past one value without keeping it.
func skipValue(d *json.Decoder) error {
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			return errNotJSON
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// parseTags splits a list by commas and white space.
func parseTags(values []string) ([]string, error) {
	var tags []string
	for _, v := range values {
		for tag := range strings.FieldsFuncSeq(v, func(c rune) bool { return c == ',' || unicode.IsSpace(c) }) {
			if len(tags) == maxTags {
				return nil, fmt.Errorf("%w: it has more than %d tags", ErrBadAnswer, maxTags)
			}
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

// parseETag returns the tag if it can be sent back as it is, else none.
func parseETag(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > maxETag || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c >= 0x7f }) {
		return ""
	}
	return text
}

// parseMaxAge reads a TTL from Cache-Control and Age: 0 where it says none, and
// the shortest there is where it says that nothing should be kept, or something
// that cannot be read (RFC 9111 section 4.2.1).
func parseMaxAge(control []string, age string) time.Duration {
	const none = -1
	seconds := none
	for _, value := range control {
		for directive := range strings.SplitSeq(value, ",") {
			name, argument, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return minTTL * time.Millisecond
			case "max-age":
				n := parseDelta(strings.Trim(argument, `"`))
				if seconds == none || n < seconds {
					seconds = n
				}
			}
		}
	}
	if seconds == none {
		return 0
	}
	if age != "" {
		seconds -= parseDelta(age)
	}
	return max(minTTL*time.Millisecond, time.Duration(seconds)*time.Second)
}

// parseDelta reads seconds; what is no number is 0, and what is too large is
// large.
func parseDelta(text string) int {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0
	}
	return int(min(n, maxDelta))
}

// parseAfter reads a Retry-After in seconds; one with a date says nothing here,
// where no wall clock counts.
func parseAfter(text string) time.Duration {
	return min(time.Duration(parseDelta(text))*time.Second, maxAfter)
}

// firstChunk is what is allocated for a body before it has arrived, at most.
const firstChunk = 64 << 10

// readBody reads a body of at most limit bytes. size is what was announced, -1
// for nothing; announcing more than the limit is refused, announcing less
// allocates little.
func readBody(body io.Reader, size int64, limit int) ([]byte, error) {
	if size > int64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, limit)
	}
	buffer := bytes.NewBuffer(make([]byte, 0, min(max(size, 0)+bytes.MinRead, firstChunk)))
	if _, err := buffer.ReadFrom(io.LimitReader(body, int64(limit)+1)); err != nil {
		return nil, err
	}
	if buffer.Len() > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	return buffer.Bytes(), nil
}
