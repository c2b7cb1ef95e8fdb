package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

// natsEmbedded in place of a URL stands for a server in this process.
const natsEmbedded = "embedded"

// natsOptions say where the stream is. Their flags are those of every command
// that goes there.
type natsOptions struct {
	natsbus.Config
	domain string
}

func (o *natsOptions) register(fs *pflag.FlagSet) {
	s := &o.Stream
	fs.StringVar(&o.URL, "nats", "nats://127.0.0.1:4222", "NATS servers, separated by commas")
	fs.StringVar(&o.Credentials, "nats-creds", "", "a .creds file to log in with")
	fs.StringVar(&o.NKeySeed, "nats-nkey", "", "a file with an nkey seed to log in with")
	fs.StringVar(&o.CA, "nats-ca", "", "a PEM file of the authorities to trust")
	fs.StringVar(&o.Cert, "nats-cert", "", "a PEM file with the certificate to show")
	fs.StringVar(&o.Key, "nats-key", "", "a PEM file with the key of --nats-cert")
	fs.StringVar(&o.InboxPrefix, "nats-inbox-prefix", "", "where replies arrive, if permissions demand another than _INBOX")
	fs.StringVar(&o.JetStreamDomain, "nats-domain", "", "the JetStream domain, if the stream is behind a leaf node")
	fs.StringVar(&o.domain, "domain", bus.DefaultDomain, "whose stream: sidecars of one domain invalidate one another")
	fs.IntVar(&s.Replicas, "replicas", 0, "servers that hold the stream, if it is created; 0: 3 where there are as many, else 1")
	fs.DurationVar(&s.MaxAge, "max-age", natsbus.DefaultMaxAge, "how long the stream keeps events, if it is created; who was away for longer flushes")
}

// complete names the stream. Its error is a fault of the setting domain.
func (o *natsOptions) complete() (err error) {
	if o.Stream.Subjects, err = bus.NewSubjects(o.domain); err != nil {
		// Validation shall go on, and not complain of this again.
		o.Stream.Subjects, _ = bus.NewSubjects(bus.DefaultDomain)
		return fmt.Errorf("domain is %q: %w", o.domain, err)
	}
	return nil
}

// where names the servers without what is secret.
func (o *natsOptions) where() string {
	var all []string
	for _, text := range strings.Split(o.URL, ",") {
		if u, err := url.Parse(strings.TrimSpace(text)); err == nil {
			all = append(all, u.Redacted())
		} else {
			all = append(all, "(a URL that cannot be read)")
		}
	}
	return strings.Join(all, ",")
}
