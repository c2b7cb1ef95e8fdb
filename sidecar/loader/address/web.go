package address

import (
	"fmt"
	"net/url"
	"strings"
)

// Web is where an HTTP loader asks. The zero value is of no use; see ParseWeb.
type Web struct {
	// Socket is the path of the Unix socket to connect to, empty for TCP.
	Socket string

	base     url.URL // scheme, user, host
	segments []template
	query    template
	cover    coverage
}

// unixHost is what an app on a Unix socket is told as its Host.
const unixHost = "localhost"

// maxURL is how long an expanded path and query may be. Servers take 8 KiB, as
// a rule, for the whole line.
const maxURL = 8000

// ParseWeb reads a template such as http://app:8080/cache/{key} or
// unix:///run/app.sock:/cache/{key}. A socket, if any, is connected to instead of
// the host of an http URL. Places may stand in the path and in the query. Errors
// are of ErrBadTemplate and do not repeat the text, which may hold a password.
func ParseWeb(text, socket string) (Web, error) {
	w := Web{Socket: socket}
	if rest, ok := strings.CutPrefix(text, "unix://"); ok {
		path, target, found := strings.Cut(rest, ":/")
		if !found || !strings.HasPrefix(path, "/") || socket != "" {
			return Web{}, fmt.Errorf("%w: want unix://, the socket's path, a colon and the URL's path, such as unix:///run/app.sock:/cache/{key}, and no other socket", ErrBadTemplate)
		}
		w.Socket, text = path, "http://"+unixHost+"/"+target
	}
	if w.Socket != "" && !strings.HasPrefix(w.Socket, "/") {
		return Web{}, fmt.Errorf("%w: the socket's path must begin with a /", ErrBadTemplate)
	}
	scheme, rest, _ := strings.Cut(text, "://")
	host, target, found := strings.Cut(rest, "/")
	if scheme != "http" && scheme != "https" || !found {
		return Web{}, fmt.Errorf("%w: want http://, https:// or unix://, a host and a path", ErrBadTemplate)
	}
	base, err := url.Parse(scheme + "://" + host)
	if err != nil || base.Host == "" || base.Path != "" || base.RawQuery != "" || base.ForceQuery || strings.ContainsAny(host, "{}#?") {
		return Web{}, fmt.Errorf("%w: its host cannot be read, or has a place in it", ErrBadTemplate)
	}
	w.base = *base
	if err := w.parseTarget(target); err != nil {
		return Web{}, err
	}
	return w, nil
}

// parseTarget reads what stands behind the host and its /.
func (w *Web) parseTarget(target string) error {
	path, query, _ := strings.Cut(target, "?")
	for text := range strings.SplitSeq(path, "/") {
		t, err := parseLiteral(text, literalPath)
		if err != nil {
			return err
		}
		if t.fixed() && leaves(text) && text != "" {
			return fmt.Errorf("%w: its path has a . or .. for a segment", ErrBadTemplate)
		}
		w.segments = append(w.segments, t)
	}
	var err error
	if w.query, err = parseLiteral(query, literalQuery); err != nil {
		return err
	}
	w.cover, err = cover(append([]template{w.query}, w.segments...)...)
	return err
}

// Characters that stand for themselves, besides letters and digits.
const (
	literalPath  = "-._~!$&'()*+,;=:@%"
	literalQuery = literalPath + "/?"
)

// parseLiteral parses a template whose literal text must be escaped already.
func parseLiteral(text, allowed string) (template, error) {
	t, err := parse(text)
	if err != nil {
		return nil, err
	}
	for _, p := range t {
		for _, c := range []byte(p.literal) {
			if !isAlphanumeric(c) && !strings.ContainsRune(allowed, rune(c)) {
				return nil, fmt.Errorf("%w: %q must be escaped in it", ErrBadTemplate, rune(c))
			}
		}
		if _, err := url.PathUnescape(p.literal); err != nil {
			return nil, fmt.Errorf("%w: it has a %% that escapes nothing", ErrBadTemplate)
		}
	}
	return t, nil
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// Expand returns the URL at which the key's value is. What the key brings in
// stays in its segment of the path, or in its value of the query: it is escaped,
// and refused with ErrBadKey where a segment would be empty, . or .., with or
// without its escapes, since servers and proxies resolve those.
func (w Web) Expand(text string) (*url.URL, error) {
	k := split(text)
	if err := w.cover.admit(k); err != nil {
		return nil, err
	}
	var target strings.Builder
	for _, t := range w.segments {
		segment, err := t.expand(k, url.PathEscape)
		if err != nil {
			return nil, err
		}
		if !t.fixed() && leaves(segment) {
			return nil, fmt.Errorf("%w: a segment of the path would be empty, or the way to another place", ErrBadKey)
		}
		target.WriteString("/" + segment)
	}
	query, err := w.query.expand(k, url.QueryEscape)
	if err != nil {
		return nil, err
	}
	if target.Len()+len(query) > maxURL {
		return nil, fmt.Errorf("%w: the path and query would have %d bytes, at most %d", ErrBadKey, target.Len()+len(query), maxURL)
	}
	u := w.base
	u.RawPath = target.String()
	u.RawQuery = query
	if u.Path, err = url.PathUnescape(u.RawPath); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	return &u, nil
}

// leaves reports whether an escaped segment may be taken for a way to another
// place.
func leaves(segment string) bool {
	text, err := url.PathUnescape(segment)
	if err != nil || text == "" {
		return true
	}
	for part := range strings.FieldsFuncSeq(text, func(c rune) bool { return c == '/' || c == '\\' }) {
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}

// NamesNamespace reports whether keys of several namespaces have addresses of
// their own.
func (w Web) NamesNamespace() bool { return w.cover.named }

// String names the place for people: without user, path and query, which may be
// secret.
func (w Web) String() string {
	if w.Socket != "" {
		return "unix://" + w.Socket
	}
	return w.base.Scheme + "://" + w.base.Host
}
