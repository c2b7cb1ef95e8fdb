package settings

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// The errors of the values below say what is wanted, and nothing else: whoever
// sets them says what was given, and where.

// Size returns a flag's value that is a number of bytes, read as 64MiB, 64m or
// 67108864.
func Size[T int | int64](p *T) pflag.Value { return size[T]{p} }

type size[T int | int64] struct{ bytes *T }

// Type implements pflag.Value.
func (size[T]) Type() string { return "size" }

// Set implements pflag.Value.
func (s size[T]) Set(text string) error {
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 || int64(T(n)) != n {
		return errors.New("a size such as 64MiB")
	}
	*s.bytes = T(n)
	return nil
}

// String is exact, so that Set can read it back.
func (s size[T]) String() string {
	if s.bytes == nil {
		return "" // pflag asks a zero value whether a default is one
	}
	n := int64(*s.bytes)
	switch {
	case n > 0 && n%units.MiB == 0:
		return strconv.FormatInt(n/units.MiB, 10) + "MiB"
	case n > 0 && n%units.KiB == 0:
		return strconv.FormatInt(n/units.KiB, 10) + "KiB"
	}
	return strconv.FormatInt(n, 10)
}

// Mode returns a flag's value that is a file mode, in octal digits.
func Mode(p *fs.FileMode) pflag.Value { return mode{p} }

type mode struct{ bits *fs.FileMode }

// Type implements pflag.Value.
func (mode) Type() string { return "mode" }

// Set implements pflag.Value.
func (m mode) Set(text string) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil {
		return errors.New("a file mode in octal digits such as 0666")
	}
	*m.bits = fs.FileMode(n)
	return nil
}

// String implements pflag.Value.
func (m mode) String() string {
	if m.bits == nil {
		return ""
	}
	return "0" + strconv.FormatUint(uint64(*m.bits), 8)
}

// UIDs returns a flag's value that is a list of user ids.
func UIDs(p *[]uint32) pflag.Value { return uids{p} }

type uids struct{ list *[]uint32 }

// Type implements pflag.Value.
func (uids) Type() string { return "uids" }

// Set implements pflag.Value.
func (u uids) Set(text string) error {
	var list []uint32
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word == "" && text == "" {
			continue
		}
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return errors.New("user ids with commas between, such as 1000,65532")
		}
		list = append(list, uint32(n))
	}
	*u.list = list
	return nil
}

// String implements pflag.Value.
func (u uids) String() string {
	if u.list == nil {
		return ""
	}
	words := make([]string, len(*u.list))
	for i, n := range *u.list {
		words[i] = strconv.FormatUint(uint64(n), 10)
	}
	return strings.Join(words, ",")
}

// Choice returns a flag's value that is one of some words.
func Choice(p *string, words ...string) pflag.Value { return choice{p, words} }

type choice struct {
	word  *string
	words []string
}

// Type implements pflag.Value.
func (choice) Type() string { return "word" }

// Set implements pflag.Value.
func (c choice) Set(text string) error {
	if !slices.Contains(c.words, text) {
		last := len(c.words) - 1
		return errors.New(strings.Join(c.words[:last], ", ") + " or " + c.words[last])
	}
	*c.word = text
	return nil
}

// String implements pflag.Value.
func (c choice) String() string {
	if c.word == nil {
		return ""
	}
	return *c.word
}
