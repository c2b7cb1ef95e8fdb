// Package settings gives every flag of a command two more spellings: a variable
// of the environment and a key of the configuration file. What a flag is called
// is said once, where it is registered; its value is read the same way from all
// three. The precedence is flag, environment, file, what follows from where the
// process runs, default.
package settings

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/nearside-cache/nearside/sidecar/policy"
)

// commandLine is the annotation of flags that have no other spelling.
const commandLine = "nearside_command_line_only"

// CommandLineOnly says that a flag of fs cannot be given by the environment or
// the file. It is for flags that say what a command shall do, where a variable
// that somebody set long ago would do harm.
func CommandLineOnly(fs *pflag.FlagSet, name string) {
	if err := fs.SetAnnotation(name, commandLine, nil); err != nil {
		panic("settings: " + err.Error()) // there is no such flag
	}
}

// Variable returns the name of the variable of the environment that gives a
// flag, or "" if none does.
func Variable(f *pflag.Flag) string {
	if _, only := f.Annotations[commandLine]; only || f.Name == "help" {
		return ""
	}
	return "NEARSIDE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// Key returns the name of the configuration file's key that gives a flag, or ""
// if none does.
func Key(f *pflag.Flag) string {
	if f.Name == "config" || f.Name == "config-optional" || Variable(f) == "" {
		return ""
	}
	return strings.ReplaceAll(f.Name, "-", "_")
}

// Sources is where settings come from besides the command line.
type Sources struct {
	// Lookup is os.LookupEnv. A variable that is set counts, also when it is
	// empty.
	Lookup func(string) (string, bool)
	// File is the contents of the configuration file, FileName what it is called
	// in messages. An empty FileName means that there is none.
	File     []byte
	FileName string
	// Derived takes the place of defaults.
	Derived []Derived
}

// Derived is the value of a flag that follows from where the process runs. It
// prevails over the default alone.
type Derived struct {
	Flag, Value string
	// Origin is what it follows from, in words.
	Origin string
}

// Reader reads settings and remembers where each came from.
type Reader struct {
	flags    *pflag.FlagSet
	policies *policy.Set
	file     string            // what the configuration file is called; empty: none
	from     map[string]string // setting, as faults name it → where it was given
	faults   []error
}

// Read sets the flags of fs, which was parsed already, from the sources, and
// what the file says of policies in p. p may be nil where the sources name no
// file. The Reader knows the faults.
func Read(fs *pflag.FlagSet, p *policy.Set, s Sources) *Reader {
	r := &Reader{flags: fs, policies: p, file: s.FileName, from: make(map[string]string)}
	given := make(map[string]string)
	fs.Visit(func(f *pflag.Flag) { given[f.Name] = f.Value.String() })
	// From the lowest to the highest: each is read whole, so that its faults are
	// known also where a higher one prevails.
	for _, d := range s.Derived {
		r.set(fs.Lookup(d.Flag), d.Origin, d.Value)
	}
	if s.FileName != "" {
		r.readFile(s.FileName, s.File)
	}
	fs.VisitAll(func(f *pflag.Flag) {
		if name := Variable(f); name != "" {
			if value, ok := s.Lookup(name); ok {
				r.set(f, name, value)
			}
		}
	})
	for name, value := range given {
		r.set(fs.Lookup(name), "--"+name, value)
	}
	return r
}

// Origin returns where a flag's value was given, or OriginDefault.
func (r *Reader) Origin(flag string) string { return r.origin(flag) }

// File returns what the configuration file that was read is called; empty: none.
func (r *Reader) File() string { return r.file }

// set gives a flag its value, which came from where. A value that cannot be
// read leaves the flag as it is.
func (r *Reader) set(f *pflag.Flag, where, value string) {
	former := f.Value.String()
	if err := r.flags.Set(f.Name, value); err != nil {
		r.fault(where, "%s is %q: want %s", f.Name, value, wants(f, err))
		// pflag's own numbers become 0 when they cannot be read.
		if err := f.Value.Set(former); err != nil {
			r.faults = append(r.faults, err)
		}
		return
	}
	r.from[f.Name] = where
}

func (r *Reader) fault(where, format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...)))
}

// Explain words what pflag says of a value that cannot be read as the faults of
// a Reader are worded. Other errors are returned as they are.
func Explain(err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err
	}
	return fmt.Errorf("--%s is %q: want %s", bad.GetFlag().Name, bad.GetValue(), wants(bad.GetFlag(), err))
}

// wants says what a flag's value may be: in the words of a value type of ours,
// or in place of the terse ones of pflag's.
func wants(f *pflag.Flag, err error) string {
	switch f.Value.Type() {
	case "int":
		return "a whole number"
	case "duration":
		return wantDuration
	case "bool":
		return wantBool
	}
	if cause := errors.Unwrap(err); cause != nil {
		err = cause
	}
	return err.Error()
}

const (
	wantDuration = "a duration such as 30s or 10m"
	wantBool     = "true or false"
)

// Faults returns everything that is wrong: with the sources, and with what they
// make together, which validation found and joined. Each fault says where.
func (r *Reader) Faults(validation error) []error {
	faults := r.faults
	for _, err := range split(validation) {
		setting, _, _ := strings.Cut(err.Error(), " ")
		if where, ok := r.from[strings.TrimSuffix(setting, ":")]; ok {
			err = fmt.Errorf("%s: %w", where, err)
		}
		faults = append(faults, err)
	}
	return faults
}

// split undoes errors.Join, at all levels.
func split(err error) []error {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) || err.Error() != errors.Join(joined.Unwrap()...).Error() {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, split(e)...)
	}
	return all
}
