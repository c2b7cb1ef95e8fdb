// Package nemesis runs real sidecars on a real NATS cluster, breaks both in
// every way it knows, and checks what clients were answered meanwhile.
//
// Sidecars and NATS servers are child processes. Every way between them leads
// through a proxy of the run, so that it can be cut, delayed or made one-way.
// Clients read and write through the sidecars' sockets; the origin is a table in
// memory, which the sidecars' loaders reach over HTTP. Each operation is noted with the moments of its call and its return on
// one monotonic clock, and judged: prefix freshness (I1), monotonic reads (I2),
// convergence at the end (I3), read-your-writes (I4), bounded staleness (I5),
// linearizability of STRONG reads (I6, by porcupine), no invention (I10), wide
// purges (I11), absences (I12); and how long a sidecar takes to be live after a fault.
//
// The processes' binaries are built with a few changed lines of the standard
// library (testdata/overlay), by which their wall clocks can jump and their disks
// be full while nothing happens to the machine.
//
// A seed chooses faults, victims, moments and keys. The processes' own timing is
// not in its power: the same seed breaks the same things, not always with the
// same outcome.
package nemesis
