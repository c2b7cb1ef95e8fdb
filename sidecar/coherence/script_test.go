package coherence_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/sidecar/coherence"
)

// TestScripts replays the scenarios in testdata. After a change of the rules,
// look at what `go test ./sidecar/coherence -run Scripts -rewrite` changes in
// them: a scenario's outcome is part of the contract.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "../testdata/coherence", func(t *testing.T, path string) {
		s := newScript()
		datadriven.RunTest(t, path, s.run)
	})
}

// script is one sidecar's core under a scenario's control.
type script struct {
	cfg    coherence.Config
	shelf  shelf
	core   *coherence.Core
	now    time.Duration
	epoch  bus.Epoch
	leases map[string]coherence.Lease
}

func newScript() *script {
	s := &script{cfg: config(), epoch: bus.Epoch{Created: 1}}
	s.restart()
	return s
}

func (s *script) restart() {
	s.shelf = shelf{}
	s.core = coherence.New(s.cfg, s.shelf)
	s.leases = make(map[string]coherence.Lease)
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	step, known := scriptSteps[d.Cmd]
	if !known {
		d.Fatalf(t, "unknown step %q", d.Cmd)
	}
	return step(s, t, d)
}

var scriptSteps = map[string]func(*script, *testing.T, *datadriven.TestData) string{
	"restart": (*script).doRestart,
	"resume":  (*script).doResume,
	"doubt":   (*script).doDoubt,
	"advance": (*script).doAdvance,
	"lease":   (*script).doLease,
	"miss":    (*script).doMiss,
	"event":   (*script).doEvent,
	"fill":    (*script).doFill,
	"set":     (*script).doSet,
	"get":     (*script).doGet,
	"evict":   (*script).doEvict,
	"own":     (*script).doOwn,
	"stamp":   (*script).doStamp,

	"lost":      (*script).doLost,
	"flush-own": (*script).doOwnFlush,
}

// restart [later-life] [fences=N] [misses=N]: a new process.
func (s *script) doRestart(t *testing.T, d *datadriven.TestData) string {
	s.cfg.FirstLife = !d.HasArg("later-life")
	d.MaybeScanArgs(t, "fences", &s.cfg.MaxFences)
	d.MaybeScanArgs(t, "misses", &s.cfg.MaxMisses)
	s.cfg.Incarnation += 100
	s.restart()
	return ""
}

// resume seq=N [created=N] [blind=D] [from=N]; the input holds the history, one
// event step a line.
func (s *script) doResume(t *testing.T, d *datadriven.TestData) string {
	r := bus.Resume{}
	var blind string
	d.ScanArgs(t, "seq", &r.Position.Seq)
	d.MaybeScanArgs(t, "created", &s.epoch.Created)
	r.HistoryFrom = r.Position.Seq
	d.MaybeScanArgs(t, "from", &r.HistoryFrom)
	if d.MaybeScanArgs(t, "blind", &blind) {
		r.Blind = duration(t, blind)
	}
	for i := range d.CmdArgs {
		if a := d.CmdArgs[i]; a.Key == "history" { // history=(seq,key)
			var seq uint64
			fmt.Sscan(a.Vals[0], &seq)
			r.History = append(r.History, s.delivery(seq, bus.Event{Keys: []bus.KeyVersion{{Key: a.Vals[1]}}}))
		}
	}
	r.Position.Epoch = s.epoch
	s.core.Resume(r, s.now)
	return ""
}

func (s *script) doDoubt(*testing.T, *datadriven.TestData) string {
	s.core.Doubt(s.now)
	return ""
}

// advance 3s
func (s *script) doAdvance(t *testing.T, d *datadriven.TestData) string {
	s.now += duration(t, d.CmdArgs[0].Key)
	return ""
}

// lease reader=R0 [lag=D]: a reader that will present its lease.
func (s *script) doLease(t *testing.T, d *datadriven.TestData) string {
	var reader, lag string
	d.ScanArgs(t, "reader", &reader)
	d.MaybeScanArgs(t, "lag", &lag)
	l := s.core.Lease(s.now, duration(t, lag))
	s.leases[reader] = l
	return fmt.Sprintf("seq=%d", l.Position.Seq)
}

// miss k: a plain client's GET that found nothing.
func (s *script) doMiss(_ *testing.T, d *datadriven.TestData) string {
	s.core.Miss(d.CmdArgs[0].Key, s.now, 0)
	return ""
}

// event seq=N [key=K] [version=V] [op=flush|fork|update|pulse] [namespace=NS]
// [prefix=P] [tag=T] [reset] [malformed]
func (s *script) doEvent(t *testing.T, d *datadriven.TestData) string {
	var (
		seq     uint64
		key, op string
		kv      bus.KeyVersion
		e       bus.Event
		ns      string
	)
	d.ScanArgs(t, "seq", &seq)
	if d.MaybeScanArgs(t, "key", &key) {
		kv.Key = key
		d.MaybeScanArgs(t, "version", &kv.Version)
		e.Keys = []bus.KeyVersion{kv}
		ns = bus.NamespaceOf(key)
	}
	d.MaybeScanArgs(t, "namespace", &ns)
	d.MaybeScanArgs(t, "prefix", &e.Prefix)
	var tag, value string
	if d.MaybeScanArgs(t, "value", &value) {
		e.Value = []byte(value)
	}
	if d.MaybeScanArgs(t, "tag", &tag) {
		e.Tags = []string{tag}
	}
	d.MaybeScanArgs(t, "op", &op)
	e.Op = map[string]bus.Op{"": bus.OpInvalidate, "flush": bus.OpFlush, "fork": bus.OpFork, "update": bus.OpUpdate, "pulse": bus.OpPulse}[op]
	e.Reset = d.HasArg("reset")
	if op == "fork" {
		s.epoch.Fork = seq
	}
	dl := s.delivery(seq, e)
	dl.Namespace = ns
	if d.HasArg("malformed") {
		dl.Event, dl.Err = bus.Event{}, errors.New("not msgpack")
	}
	s.core.Apply(dl, s.now)
	return ""
}

func (s *script) delivery(seq uint64, e bus.Event) bus.Delivery {
	d := bus.Delivery{Position: bus.Position{Epoch: s.epoch, Seq: seq}, Event: e}
	if len(e.Keys) > 0 {
		d.Namespace = bus.NamespaceOf(e.Keys[0].Key)
	}
	return d
}

// many is how many further tags a fill has.
func many(t *testing.T, d *datadriven.TestData) (n int) {
	d.MaybeScanArgs(t, "many", &n)
	return n
}

// fill k reader=R0 [version=V] value=v0 [tags=(t,…)] [depends=(k,…)] [many=N]
func (s *script) doFill(t *testing.T, d *datadriven.TestData) string {
	var reader, value string
	f := coherence.Fill{Key: d.CmdArgs[0].Key}
	d.ScanArgs(t, "reader", &reader)
	d.ScanArgs(t, "value", &value)
	d.MaybeScanArgs(t, "version", &f.Version)
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "tags":
			f.Tags = a.Vals
		case "depends":
			f.Depends = a.Vals
		}
	}
	for i := range many(t, d) {
		f.Tags = append(f.Tags, fmt.Sprint("many", i))
	}
	lease, ok := s.leases[reader]
	if !ok {
		d.Fatalf(t, "reader %q holds no lease", reader)
	}
	f.Lease = lease
	stamp, verdict := s.core.Fill(f, s.now)
	return s.put(f.Key, value, stamp, verdict)
}

// set k value=v0 [mode=window]
func (s *script) doSet(t *testing.T, d *datadriven.TestData) string {
	var value, mode string
	d.ScanArgs(t, "value", &value)
	m := coherence.SetFill
	if d.MaybeScanArgs(t, "mode", &mode) && mode == "window" {
		m = coherence.SetWindow
	}
	stamp, verdict := s.core.PlainSet(d.CmdArgs[0].Key, m, s.now, 0)
	return s.put(d.CmdArgs[0].Key, value, stamp, verdict)
}

func (s *script) put(key, value string, stamp coherence.Stamp, v coherence.Verdict) string {
	if v == coherence.Stored {
		s.shelf[key] = entry{stamp: stamp, value: value}
	}
	return v.String()
}

func (s *script) doGet(_ *testing.T, d *datadriven.TestData) string {
	key := d.CmdArgs[0].Key
	if e, ok := s.shelf[key]; ok && s.core.Horizon().Alive(key, e.stamp) {
		return e.value
	}
	return "(miss)"
}

func (s *script) doEvict(_ *testing.T, d *datadriven.TestData) string {
	key := d.CmdArgs[0].Key
	e := s.shelf[key]
	delete(s.shelf, key)
	s.core.Evicted(key, e.stamp, s.now)
	return ""
}

func (s *script) doOwn(_ *testing.T, d *datadriven.TestData) string {
	_, alive := s.core.OwnWrite(d.CmdArgs[0].Key, s.now)
	return fmt.Sprintf("was alive: %v", alive)
}

func (s *script) doOwnFlush(*testing.T, *datadriven.TestData) string {
	s.core.OwnFlush("", s.now)
	return ""
}

func (s *script) doLost(*testing.T, *datadriven.TestData) string {
	s.core.EvictedUnknown(s.now)
	return ""
}

// stamp k: what the entry would be judged by.
func (s *script) doStamp(_ *testing.T, d *datadriven.TestData) string {
	e := s.shelf[d.CmdArgs[0].Key]
	return fmt.Sprintf("version=%d seq=%d", e.stamp.Version, e.stamp.Seq)
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
