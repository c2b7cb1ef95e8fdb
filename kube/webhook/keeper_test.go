package webhook_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nearside-cache/nearside/kube/cluster"
	"github.com/nearside-cache/nearside/kube/cluster/clustertest"
	"github.com/nearside-cache/nearside/kube/webhook"
)

const (
	secretPath  = "/api/v1/namespaces/nearside/secrets/nearside-injector-tls"
	webhookPath = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/nearside-injector"
)

var (
	secretAt  = types.NamespacedName{Namespace: "nearside", Name: "nearside-injector-tls"}
	webhookAt = types.NamespacedName{Name: "nearside-injector"}
)

// shortLives has a rotation of authorities every 13 hours.
var shortLives = webhook.Lives{Authority: 18 * time.Hour, Serving: 6 * time.Hour, Settle: time.Hour}

// configuration is a webhook's, as the chart has it.
func configuration(caBundle []byte) *admissionregistrationv1.MutatingWebhookConfiguration {
	return &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "nearside-injector"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "inject.nearside.dev",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				Service:  &admissionregistrationv1.ServiceReference{Namespace: "nearside", Name: "nearside-injector"},
				CABundle: caBundle,
			},
		}},
	}
}

// scene is a cluster and replicas of an injector.
type scene struct {
	t      *testing.T
	server *clustertest.Server
	client *cluster.Client
	stop   context.CancelFunc
	ended  sync.WaitGroup
	all    []*webhook.Keeper
}

func newScene(t *testing.T, server *clustertest.Server, lives webhook.Lives, replicas int) *scene {
	s := &scene{t: t, server: server}
	var err error
	s.client, err = server.Client()
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for range replicas {
		k := webhook.NewKeeper(webhook.Config{
			API: s.client, Namespace: "nearside", Service: "nearside-injector", Secret: secretAt.Name, Webhook: webhookAt.Name,
			Lives: lives, Logger: hclog.NewNullLogger(),
		})
		s.all = append(s.all, k)
		s.ended.Go(func() { k.Run(ctx) })
	}
	t.Cleanup(s.end)
	return s
}

func (s *scene) end() {
	s.stop()
	s.ended.Wait()
}

func (s *scene) secret() map[string][]byte {
	var secret corev1.Secret
	require.NoError(s.t, s.client.Get(context.Background(), &secret, secretAt))
	return secret.Data
}

func (s *scene) caBundle() []byte {
	var hooks admissionregistrationv1.MutatingWebhookConfiguration
	require.NoError(s.t, s.client.Get(context.Background(), &hooks, webhookAt))
	return hooks.Webhooks[0].ClientConfig.CABundle
}

// check asks every replica as an API server would.
func (s *scene) check() {
	bundle := s.caBundle()
	for i, k := range s.all {
		require.NoError(s.t, k.Ready(), "replica %d", i)
		require.NoError(s.t, verify(bundle, k.Served(), time.Now()), "replica %d at %v", i, time.Now())
	}
}

// Replicas that start at once agree on one Secret, whoever is first, and go through
// many rotations of certificates and authorities without a moment in which one
// of them is not trusted.
func TestReplicasRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := new(clustertest.Server)
		require.NoError(t, server.Put(webhookPath, configuration(nil)))
		s := newScene(t, server, shortLives, 2)
		synctest.Wait()
		s.check()
		served := map[string]bool{}
		bundles := map[string]bool{}
		for range 36 * 2 {
			time.Sleep(30 * time.Minute)
			synctest.Wait()
			s.check()
			served[string(s.all[0].Served())] = true
			bundles[string(s.caBundle())] = true
			require.Equal(t, s.all[0].Served(), s.all[1].Served())
		}
		require.Greater(t, len(served), 6)
		require.Greater(t, len(bundles), 3)
		require.Less(t, server.Version(), 60, "at rest nobody writes")
		s.end()
	})
}

// What an upgrade, or somebody, takes out of the cluster is put back at once.
func TestKeeperMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := new(clustertest.Server)
		s := newScene(t, server, webhook.DefaultLives(), 2)
		synctest.Wait()
		require.ErrorContains(t, s.all[0].Ready(), "read the webhook's configuration")
		first := s.secret()

		require.NoError(t, server.Put(webhookPath, configuration([]byte("of the last release"))))
		synctest.Wait()
		s.check()
		require.NoError(t, server.Put(webhookPath, configuration(nil)))
		synctest.Wait()
		s.check()
		require.Equal(t, first, s.secret())

		server.Break() // watches end now and then, and are taken up again
		time.Sleep(time.Minute)
		server.Remove(secretPath)
		synctest.Wait()
		s.check()
		require.NotEqual(t, first, s.secret())

		require.NoError(t, server.Put(secretPath, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: secretAt.Name, Namespace: secretAt.Namespace}, Data: map[string][]byte{"tls.crt": []byte("junk")},
		}))
		synctest.Wait()
		s.check()
		s.end()
	})
}

// A Secret that the chart has made, empty, is filled, so that no right to create
// one is needed.
func TestKeeperFillsASecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &clustertest.Server{Intercept: func(r *http.Request) *metav1.Status {
			if r.Method == http.MethodPost {
				return clustertest.Forbidden()
			}
			return nil
		}}
		require.NoError(t, server.Put(webhookPath, configuration(nil)))
		s := newScene(t, server, webhook.DefaultLives(), 2)
		synctest.Wait()
		require.ErrorContains(t, s.all[1].Ready(), "forbidden")
		require.NoError(t, server.Put(secretPath, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretAt.Name, Namespace: secretAt.Namespace}}))
		synctest.Wait()
		s.check()
		s.end()
	})
}

// Two replicas that have read the same race for the Secret and for the
// configuration: one is first, and the other takes over what that wrote.
func TestReplicasRace(t *testing.T) {
	for _, at := range []string{
		http.MethodPost + " secrets", http.MethodPut + " secrets", http.MethodPatch + " mutatingwebhookconfigurations",
	} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				method, resource, _ := strings.Cut(at, " ")
				var waiting atomic.Int32
				both := make(chan struct{})
				server := new(clustertest.Server)
				server.Intercept = func(r *http.Request) *metav1.Status {
					if r.Method == http.MethodPatch {
						requirePublished(t, server, r)
					}
					if r.Method == method && strings.Contains(r.URL.Path, resource) {
						if waiting.Add(1) == 2 {
							close(both)
						}
						<-both // nobody writes before both have read
					}
					return nil
				}
				if method == http.MethodPut {
					require.NoError(t, server.Put(secretPath, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretAt.Name, Namespace: secretAt.Namespace}}))
				}
				require.NoError(t, server.Put(webhookPath, configuration(nil)))
				s := newScene(t, server, webhook.DefaultLives(), 2)
				synctest.Wait()
				require.GreaterOrEqual(t, waiting.Load(), int32(2))
				s.check()
				require.Equal(t, s.all[0].Served(), s.all[1].Served())
				require.Equal(t, s.secret()["tls.crt"], s.all[0].Served())
				writes := 3 // the configuration by the test, the Secret, and the configuration
				if method == http.MethodPut {
					writes = 4 // and the Secret by the test
				}
				require.Equal(t, writes, server.Version(), "the loser writes nothing")
				require.Zero(t, s.all[0].Failures()+s.all[1].Failures(), "losing is no failure")
				s.end()
			})
		})
	}
}

// requirePublished holds a patch to what the Secret says at that moment.
func requirePublished(t *testing.T, server *clustertest.Server, r *http.Request) {
	var body bytes.Buffer
	_, err := body.ReadFrom(r.Body)
	require.NoError(t, err)
	r.Body = io.NopCloser(bytes.NewReader(body.Bytes()))
	api, err := server.Client()
	require.NoError(t, err)
	s := &scene{t: t, client: api}
	bundle, _, err := webhook.Bundle(s.secret())
	require.NoError(t, err)
	require.Contains(t, body.String(), base64.StdEncoding.EncodeToString(bundle), "an authority that is not in the Secret is published")
}

// An API server that fails is asked again, ever less often, and what is served
// stays.
func TestKeeperOutlastsTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var asked atomic.Int32
		server := &clustertest.Server{Intercept: func(*http.Request) *metav1.Status {
			if !down.Load() {
				return nil
			}
			asked.Add(1)
			return &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: "etcd is away"}
		}}
		require.NoError(t, server.Put(webhookPath, configuration(nil)))
		s := newScene(t, server, shortLives, 1)
		synctest.Wait()
		s.check()
		down.Store(true)
		server.Break()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.NoError(t, s.all[0].Ready())
		require.Less(t, int(asked.Load()), 250, "about one look and two watches a minute")
		down.Store(false)
		require.NoError(t, server.Put(webhookPath, configuration(nil)))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		s.check()

		down.Store(true)
		time.Sleep(shortLives.Serving)
		require.ErrorContains(t, s.all[0].Ready(), "expired")
		s.end()
	})
}

func TestLivesThatCannotWork(t *testing.T) {
	for _, l := range []webhook.Lives{{}, {Authority: time.Hour, Serving: time.Hour, Settle: time.Minute}, {Authority: 100 * time.Hour, Serving: time.Hour, Settle: time.Hour}} {
		_, err := webhook.Listen(webhook.Config{Lives: l})
		require.ErrorContains(t, err, "lives of certificates", fmt.Sprint(l))
	}
}
