package main

import (
	"encoding/json"
	"sync"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

// effective is the settings that a running sidecar goes by: the flags of its
// start, and the policies of its last reload. It is safe for concurrent use.
type effective struct {
	mu              sync.Mutex
	flags, policies []settings.Setting
}

func newEffective(r *settings.Reader) *effective {
	return &effective{flags: r.Flags(), policies: r.Policies()}
}

// reload takes over the policies.
func (e *effective) reload(r *settings.Reader) {
	policies := r.Policies()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.policies = policies
}

func (e *effective) all() []settings.Setting {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append(append([]settings.Setting(nil), e.flags...), e.policies...)
}

// String returns the settings as JSON.
func (e *effective) String() string {
	b, err := json.Marshal(e.all())
	if err != nil {
		panic("nearside: the settings cannot be marshalled: " + err.Error())
	}
	return string(b)
}
