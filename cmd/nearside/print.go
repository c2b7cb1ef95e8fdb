package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

// output is what -o says.
type output string

const (
	outputText = "text"
	outputJSON = "json"
)

func (o *output) register(fs *pflag.FlagSet) {
	*o = outputText
	fs.VarP(settings.Choice((*string)(o), outputText, outputJSON), "output", "o", "how to print: text or json")
}

func (o output) isJSON() bool { return o == outputJSON }

// pair is one line of an answer, or one member of a JSON object.
type pair struct {
	name  string
	value any
}

// printPairs prints an answer in its order.
func (o output) printPairs(w io.Writer, pairs []pair) error {
	if o.isJSON() {
		return printJSON(w, pairs)
	}
	names := 0
	for _, p := range pairs {
		names = max(names, len(p.name))
	}
	var b strings.Builder
	for _, p := range pairs {
		text := []string{humanValue(p.value)}
		if room := columns - names - 2; len(text[0]) > room {
			text = wrap(text[0], room)
		}
		for i, line := range text {
			name := map[bool]string{true: strings.ReplaceAll(p.name, "_", " ")}[i == 0]
			fmt.Fprintf(&b, "%-*s  %s\n", names, name, line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// columns is how wide a line for people is at most.
const columns = 80

// wrap breaks text at blanks into lines of at most width bytes, as far as its
// words allow.
func wrap(text string, width int) []string {
	var lines []string
	for len(text) > width {
		end := strings.LastIndexByte(text[:width+1], ' ')
		if end < 0 {
			end = strings.IndexByte(text, ' ')
		}
		if end < 0 {
			break
		}
		lines, text = append(lines, text[:end]), text[end+1:]
	}
	return append(lines, text)
}

// printJSON prints one object in one line.
func printJSON(w io.Writer, pairs []pair) error {
	var b bytes.Buffer
	for i, p := range pairs {
		value, err := json.Marshal(p.value)
		if err != nil {
			return fmt.Errorf("%s cannot be written as JSON: %w", p.name, err)
		}
		b.WriteString(map[bool]string{true: "{", false: ","}[i == 0])
		b.WriteString(strconv.Quote(p.name) + ":")
		b.Write(value)
	}
	b.WriteString("}\n")
	_, err := w.Write(b.Bytes())
	return err
}

func humanValue(v any) string {
	switch v := v.(type) {
	case bool:
		return map[bool]string{true: "yes", false: "no"}[v]
	case string:
		return printable(v)
	default:
		return fmt.Sprint(v)
	}
}

// printable returns text as it is if it is harmless to a terminal and to the
// columns of a table, and quoted if not.
func printable(text string) string {
	if quoted := strconv.Quote(text); text == "" || quoted[1:len(quoted)-1] != strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(text) {
		return quoted
	}
	return text
}
