package nemesis_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/sidecartest/nemesis"
)

// asServer in the environment makes a test binary a NATS server: its value is
// a nemesis.ServerSpec in JSON.
const asServer = "NEARSIDE_NEMESIS_SERVER"

// storeLimit is how much a NATS server stores, in bytes.
const storeLimit = 128 << 20

// serve runs a NATS server until SIGTERM.
func serve(text string) error {
	var spec nemesis.ServerSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	o := &server.Options{
		ServerName: spec.Name, Host: "127.0.0.1", Port: spec.Port, NoSigs: true,
		JetStream: true, StoreDir: spec.Store, JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: storeLimit,
	}
	if len(spec.Routes) > 0 {
		o.Cluster = server.ClusterOpts{
			Name: "nemesis", Host: "127.0.0.1", Port: spec.ClusterPort, Advertise: spec.Advertise,
			NoAdvertise: true, // or sidecars would learn of ways past their proxies
			PoolSize:    -1,   // one connection between two servers is enough here
		}
		for _, r := range spec.Routes {
			u, err := url.Parse(r)
			if err != nil {
				return err
			}
			o.Routes = append(o.Routes, u)
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	s.Start()
	<-ended
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// broker runs NATS servers in processes of a test binary.
type broker struct {
	subjects bus.Subjects
	binary   string
}

func (b broker) Command(spec nemesis.ServerSpec) *exec.Cmd {
	text, err := json.Marshal(spec)
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(b.binary)
	cmd.Env = append(os.Environ(), asServer+"="+string(text))
	return cmd
}

// ask connects for one question.
func (b broker) ask(urls string, question func(jetstream.JetStream) error) error {
	nc, err := nats.Connect(urls, nats.Timeout(time.Second), nats.NoReconnect())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	return question(js)
}

func (b broker) info(ctx context.Context, urls string) (info *jetstream.StreamInfo, err error) {
	err = b.ask(urls, func(js jetstream.JetStream) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		s, err := js.Stream(ctx, b.subjects.Stream())
		if err == nil {
			info = s.CachedInfo()
		}
		return err
	})
	return info, err
}

func (b broker) Leader(ctx context.Context, urls string) (string, error) {
	info, err := b.info(ctx, urls)
	if err != nil {
		return "", err
	}
	if info.Cluster == nil {
		return "", fmt.Errorf("stream %s has no leader", info.Config.Name)
	}
	return info.Cluster.Leader, nil
}

func (b broker) Replicas(ctx context.Context, urls string) (int, error) {
	info, err := b.info(ctx, urls)
	if err != nil {
		return 0, err
	}
	n := 1
	if info.Cluster != nil {
		for _, r := range info.Cluster.Replicas {
			if r.Current && !r.Offline {
				n++
			}
		}
	}
	return n, nil
}

func (b broker) DeleteStream(ctx context.Context, urls string) error {
	return b.ask(urls, func(js jetstream.JetStream) error { return js.DeleteStream(ctx, b.subjects.Stream()) })
}

func (b broker) Newest(ctx context.Context, urls string) (time.Time, error) {
	info, err := b.info(ctx, urls)
	if err != nil {
		return time.Time{}, err
	}
	return info.State.LastTime, nil
}

const (
	filler        = "FILLER" // stream that takes room from others
	fillerChunk   = 512 << 10
	codeResources = jetstream.ErrorCode(10023) // insufficient resources
)

func (b broker) Fill(ctx context.Context, urls string) (full bool, err error) {
	replicas := min(3, strings.Count(urls, ",")+1)
	err = b.ask(urls, func(js jetstream.JetStream) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: filler, Subjects: []string{filler}, Replicas: replicas})
		for chunk := make([]byte, fillerChunk); err == nil && !full; {
			_, failure := js.Publish(ctx, filler, chunk)
			var refused *jetstream.APIError
			full = errors.As(failure, &refused) && refused.ErrorCode == codeResources
			err = ctx.Err() // no leader for a moment is no failure
		}
		return err
	})
	return full, err
}

func (b broker) Empty(ctx context.Context, urls string) error {
	return b.ask(urls, func(js jetstream.JetStream) error {
		err := js.DeleteStream(ctx, filler)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		return err
	})
}

const bucketPrefix = "KV_nearside-"

// buckets does something with each bucket's stream and adds up what it returns.
func (b broker) buckets(ctx context.Context, urls string, do func(jetstream.JetStream, jetstream.Stream) (int, error)) (n int, err error) {
	err = b.ask(urls, func(js jetstream.JetStream) error {
		names := js.StreamNames(ctx)
		for name := range names.Name() {
			if !strings.HasPrefix(name, bucketPrefix) {
				continue
			}
			s, err := js.Stream(ctx, name)
			if err != nil {
				return err
			}
			more, err := do(js, s)
			if n += more; err != nil {
				return err
			}
		}
		return names.Err()
	})
	return n, err
}

func (b broker) DeleteBuckets(ctx context.Context, urls string) (int, error) {
	return b.buckets(ctx, urls, func(js jetstream.JetStream, s jetstream.Stream) (int, error) {
		return 1, js.DeleteStream(ctx, s.CachedInfo().Config.Name)
	})
}

func (b broker) FillBuckets(ctx context.Context, urls string) (int, error) {
	const junk = 64 << 10
	return b.buckets(ctx, urls, func(js jetstream.JetStream, s jetstream.Stream) (int, error) {
		c := s.CachedInfo().Config
		for i := range c.MaxBytes/junk + 1 {
			subject := strings.TrimSuffix(c.Subjects[0], ">") + fmt.Sprint("junk", i)
			if _, err := js.Publish(ctx, subject, make([]byte, junk), jetstream.WithMsgTTL(time.Second)); err != nil {
				return 0, err
			}
		}
		return 1, nil
	})
}

func (b broker) CopyBuckets(ctx context.Context, urls string) (int, func(context.Context, string) (int, error), error) {
	var all []*nats.Msg
	_, err := b.buckets(ctx, urls, func(_ jetstream.JetStream, s jetstream.Stream) (int, error) {
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
		if err != nil {
			return 0, err
		}
		for subject := range info.State.Subjects {
			raw, err := s.GetLastMsgForSubject(ctx, subject)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue // a lock that was released since
			}
			if err != nil {
				return 0, err
			}
			m := &nats.Msg{Subject: subject, Data: raw.Data, Header: nats.Header{}}
			if ttl := raw.Header.Get(jetstream.MsgTTLHeader); ttl != "" {
				m.Header.Set(jetstream.MsgTTLHeader, ttl)
			}
			all = append(all, m)
		}
		return 0, nil
	})
	restore := func(ctx context.Context, urls string) (n int, err error) {
		err = b.ask(urls, func(js jetstream.JetStream) error {
			for _, m := range all {
				if _, err := js.PublishMsg(ctx, m); err != nil {
					return err
				}
				n++
			}
			return nil
		})
		return n, err
	}
	return len(all), restore, err
}
