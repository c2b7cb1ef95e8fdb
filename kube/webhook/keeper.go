package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// API is what an injector asks of the API server; *cluster.Client does it. Update
// and Patch give a conflict when the object was changed since it was read.
type API interface {
	Get(ctx context.Context, obj runtime.Object, at types.NamespacedName) error
	Create(ctx context.Context, obj runtime.Object, namespace string) error
	Update(ctx context.Context, obj runtime.Object, at types.NamespacedName) error
	Patch(ctx context.Context, obj runtime.Object, at types.NamespacedName, patch []byte) error
	Watch(ctx context.Context, obj runtime.Object, at types.NamespacedName) (watch.Interface, error)
}

const (
	// lookAgain is how often everything is looked at when nothing tells of a change.
	lookAgain = 10 * time.Minute
	// retryAfter and retryAtMost bound the waits after a failure, each twice the one
	// before.
	retryAfter, retryAtMost = 500 * time.Millisecond, time.Minute
	// maxRaces is how many times in a row another replica may be first.
	maxRaces = 10
)

// keeper holds the certificates of all replicas in a Secret, and the authorities
// in the webhook's configuration. There is no leader: every replica takes the
// steps that are due, and of several that write, the first one prevails.
type keeper struct {
	api     API
	secret  types.NamespacedName
	webhook types.NamespacedName
	names   []string // of the service
	lives   Lives

	identity *identity
	metrics  *metrics
	log      hclog.Logger
}

// run looks after the certificates until ctx ends.
func (k *keeper) run(ctx context.Context) {
	changed := make(chan struct{}, 1) // one signal says it all
	done := make(chan struct{}, 2)
	go func() { k.watch(ctx, new(corev1.Secret), k.secret, changed); done <- struct{}{} }()
	go func() {
		k.watch(ctx, new(admissionregistrationv1.MutatingWebhookConfiguration), k.webhook, changed)
		done <- struct{}{}
	}()
	defer func() { <-done; <-done }()
	wait := retryAfter
	for ctx.Err() == nil {
		next := lookAgain
		err := k.keep(ctx)
		if ctx.Err() != nil {
			return
		}
		k.identity.settled(err)
		if err == nil {
			wait = retryAfter
		} else {
			k.metrics.failures.Inc()
			k.log.Error("the certificates are not in order, trying again", "error", err, "in", wait)
			next, wait = wait, min(2*wait, retryAtMost)
		}
		timer := time.NewTimer(next)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// watch signals changes of an object until ctx ends.
func (k *keeper) watch(ctx context.Context, obj runtime.Object, at types.NamespacedName, changed chan<- struct{}) {
	for wait := retryAfter; ctx.Err() == nil; wait = min(2*wait, retryAtMost) {
		if w, err := k.api.Watch(ctx, obj, at); err == nil {
			for range w.ResultChan() {
				wait = retryAfter
				select {
				case changed <- struct{}{}:
				default:
				}
			}
			w.Stop()
		} else if ctx.Err() == nil {
			k.log.Warn("changes are found late: the object cannot be watched", "name", at.Name, "error", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// errRaced says that another replica wrote first.
var errRaced = errors.New("another replica was first")

// keep takes the steps that are due, serves what came of them, and publishes whom
// to trust.
func (k *keeper) keep(ctx context.Context) error {
	for range maxRaces {
		err := k.round(ctx)
		if !errors.Is(err, errRaced) {
			return err
		}
	}
	return fmt.Errorf("webhook: %d times in a row: %w", maxRaces, errRaced)
}

// round is one attempt. Only what the Secret holds is ever served, so that all
// replicas serve what one caBundle trusts.
func (k *keeper) round(ctx context.Context) error {
	var secret corev1.Secret
	err := k.api.Get(ctx, &secret, k.secret)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("webhook: read the Secret: %w", err)
	}
	c, err := readChain(secret.Data)
	if err != nil {
		k.log.Error("making all certificates anew", "error", err)
	}
	var hooks admissionregistrationv1.MutatingWebhookConfiguration
	unpublished := k.api.Get(ctx, &hooks, k.webhook)
	published := unpublished == nil && trusted(&hooks, c)
	steps, err := c.advance(time.Now(), k.lives, k.names, published)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	if len(steps) > 0 {
		if err := k.write(ctx, &secret, missing, c); err != nil {
			return err
		}
		k.metrics.renewals.Add(float64(len(steps)))
		k.log.Info("the certificates were renewed", "steps", steps, "expires", c.serving.cert.NotAfter)
	}
	k.identity.serve(c.serving.tls())
	if unpublished != nil {
		return fmt.Errorf("webhook: read the webhook's configuration: %w", unpublished)
	}
	return k.publish(ctx, &hooks, c)
}

// write puts a chain into the Secret, if nobody did since it was read.
func (k *keeper) write(ctx context.Context, secret *corev1.Secret, missing bool, c *chain) (err error) {
	if secret.Data, err = c.data(); err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	if missing {
		secret.ObjectMeta = metav1.ObjectMeta{Name: k.secret.Name, Namespace: k.secret.Namespace, Labels: map[string]string{
			"app.kubernetes.io/name": "nearside", "app.kubernetes.io/component": "injector", "app.kubernetes.io/managed-by": "nearside-injector",
		}}
		secret.Type = corev1.SecretTypeOpaque
		err = k.api.Create(ctx, secret, k.secret.Namespace)
	} else {
		err = k.api.Update(ctx, secret, k.secret)
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), !missing && apierrors.IsNotFound(err):
		return errRaced
	case err != nil:
		return fmt.Errorf("webhook: write the Secret: %w", err)
	}
	return nil
}

// trusted reports whether every webhook trusts a chain's authorities and no others.
func trusted(hooks *admissionregistrationv1.MutatingWebhookConfiguration, c *chain) bool {
	for i := range hooks.Webhooks {
		if !c.trusts(hooks.Webhooks[i].ClientConfig.CABundle) {
			return false
		}
	}
	return true
}

// publish writes a chain's authorities into the webhook's configuration.
func (k *keeper) publish(ctx context.Context, hooks *admissionregistrationv1.MutatingWebhookConfiguration, c *chain) error {
	if trusted(hooks, c) {
		return nil
	}
	now := hooks.DeepCopy()
	for i := range now.Webhooks {
		now.Webhooks[i].ClientConfig.CABundle = c.bundle()
	}
	// The version stands for itself: with another one the patch is a conflict.
	was := hooks.DeepCopy()
	was.ResourceVersion = ""
	patch, err := difference(was, now)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	err = k.api.Patch(ctx, now, k.webhook, patch)
	if apierrors.IsConflict(err) {
		return errRaced
	}
	if err != nil {
		return fmt.Errorf("webhook: patch the webhook's configuration: %w", err)
	}
	k.log.Info("the webhook's configuration trusts the certificates", "name", k.webhook.Name, "webhooks", len(now.Webhooks))
	return nil
}
