package native

import (
	"context"
	"fmt"
	"time"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/audit"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/coherence"
	"github.com/nearside-cache/nearside/sidecar/operation"
)

func (s *Session) fill(id uint32, m *near.Fill) {
	lease, err := cache.ParseLease(m.Lease)
	fault := operation.CheckKey(view(m.Key))
	switch {
	case fault != "":
	case err != nil:
		fault = err.Error() + ": want the one that a read answered"
	case m.Negative && len(m.Value) > 0:
		fault = "negative says that there is no value: want an empty one"
	}
	if s.refused(id, fault) {
		return
	}
	o := cache.FillOptions{
		Lease: lease, Version: m.Version, TTL: cache.TTL{Asked: m.TTL > 0, For: m.TTL}, Soft: min(m.Soft, longest),
		Negative: m.Negative, Tags: m.Tags,
	}
	for _, key := range m.Depends {
		o.Depends = append(o.Depends, string(key))
	}
	key := string(m.Key)
	if !operation.Confirms(o) {
		v := s.cache.Fill(key, m.Value, o)
		s.deliverStale() // that it takes the place of another value (O4)
		s.filled(id, v, nil)
		return
	}
	var (
		value = append([]byte(nil), m.Value...)
		v     coherence.Verdict
	)
	size := len(key) + len(value) + sizeOf(m.Tags) + sizeOf(o.Depends)
	s.await(id, size, &waiting{
		run: func(ctx context.Context) { v, err = s.env.Fill(ctx, key, value, o) },
		answer: func() bool {
			s.filled(id, v, err)
			return false
		},
	})
}

func (s *Session) filled(id uint32, v coherence.Verdict, err error) {
	if err != nil {
		s.writeFailed(id, err)
		return
	}
	f := near.Filled{Stored: v == coherence.Stored}
	if !f.Stored {
		f.Verdict = v.String()
	}
	s.answer(near.KindFill.Answer(), id, &f)
}

func (s *Session) releaseRight(id uint32, m *near.Release) {
	lease, err := cache.ParseLease(m.Lease)
	if err != nil {
		s.refused(id, err.Error()+": want the one that a read answered")
		return
	}
	n := uint64(0)
	if s.cache.Release(view(m.Key), lease) {
		n = 1
	}
	s.answer(near.KindRelease.Answer(), id, &near.Count{N: n})
}

func (s *Session) invalidate(id uint32, m *near.Invalidate) {
	var w operation.Write
	w.Tags, w.Prefix, w.Namespace, w.Refresh, w.ID = m.Tags, string(m.Prefix), m.Namespace, m.Refresh, m.ID
	w.Time = since1970(m.Changed)
	size, fault := len(m.Prefix)+len(m.Namespace)+len(m.ID)+sizeOf(m.Tags), ""
	for _, kv := range m.Keys {
		if fault = operation.CheckKey(view(kv.Key)); fault != "" {
			break
		}
		w.Keys = append(w.Keys, bus.KeyVersion{Key: string(kv.Key), Version: kv.Version})
		size += len(kv.Key) + keyBytes
	}
	if fault == "" && w.Prefix != "" {
		fault = operation.CheckKey(w.Prefix)
	}
	if fault == "" && w.Namespace != "" {
		fault = operation.CheckNamespace(w.Namespace)
	}
	if fault == "" {
		fault = w.Check()
	}
	if !s.refused(id, fault) {
		s.publish(near.KindInvalidate, id, size, w)
	}
}

// keyBytes is what a key of a write takes besides its bytes.
const keyBytes = 24

// sizeOf is how many bytes texts take.
func sizeOf(texts []string) (n int) {
	for _, t := range texts {
		n += len(t) + textBytes
	}
	return n
}

// textBytes is what one of many texts takes besides its bytes.
const textBytes = 16

func (s *Session) update(id uint32, m *near.Update) {
	var w operation.Write
	w.Update, w.TTL, w.ID, w.Time = true, m.TTL, m.ID, since1970(m.Changed)
	w.Keys = []bus.KeyVersion{{Key: string(m.Key), Version: m.Version}}
	fault := operation.CheckKey(w.Keys[0].Key)
	if fault == "" {
		fault = w.Check()
	}
	if most := s.cache.MaxValue(); fault == "" && len(m.Value) > most {
		fault = fmt.Sprintf("the value has %d bytes: want at most %d", len(m.Value), most)
	}
	if s.refused(id, fault) {
		return
	}
	w.Value = append([]byte(nil), m.Value...)
	s.publish(near.KindUpdate, id, len(m.Key)+len(m.Value)+len(m.ID), w)
}

// since1970 is a moment of a wall clock; 0 is none.
func since1970(d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(d))
}

// publish has a write of so many bytes wait until it is published and applied here.
func (s *Session) publish(kind near.Kind, id uint32, size int, w operation.Write) {
	var (
		by audit.Who
		r  cache.Receipt
		e  error
	)
	if w.Purge().Wide() {
		by = s.who()
	}
	s.await(id, size, &waiting{
		run: func(ctx context.Context) { r, e = s.env.Publish(ctx, w, by) },
		answer: func() bool {
			if e != nil {
				s.writeFailed(id, e)
				return false
			}
			s.answer(kind.Answer(), id, &near.Written{Token: r.Position.String(), Alive: uint64(r.Alive)})
			return false
		},
	})
}

func (s *Session) barrier(id uint32, _ *near.None) {
	var (
		token string
		err   error
	)
	s.await(id, 0, &waiting{
		run: func(ctx context.Context) { token, err = s.env.Barrier(ctx) },
		answer: func() bool {
			if err != nil {
				s.writeFailed(id, err)
				return false
			}
			s.answer(near.KindBarrier.Answer(), id, &near.Written{Token: token})
			return false
		},
	})
}

var codes = map[operation.Failure]near.Code{
	operation.Failed: near.Failed, operation.NoAck: near.NoAck, operation.NotApplied: near.NotApplied,
	operation.NoPerm: near.NoPerm, operation.Paused: near.Paused, operation.Limited: near.Limited,
}

// writeFailed words the failure of something that had to be published.
func (s *Session) writeFailed(id uint32, err error) {
	failure, words := operation.Explain(err)
	s.fail(id, codes[failure], "%s", words)
}
