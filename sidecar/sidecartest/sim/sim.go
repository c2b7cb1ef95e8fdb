// Package sim runs whole domains in virtual time: a few sidecars, made of the real
// cache and the real follower; writers and readers; an origin, with replicas that
// lag; a stream; and every fault that the design names. One seed fixes all of it,
// and a run takes milliseconds.
//
// What is simulated is what the sidecar stands on: the broker and the connections
// to it, the clocks (each process has its own, with its own drift), the driver of
// the follower, the bus through which the cache publishes, the origin that it loads
// from, and the tier that sidecars share. Only what has no influence on decisions is
// not fixed by the seed: ids of pulses and hashes.
//
// The invariants I1 to I13 and I15 of the design, and that no answer outlives its
// TTL, are checked as a run goes on, on every answer and on all that every sidecar
// would answer after each event that it applies. A value is judged by every commit
// that it was made of. A seed that breaks one is shrunk to the few actions, sidecars
// and moments that still break it.
//
// The driver of the follower and the sharing of barriers (bus.Drive, bus.Barriers)
// are made of goroutines and real time: here stands a model of them, in which every
// barrier has a pulse of its own.
package sim
