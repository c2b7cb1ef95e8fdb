package webhook

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Names in the Secret that holds the certificates.
const (
	keyAuthority    = "ca.crt" // what signs now
	keyAuthorityKey = "ca.key"
	keyNext         = "next.crt" // what will sign, trusted already
	keyNextKey      = "next.key"
	keyNextSince    = "next.trusted" // since when, RFC 3339
	keyPrevious     = "previous.crt" // what signed before, trusted still
	keyServing      = "tls.crt"
	keyServingKey   = "tls.key"
)

// errUnusable says that a Secret's data is not what an injector wrote.
var errUnusable = errors.New("the certificates in the Secret cannot be used")

// Lives say how long certificates are valid and how they follow one another. An
// authority must live at least three times as long as what it signs.
type Lives struct {
	Authority time.Duration // of a certificate authority
	Serving   time.Duration // of a certificate that is served
	// Settle is how long an authority is trusted by the API servers before
	// anything that it signed is served: they must have heard of it, all of them.
	Settle time.Duration
}

// DefaultLives renews a serving certificate every 20 days and an authority every
// eight months.
func DefaultLives() Lives {
	return Lives{Authority: 365 * 24 * time.Hour, Serving: 30 * 24 * time.Hour, Settle: time.Hour}
}

func (l Lives) validate() error {
	if l.Settle <= 0 || l.Serving <= 3*l.Settle || l.Authority < 3*l.Serving {
		return fmt.Errorf("lives of certificates: an authority lives %v, what it serves %v, and it settles for %v: want each at least a third of the one before", l.Authority, l.Serving, l.Settle)
	}
	return nil
}

// chain is the certificates of an injector: one state, kept in a Secret, that all
// replicas share.
//
//	first        authority, serving
//	authority aged      → next, which signs nothing and is to be trusted
//	next trusted        → since then it settles; not trusted any more: it begins anew
//	next settled        → it is the authority, the former one is previous, and
//	                      serving is made anew
//	serving aged        → serving is made anew; there is no previous any more,
//	                      nobody has served what it signed for long
//
// INVARIANT: what signed the serving certificate of this state and of the one
// before is trusted in both, unless it has expired or the Secret was unusable.
type chain struct {
	authority *pair
	next      *pair             // nil: none
	since     time.Time         // when next was found to be trusted; zero: not yet
	previous  *x509.Certificate // nil: none
	serving   *pair
}

// readChain reads a Secret's data. An empty Secret gives an empty chain; one that
// cannot be used gives an error and an empty chain, too.
func readChain(data map[string][]byte) (*chain, error) {
	c := new(chain)
	if len(data[keyAuthority]) == 0 && len(data[keyServing]) == 0 {
		return c, nil
	}
	fail := func(what string, err error) (*chain, error) {
		return new(chain), fmt.Errorf("%w: %s: %w", errUnusable, what, err)
	}
	var err error
	if c.authority, err = readPair(data[keyAuthority], data[keyAuthorityKey]); err != nil {
		return fail(keyAuthority, err)
	}
	if c.serving, err = readPair(data[keyServing], data[keyServingKey]); err != nil {
		return fail(keyServing, err)
	}
	if text := data[keyNext]; len(text) > 0 {
		if c.next, err = readPair(text, data[keyNextKey]); err != nil {
			return fail(keyNext, err)
		}
		// What cannot be read has the settling begin anew.
		c.since, _ = time.Parse(time.RFC3339, string(data[keyNextSince]))
	}
	if text := data[keyPrevious]; len(text) > 0 {
		if c.previous, err = readCertificate(text); err != nil {
			return fail(keyPrevious, err)
		}
	}
	if !c.authority.cert.IsCA {
		return fail(keyAuthority, errors.New("it is not a certificate authority"))
	}
	return c, nil
}

// data writes the chain for a Secret.
func (c *chain) data() (map[string][]byte, error) {
	d := map[string][]byte{keyAuthority: certPEM(c.authority.cert), keyServing: certPEM(c.serving.cert)}
	var errs [3]error
	d[keyAuthorityKey], errs[0] = c.authority.keyPEM()
	d[keyServingKey], errs[1] = c.serving.keyPEM()
	if c.next != nil {
		d[keyNext] = certPEM(c.next.cert)
		d[keyNextKey], errs[2] = c.next.keyPEM()
		if !c.since.IsZero() {
			d[keyNextSince] = []byte(c.since.UTC().Format(time.RFC3339))
		}
	}
	if c.previous != nil {
		d[keyPrevious] = certPEM(c.previous)
	}
	return d, errors.Join(errs[:]...)
}

// bundle returns the authorities that API servers must trust, as PEM.
func (c *chain) bundle() []byte {
	var b []byte
	for _, a := range c.trusted() {
		b = append(b, certPEM(a)...)
	}
	return b
}

func (c *chain) trusted() []*x509.Certificate {
	var all []*x509.Certificate
	if c.previous != nil {
		all = append(all, c.previous)
	}
	if c.authority != nil {
		all = append(all, c.authority.cert)
	}
	if c.next != nil {
		all = append(all, c.next.cert)
	}
	return all
}

// advance takes every step that is due, and tells which they were; none: nothing
// has changed. published says that the API servers' configuration holds what
// bundle returned before.
func (c *chain) advance(now time.Time, l Lives, names []string, published bool) (steps []string, err error) {
	step := func(what string) { steps = append(steps, what) }
	if c.authority == nil || !now.Before(c.authority.cert.NotAfter) {
		*c = chain{}
		if c.authority, err = newAuthority(now, l.Authority); err != nil {
			return nil, err
		}
		step("made an authority")
	}
	did, err := c.succeed(now, l, published)
	if err != nil {
		return nil, err
	}
	if did != "" {
		step(did)
	}
	why := c.stale(now, names)
	if why == "" {
		return steps, nil
	}
	if why == servingAged {
		c.previous = nil
	}
	if c.serving, err = c.authority.issue(now, l.Serving, names); err != nil {
		return nil, err
	}
	step("made a serving certificate: " + why)
	return steps, nil
}

// succeed takes the next step from one authority to the one after, if it is due.
func (c *chain) succeed(now time.Time, l Lives, published bool) (step string, err error) {
	switch {
	case c.next == nil && aged(c.authority.cert, now):
		c.next, err = newAuthority(now, l.Authority)
		return "made the next authority", err
	case c.next == nil:
		return "", nil
	case !published && !c.since.IsZero():
		c.since = time.Time{}
		return "the next authority is not trusted any more", nil
	case published && c.since.IsZero():
		c.since = now
		return "the next authority is trusted", nil
	case published && now.Sub(c.since) >= l.Settle:
		c.previous, c.authority, c.next, c.since = c.authority.cert, c.next, nil, time.Time{}
		return "the next authority signs now", nil
	}
	return "", nil
}

const servingAged = "the one before is old"

// stale tells why a new serving certificate is needed, empty if it is not.
func (c *chain) stale(now time.Time, names []string) string {
	switch {
	case c.serving == nil:
		return "there was none"
	case c.serving.cert.CheckSignatureFrom(c.authority.cert) != nil:
		return "another authority signs"
	case !slices.Equal(c.serving.cert.DNSNames, names):
		return "the service has another name"
	case aged(c.serving.cert, now):
		return servingAged
	}
	return ""
}

// Bundle returns the authorities that an injector's Secret says are to be trusted,
// as the caBundle of its webhook must have them, and when the certificate that is
// served expires.
func Bundle(data map[string][]byte) (bundle []byte, expires time.Time, err error) {
	c, err := readChain(data)
	if err == nil && c.serving == nil {
		err = errors.New("there are no certificates in the Secret yet")
	}
	if err != nil {
		return nil, expires, fmt.Errorf("webhook: %w", err)
	}
	return c.bundle(), c.serving.cert.NotAfter, nil
}

// trusts reports whether a caBundle is this chain's.
func (c *chain) trusts(caBundle []byte) bool {
	return bytes.Equal(bytes.TrimSpace(caBundle), bytes.TrimSpace(c.bundle()))
}
