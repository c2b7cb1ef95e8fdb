package bus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// jsonEvent is the form of an event for people and foreign writers:
//
//	nats pub nearside.default.ev.product '{"keys":[{"key":"product:42","version":7}]}'
//
// Every field may be left out; names are append-only.
type jsonEvent struct {
	Schema *uint64   `json:"v"`       // 1 when left out
	Op     *string   `json:"op"`      // a name, such as "flush"; the subject's own when left out
	Keys   []jsonKey `json:"keys"`    // objects with key and version, or plain strings
	Tags   []string  `json:"tags"`    //
	Prefix string    `json:"prefix"`  //
	Reset  bool      `json:"reset"`   // with flush: clear the version fences too
	Value  *string   `json:"value"`   // the value of an update, as text
	Value6 []byte    `json:"value64"` // the same in base64, for what is not text
	TTL    int64     `json:"ttl"`     // ms
	Writer string    `json:"writer"`  //
	Region string    `json:"region"`  //
	Time   int64     `json:"time"`    // the writer's wall clock at the change, ms since 1970
	ID     string    `json:"id"`      // for people; deduplication goes by the header Nats-Msg-Id
	Pulse  jsonPulse `json:"pulse"`
}

type jsonPulse struct {
	Process string     `json:"process"`
	Sent    int64      `json:"sent"` // ns of the publisher's monotonic clock
	Role    bool       `json:"role"`
	Fork    uint64     `json:"fork"`
	Window  jsonWindow `json:"window"`
}

type jsonWindow struct {
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Digest uint64 `json:"digest"`
}

type jsonKey KeyVersion

// UnmarshalJSON reads a plain string or an object with key and version.
func (k *jsonKey) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*k = jsonKey{}
		return json.Unmarshal(data, &k.Key)
	}
	var object struct {
		Key     string `json:"key"`
		Version uint64 `json:"version"`
	}
	if err := json.Unmarshal(data, &object); err != nil {
		return err
	}
	*k = jsonKey{Key: object.Key, Version: object.Version}
	return nil
}

func decodeJSON(data []byte, op Op) (Event, error) {
	// The JSON package would replace bytes that are no text and go on with
	// another key than the one that was meant.
	if !utf8.Valid(data) {
		return Event{}, errors.New("JSON is not UTF-8")
	}
	var j jsonEvent
	if err := json.Unmarshal(data, &j); err != nil {
		return Event{}, fmt.Errorf("JSON: %w", err)
	}
	if j.Schema != nil && *j.Schema != schemaNow {
		return Event{}, fmt.Errorf("schema %d, this version knows %d", *j.Schema, schemaNow)
	}
	if j.Op != nil {
		var err error
		if op, err = opOf(*j.Op); err != nil {
			return Event{}, err
		}
	}
	ttl, err := ttlOf(j.TTL)
	if err != nil {
		return Event{}, err
	}
	e := Event{
		Op: op, Tags: j.Tags, Prefix: j.Prefix, Reset: j.Reset, Value: j.Value6, TTL: ttl,
		Writer: j.Writer, Region: j.Region, Time: timeOf(j.Time), ID: j.ID,
		Pulse: Pulse{
			Process: j.Pulse.Process, Sent: time.Duration(j.Pulse.Sent), Role: j.Pulse.Role, Fork: j.Pulse.Fork,
			Window: Window(j.Pulse.Window),
		},
	}
	if len(e.Tags) == 0 {
		e.Tags = nil
	}
	if j.Value != nil {
		e.Value = []byte(*j.Value)
	}
	for _, k := range j.Keys {
		e.Keys = append(e.Keys, KeyVersion(k))
	}
	if err := checkEscapes(data, e); err != nil {
		return Event{}, err
	}
	return e, nil
}

// checkEscapes refuses names in which half of a surrogate pair (\ud800) was
// replaced by the JSON package.
func checkEscapes(data []byte, e Event) error {
	if !bytes.Contains(data, []byte(`\u`)) {
		return nil
	}
	names := append([]string{e.Prefix}, e.Tags...)
	for _, k := range e.Keys {
		names = append(names, k.Key)
	}
	for _, name := range names {
		if strings.ContainsRune(name, utf8.RuneError) {
			return fmt.Errorf("JSON: %.80q holds a character that is no text", name)
		}
	}
	return nil
}
