package loader

import (
	"sync/atomic"
	"time"
)

// State is how an origin is, for people.
type State struct {
	Origin      string        // where it is, without secrets
	Breaker     string        // in words
	Timeout     time.Duration // of one try, at present
	Rate        float64       // requests per second at most, at present
	InFlight    int           // requests under way
	Waiting     int           // requests that wait for their turn
	LastFailure string        // empty when there was none
	LastFailed  time.Duration // how long ago that was
	Counts      Counts
}

// Counts are totals since the origin was made. A new policy makes a new one.
type Counts struct {
	Loads    uint64 // that ended
	Answered uint64 // of these, with a value, no value, or nothing new
	Refused  uint64 // of these, without asking the origin: breaker, rate, queue
	Failed   uint64 // all others
	Requests uint64 // sent to the origin, retries included
	WentOn   uint64 // readers that went on without a load
}

type counts struct {
	answered, refused, failed, requests, slow atomic.Uint64
}

func (c *counts) add(outcome string) {
	switch outcome {
	case "loaded", "not_modified", "negative":
		c.answered.Add(1)
	case "breaker_open", "over_rate", "queue_full":
		c.refused.Add(1)
	default:
		c.failed.Add(1)
	}
}

type failure struct {
	text string
	at   time.Time
}

func (o *Origin) fail(err error) { o.last.Store(&failure{text: err.Error(), at: time.Now()}) }

func (o *Origin) lastFailure() string {
	if f := o.last.Load(); f != nil {
		return f.text
	}
	return ""
}

// State tells how the origin is now.
func (o *Origin) State() State {
	s := State{
		Origin: o.name, Breaker: o.breaker.words(), Timeout: o.timeouts.current(), Rate: o.pace.current(),
		InFlight: o.gate.underWay(), Waiting: o.gate.waiting(), Counts: o.Counts(),
	}
	if f := o.last.Load(); f != nil {
		s.LastFailure, s.LastFailed = f.text, time.Since(f.at)
	}
	return s
}

// Counts returns the totals so far. They are read one after the other.
func (o *Origin) Counts() Counts {
	c := Counts{
		Answered: o.counts.answered.Load(), Refused: o.counts.refused.Load(), Failed: o.counts.failed.Load(),
		Requests: o.counts.requests.Load(), WentOn: o.counts.slow.Load(),
	}
	c.Loads = c.Answered + c.Refused + c.Failed
	return c
}
