package native

import (
	"context"
	"time"

	"github.com/nearside-cache/nearside/api/near"
	"github.com/nearside-cache/nearside/sidecar/cache"
	"github.com/nearside-cache/nearside/sidecar/operation"
)

// subscribe has every event pushed that is applied from now on.
func (s *Session) subscribe(id uint32, _ *near.None) {
	if s.watching == nil {
		ctx, stop := context.WithCancel(s.ctx)
		s.watching, s.watched = stop, make(chan struct{})
		w := s.cache.Watch()
		s.running.Go(func() { s.watch(ctx, w) })
	}
	s.answer(near.KindSubscribe.Answer(), id, &near.None{})
}

// unsubscribe ends that; of what was queued nothing follows its answer.
func (s *Session) unsubscribe(id uint32, _ *near.None) {
	if s.watching != nil {
		s.watching()
		<-s.watched
		s.watching = nil
		s.mu.Lock()
		s.events.take(nil)
		s.mu.Unlock()
	}
	s.answer(near.KindUnsubscribe.Answer(), id, &near.None{})
}

// watch queues what w is told, until ctx ends.
func (s *Session) watch(ctx context.Context, w *cache.Watcher) {
	defer close(s.watched)
	defer w.Close()
	lost := uint64(0)
	for {
		select {
		case e := <-w.Events:
			lost += w.Lost()
			if s.pushEvent(eventOf(operation.DescribeEvent(e, lost, s.cache.Policies()))) {
				lost = 0
			} else {
				lost++
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *Session) pushEvent(e near.Event) bool {
	s.mu.Lock()
	room := s.events.add(near.KindEvent, &e)
	wake := s.rouse()
	s.mu.Unlock()
	if wake {
		s.wake()
	}
	return room
}

func eventOf(d operation.Event) near.Event {
	e := near.Event{
		Seq: d.Seq, Position: d.Position, Op: d.Op, Namespace: d.Namespace, MoreKeys: uint64(d.MoreKeys),
		Tags: d.Tags, Prefix: []byte(d.Prefix), Writer: d.Writer, Stored: time.Duration(d.Stored.UnixNano()),
		Lag: max(0, time.Duration(d.LagMicros)*time.Microsecond), Error: d.Error, Lost: d.Lost,
	}
	for _, kv := range d.Keys {
		e.Keys = append(e.Keys, near.KeyVersion{Key: []byte(kv.Key), Version: kv.Version})
	}
	return e
}
