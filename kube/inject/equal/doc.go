// Package equal proves that the ways to inject do the same: the Go package, the
// text filter, the library chart and the admission policy give the same pod for
// every example of kube/inject/testdata, or the same words of refusal.
//
// It is a module of its own, for it needs Helm's engine and the API server's CEL,
// which the binary does not.
package equal
