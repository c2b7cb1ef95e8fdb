package loader

import (
	"github.com/nearside-cache/nearside/bus"
)

// Decoders of what an origin sends.
var (
	FieldVersion = fieldVersion
	ParseMaxAge  = parseMaxAge
	ParseTags    = parseTags
	ParseETag    = parseETag
	ParseAfter   = parseAfter
	ReadBody     = readBody
)

// Outcomes are the values of the metrics' label.
var Outcomes = outcomes

// JudgeReply reads a reply on a subject as the answer to r.
func JudgeReply(reply bus.Reply, field string, r Request) (Result, error) {
	a, err := parseReply(reply)
	if err != nil {
		return Result{}, err
	}
	d := reading{field: splitField(field), versioned: field != ""}
	return d.result(a, r, r.ETag != "" && r.Version >= r.AtLeast)
}
