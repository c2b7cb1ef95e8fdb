package policy

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/nearside-cache/nearside/bus"
)

// maskSecret makes masks of this process alone: those who know a hash and what
// keys look like could try them all otherwise.
var maskSecret = func() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // it never fails
	return b
}()

// maskBytes of a hash tell sensitive names apart.
const maskBytes = 6

// Shown returns a key as it may be shown: itself, or where its namespace is
// sensitive the namespace and a hash of the key, which is the same for as long as
// the process lives.
func (s *Set) Shown(key string) string {
	namespace := bus.NamespaceOf(key)
	if !s.Of(namespace).Sensitive {
		return key
	}
	return namespace + ":" + Mask(key)
}

// Mask returns a hash that stands for a sensitive name.
func Mask(name string) string {
	h := hmac.New(sha256.New, maskSecret)
	h.Write([]byte(name))
	return "#" + hex.EncodeToString(h.Sum(nil)[:maskBytes])
}

// errHidden stands for an error that may quote what is sensitive.
var errHidden = errors.New("not shown: the namespace is sensitive")

// ShownError returns what may be said of a failure in a namespace, whose words
// may quote names in it.
func (s *Set) ShownError(namespace string, err error) error {
	if err == nil || !s.Of(namespace).Sensitive {
		return err
	}
	return errHidden
}
