package webhook

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"
)

// errNoCertificate says that a handshake came before there was a certificate.
var errNoCertificate = errors.New("webhook: no certificate to serve yet")

// identity is the certificate that is served, and whether the API servers trust
// it. It is safe for concurrent use.
type identity struct {
	metrics *metrics

	mu      sync.Mutex
	cert    *tls.Certificate
	trusted bool
	fault   error // of the last attempt to get or to publish one
}

// serve replaces the certificate.
func (i *identity) serve(c *tls.Certificate) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cert = c
	i.metrics.expires.Set(float64(c.Leaf.NotAfter.Unix()))
}

// settled says how the last attempt ended; nil: the API servers trust what is
// served. An error does not take back that they did.
func (i *identity) settled(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fault = err
	i.trusted = i.trusted || err == nil
}

// get is for tls.Config.
func (i *identity) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cert == nil {
		return nil, errNoCertificate
	}
	return i.cert, nil
}

// ready says why reviews cannot be answered, nil when they can.
func (i *identity) ready(now time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.cert == nil && i.fault == nil:
		return errNoCertificate
	case i.cert == nil:
		return i.fault
	case !now.Before(i.cert.Leaf.NotAfter):
		return fmt.Errorf("webhook: the certificate has expired at %s: %w", i.cert.Leaf.NotAfter.Format(time.RFC3339), errors.Join(i.fault, errNoCertificate))
	case !i.trusted && i.fault != nil:
		return i.fault
	case !i.trusted:
		return errors.New("webhook: the certificate is not known to the API servers yet")
	}
	return nil
}
