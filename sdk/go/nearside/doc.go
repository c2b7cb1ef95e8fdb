// Package nearside is the client of a nearside sidecar: a cache in the app's own pod
// that invalidation events keep coherent with those of all other pods.
//
//	cache, err := nearside.Open(nearside.Options{})
//	products := nearside.Source[Product]{Load: loadProduct}
//	p, err := nearside.GetOrLoad(ctx, cache, "product:42", products)
//	...
//	token, err := cache.Invalidate(ctx, nearside.Key("product:42", version))
//
// A [Client] speaks the native protocol (docs/protocol.md) over a few connections that
// all callers share. It never waits for a sidecar without a bound: when that is away,
// reads end with [ErrUnavailable] and [GetOrLoad] goes to the source by itself.
//
// How fresh a read must be is said by the read: [Any], [MaxStale], [AtLeast], [Strong],
// or nothing, which is what the policy of the key's namespace says. [ContextWithSession]
// makes reads see the writes that were made through the same context.
//
// With [Options].L0 the client keeps what the sidecar answered in the app's own memory,
// and drops it when the sidecar says that it is out of date; see [L0Options].
//
// Values that are returned may be shared with other readers and must not be changed.
// All methods are safe for concurrent use.
package nearside
