package session

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nearside-cache/nearside/sidecar/operation"
)

// Env is what all sessions of a sidecar share, whatever their protocol.
type Env = operation.Env

// Clients lists the sessions in progress.
type Clients = operation.Clients

// Metrics counts what sessions do.
type Metrics = operation.Metrics

// NewClients returns an empty list.
func NewClients() *Clients { return operation.NewClients() }

// NewMetrics registers the sessions' metrics with r.
func NewMetrics(r prometheus.Registerer) *Metrics { return operation.NewMetrics(r) }
