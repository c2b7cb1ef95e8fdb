package policy

// Update says what becomes of the values that events of NEAR.UPDATE bring (C10).
type Update struct {
	// Store is where such a value is kept: resident, in sidecars that hold an older one
	// of it with a version and without tags; always, also in those that hold none, so
	// that a key is there before anybody reads it: for values that hang on nothing, of
	// writers whose publishing is acknowledged within a fill_window after the commit; never, they drop
	// what they hold, as after an invalidation.
	Store Store `yaml:"store"`
}

// Store says which updates are kept. The empty Store is StoreResident.
type Store string

// Which updates are kept.
const (
	StoreResident Store = "resident"
	StoreAlways   Store = "always"
	StoreNever    Store = "never"
)

// Words lists what may be said.
func (Store) Words() []string {
	return []string{string(StoreResident), string(StoreAlways), string(StoreNever)}
}

// effects says in words what u makes of updates.
func (u Update) effects(l *effectList) {
	switch u.Store {
	case StoreAlways:
		l.add("the value of a NEAR.UPDATE is kept by every sidecar (update.store: always)")
	case StoreNever:
		l.add("the value of a NEAR.UPDATE is kept by no sidecar (update.store: never)")
	}
}
