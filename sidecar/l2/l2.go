// Package l2 is the shared tier between the sidecars' own memory and the origin:
// L1, L2, origin. One bucket of the bus holds entries that any sidecar of the
// domain may read and fill.
//
// An entry is no more trusted than a fill: it carries the position of the lease
// under which it was loaded, and whoever reads it judges it by rule C2 as if it
// had been loaded here under that lease. A Tier therefore promises little, and
// keeps it whatever the bucket does:
//
//   - an entry is never replaced by an older one (Entry);
//   - at most so many sidecars load one key at once as the policy says, but for those
//     who outlived their right, or have waited for as long as the policy lets them
//     (Acquire);
//   - a tier that is slow or away costs a reader at most the policy's timeout, and
//     soon nothing (Get).
package l2

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/policy"
)

// Errors that callers act on; compare with errors.Is.
var (
	// ErrAway says that the tier gave no answer, or is known to give none: the
	// caller goes on without it.
	ErrAway = errors.New("l2: the shared tier gives no answer")
	// ErrClosed says that the Tier was closed.
	ErrClosed = errors.New("l2: closed")
	// ErrFull says that too much waits to be stored. The entry was dropped.
	ErrFull = errors.New("l2: too much waits to be stored in the shared tier")
	// ErrUnversioned says that an entry has no version, without which nobody could
	// tell a newer one from it.
	ErrUnversioned = errors.New("l2: an entry without a version cannot be shared")
	// ErrHeld says that others have been loading the key for longer than a read waits.
	ErrHeld = errors.New("l2: other sidecars load the key, for longer than l2.wait")
	// ErrBarren says that somebody has just loaded the key, and that what it has cannot
	// be shared: each sidecar loads it for itself.
	ErrBarren = errors.New("l2: what the key has cannot be shared")
	// ErrOtherEpoch says that an entry cannot be vouched for at a position of
	// another epoch: their seqs are never compared.
	ErrOtherEpoch = errors.New("l2: the position is of another epoch than the entry's")
)

const (
	// writeTimeout bounds what no reader waits for.
	writeTimeout = 2 * time.Second
	logEvery     = 10 * time.Second
)

// Config says which part of which bucket a Tier is.
type Config struct {
	// Domain and Namespace name the bucket where the policy does not.
	Domain, Namespace string
	// Policy is the namespace's. Its defaults are filled in.
	Policy policy.L2
	// Logger may be nil.
	Logger hclog.Logger
}

// Tier is the shared tier of one namespace, as one sidecar sees it. It is safe
// for concurrent use.
type Tier struct {
	buckets bus.Buckets
	config  Config
	policy  policy.L2
	name    string // of the bucket
	log     hclog.Logger

	link    atomic.Pointer[link]  // nil while the tier is away
	failure atomic.Pointer[error] // why it is
	trouble rate.Sometimes
	queue   queue
	recent  recent
	counts  counts

	ctx     context.Context // ends at Close
	stop    context.CancelFunc
	running sync.WaitGroup
}

// New starts a Tier. It does not wait for the bucket: until that is open, and
// whenever it stops answering, calls return ErrAway at once. Errors are those of
// the configuration.
func New(buckets bus.Buckets, c Config) (*Tier, error) {
	p := c.Policy.WithDefaults()
	name := p.Bucket
	if name == "" {
		name = BucketName(c.Domain, c.Namespace)
	}
	if err := p.BucketConfig().Validate(name); err != nil {
		return nil, fmt.Errorf("l2: namespace %.80q: %w; give it another one by l2.bucket", c.Namespace, err)
	}
	t := &Tier{
		buckets: buckets, config: c, policy: p, name: name, log: c.Logger, queue: newQueue(),
		trouble: rate.Sometimes{First: 1, Interval: logEvery}, recent: recent{seed: maphash.MakeSeed()},
	}
	if t.log == nil {
		t.log = hclog.NewNullLogger()
	}
	t.fail(errors.New("it is being opened"))
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.running.Go(t.keep)
	for range writers {
		t.running.Go(t.write)
	}
	return t, nil
}

// BucketName is the bucket of a namespace whose policy names none. Bytes of the
// namespace that a bucket's name cannot have become _XX.
func BucketName(domain, namespace string) string {
	var b strings.Builder
	b.WriteString("nearside-" + domain + "-")
	for _, c := range []byte(namespace) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02X", c)
		}
	}
	return b.String()
}

// Policy returns the policy in use, its defaults filled in.
func (t *Tier) Policy() policy.L2 { return t.policy }

// Close ends all calls and drops what waits to be stored. It returns when nothing
// of the Tier runs any more and may be called more than once.
func (t *Tier) Close() error {
	t.stop()
	t.running.Wait()
	t.counts.dropped.Add(uint64(t.queue.drain()))
	return nil
}

// Keys of the bucket.
const (
	entryPrefix = "e"
	probeKey    = "p"
)

// Get returns the entry of key as some replica of the bucket has it, which may
// lack the newest writes. It returns within the policy's timeout. Whoever gets an
// entry must judge it (C2) before it serves it. Where none is found, e is its place,
// for Acquire.
func (t *Tier) Get(ctx context.Context, key string) (e Entry, found bool, err error) {
	err = t.call(ctx, t.policy.Timeout, func(ctx context.Context, b bus.Bucket) (err error) {
		e, err = t.place(b.Get(ctx, entryPrefix+key))
		return err
	})
	if errors.Is(err, bus.ErrForeign) {
		t.counts.unreadable.Add(1)
		return Entry{}, false, nil
	}
	if err != nil {
		return Entry{}, false, err
	}
	return t.counted(e)
}

// Recall returns, once, an entry of key that this sidecar has seen in the bucket when
// others were loading it: what Get may return, but maybe much older. It does not wait.
func (t *Tier) Recall(key string) (e Entry, known bool) {
	e, known = t.recent.take(key)
	return e, known && e.Remaining(time.Now()) > 0
}

func (t *Tier) counted(e Entry) (Entry, bool, error) {
	if e.Version == 0 {
		t.counts.misses.Add(1)
		return e, false, nil
	}
	t.counts.hits.Add(1)
	return e, true, nil
}

// latest is what the bucket's leader has in the place of key.
func (t *Tier) latest(ctx context.Context, b bus.Bucket, key string) (Entry, error) {
	return t.place(b.Latest(ctx, entryPrefix+key))
}

// place decodes what was read. What has expired or cannot be read is an empty place,
// which whoever loads takes; but for what a newer version of nearside wrote: that
// cannot be compared, and stays.
func (t *Tier) place(data []byte, revision uint64, err error) (Entry, error) {
	if errors.Is(err, bus.ErrKeyNotFound) {
		return Entry{}, nil
	}
	if err != nil {
		return Entry{}, err
	}
	e, err := decode(data)
	if err != nil {
		t.counts.unreadable.Add(1)
		t.trouble.Do(func() {
			t.log.Warn("an entry of the shared tier cannot be read", "bucket", t.name, "error", err)
		})
	}
	if errors.Is(err, errNewer) {
		return Entry{}, err
	}
	now := time.Now()
	if e.Revision = revision; e.Remaining(now) <= 0 { // the bucket removes it some seconds late
		e = e.Empty()
	}
	return e.valid(now, t.policy.LockExpiry+clockSlack), nil
}

// Vouch raises the position of the entry of key to p, at which the stream holds a
// message of that digest, so that sidecars that started since can trust it. The caller
// must have judged e, as it read it, to be good as of p, by fences that reach back to
// e's own position. bus.ErrConflict says that there is another entry, none, or one that
// is being loaded anew.
// The whole entry is written again; it lives no longer for it.
func (t *Tier) Vouch(ctx context.Context, key string, e Entry, p bus.Position, digest uint64) error {
	err := t.call(ctx, writeTimeout, func(ctx context.Context, b bus.Bucket) error {
		now, err := t.latest(ctx, b, key)
		switch {
		case err != nil:
			return err
		case now.Revision != e.Revision || !now.same(e) || t.claims(now) > 0: // a bucket made anew uses revisions again
			return bus.ErrConflict
		case now.Position.Epoch != p.Epoch:
			return ErrOtherEpoch
		case now.Position.Seq >= p.Seq:
			return nil
		}
		now.Position, now.Digest = p, digest
		if _, err = t.replace(ctx, b, key, now); err == nil {
			t.counts.vouched.Add(1)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("vouch: %w", err)
	}
	return nil
}
