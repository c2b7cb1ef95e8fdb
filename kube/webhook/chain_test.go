package webhook_test

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/kube/webhook"
)

var names = []string{"nearside-injector.nearside.svc", "nearside-injector.nearside"}

// verify is what an API server does with a caBundle and the certificate that it is
// shown.
func verify(bundle, served []byte, now time.Time) error {
	block, _ := pem.Decode(served)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	_, err = cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: names[0], CurrentTime: now})
	return err
}

// Over years, each state's certificate is good with its bundle, with the one
// before and with the one after: API servers and replicas may be a step behind.
func TestChainFollowsItself(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	lives := webhook.DefaultLives()
	c, err := webhook.ReadChain(nil)
	require.NoError(t, err)
	var before map[string][]byte
	seen := map[string]int{}
	for range 3 * 365 * 2 {
		steps, err := c.Advance(now, lives, names, before != nil)
		require.NoError(t, err)
		if len(steps) > 0 {
			data, err := c.Data()
			require.NoError(t, err)
			bundle, _, err := webhook.Bundle(data)
			require.NoError(t, err)
			require.NoError(t, verify(bundle, data["tls.crt"], now), "at %v: %v", now, steps)
			if before != nil {
				was, _, err := webhook.Bundle(before)
				require.NoError(t, err)
				require.NoError(t, verify(was, data["tls.crt"], now), "an API server that has not heard of it: %v: %v", now, steps)
				require.NoError(t, verify(bundle, before["tls.crt"], now), "a replica that has not read it: %v: %v", now, steps)
			}
			for _, s := range steps {
				seen[s]++
			}
			before = data
			c, err = webhook.ReadChain(data) // as another replica has it
			require.NoError(t, err)
		}
		now = now.Add(12 * time.Hour)
	}
	require.Equal(t, 1, seen["made an authority"])
	require.GreaterOrEqual(t, seen["the next authority signs now"], 3)
	require.Equal(t, seen["made the next authority"], seen["the next authority is trusted"])
	require.GreaterOrEqual(t, seen["made a serving certificate: the one before is old"], 3*365/21-4)
	require.Len(t, before, 4, "at rest nothing of the former authorities is left")
}

// What the next authority signs is not served before that has been trusted for
// long enough, however old it is.
func TestChainWaitsForTrust(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	lives := webhook.DefaultLives()
	c, err := webhook.ReadChain(nil)
	require.NoError(t, err)
	next := func(d time.Duration, published bool) string {
		now = now.Add(d)
		steps, err := c.Advance(now, lives, names, published)
		require.NoError(t, err)
		return strings.Join(steps, "; ")
	}
	next(0, false)
	require.Contains(t, next(lives.Authority*3/4, true), "made the next authority")
	require.Empty(t, next(24*time.Hour, false))
	require.Equal(t, "the next authority is trusted", next(time.Minute, true))
	require.Empty(t, next(lives.Settle-time.Second, true))
	require.Equal(t, "the next authority is not trusted any more", next(time.Second, false))
	require.Equal(t, "the next authority is trusted", next(lives.Settle, true))
	require.Empty(t, next(lives.Settle-time.Second, true))
	require.Contains(t, next(time.Second, true), "the next authority signs now; made a serving certificate")
}

func TestChainIsMadeAnew(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	lives := webhook.DefaultLives()
	c, err := webhook.ReadChain(nil)
	require.NoError(t, err)
	_, err = c.Advance(now, lives, names, true)
	require.NoError(t, err)
	good, err := c.Data()
	require.NoError(t, err)

	steps, err := c.Advance(now, lives, []string{"other.nearside.svc"}, true)
	require.NoError(t, err)
	require.Equal(t, []string{"made a serving certificate: the service has another name"}, steps)

	c, err = webhook.ReadChain(good)
	require.NoError(t, err)
	steps, err = c.Advance(now.Add(2*lives.Authority), lives, names, false)
	require.NoError(t, err)
	require.Equal(t, "made an authority", steps[0], "the cluster was off for two years")

	for key := range good {
		for what, value := range map[string][]byte{"missing": nil, "broken": []byte("no PEM"), "of another": good["ca.key"]} {
			bad := map[string][]byte{}
			for k, v := range good {
				bad[k] = v
			}
			bad[key] = value
			c, err := webhook.ReadChain(bad)
			if key == "ca.key" && what == "of another" {
				require.NoError(t, err)
				continue
			}
			require.Error(t, err, "%s is %s", key, what)
			_, _, unusable := webhook.Bundle(bad)
			require.Error(t, unusable)
			steps, err := c.Advance(now, lives, names, false)
			require.NoError(t, err)
			require.Len(t, steps, 2, "%s is %s", key, what)
		}
	}
}
