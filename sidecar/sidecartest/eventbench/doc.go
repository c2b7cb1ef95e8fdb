// Package eventbench measures the way of events: what a sidecar applies a second, from
// publishing to being applied in a fleet, invalidations of many clients, and reads in
// a storm. Each benchmark has beside it, in turn in the same run, what it is to be
// compared with: bare core NATS, bare JetStream, or Redis. They are tests, since only
// those may know a concrete bus.
package eventbench
