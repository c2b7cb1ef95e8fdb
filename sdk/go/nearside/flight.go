package nearside

import "sync"

// flightKey is what there is one load of at a time. Strong loads are apart: they must be
// published before anybody is answered.
type flightKey struct {
	key    string
	strong bool
}

// flight is a load that is under way, of one for all who miss its key. Who comes while
// it is must not be answered from it: it may have begun before a write that they know
// of. They read again if the sidecar has kept what it brought; if not, they are
// answered from the next one, which begins when this one has ended, after they came.
type flight struct {
	done chan struct{}
	next *flight // for those who came while this one was under way; nil: nobody did

	claimed bool // somebody loads

	// What became of it, once done is closed.
	stored bool
	result any // a Result[T]; nil: it was abandoned, and says nothing
	err    error
}

// flights are the loads under way. The zero value is ready.
type flights struct {
	mu  sync.Mutex
	all map[flightKey]*flight
}

// join returns the flight of a key, and whether it is the caller's to load.
func (fs *flights) join(k flightKey) (f *flight, mine bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.all[k]; f != nil {
		if f.next == nil {
			f.next = &flight{done: make(chan struct{})}
		}
		return f, false
	}
	f = &flight{done: make(chan struct{}), claimed: true}
	fs.put(k, f)
	return f, true
}

// under reports whether a flight of a key is under way.
func (fs *flights) under(k flightKey) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.all[k] != nil
}

// claim reports whether f, which nobody loads yet, is the caller's to load.
func (fs *flights) claim(k flightKey, f *flight) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.claimed {
		return false
	}
	f.claimed = true
	if fs.all[k] == nil {
		fs.put(k, f)
	}
	return true
}

func (fs *flights) put(k flightKey, f *flight) {
	if fs.all == nil {
		fs.all = map[flightKey]*flight{}
	}
	fs.all[k] = f
}

// land ends a flight.
func (fs *flights) land(k flightKey, f *flight, stored bool, result any, err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.stored, f.result, f.err = stored, result, err
	if fs.all[k] == f {
		delete(fs.all, k)
	}
	close(f.done)
}

// forget makes flights of keys, or all if there are none, unknown to those who come
// from now on.
func (fs *flights) forget(keys []string) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if keys == nil {
		fs.all = nil
	}
	for _, key := range keys {
		delete(fs.all, flightKey{key, false})
		delete(fs.all, flightKey{key, true})
	}
}
