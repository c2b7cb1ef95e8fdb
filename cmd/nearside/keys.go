package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/nearside-cache/nearside/api/resp"
	"github.com/nearside-cache/nearside/cmd/nearside/internal/settings"
)

func newGet() *cobra.Command {
	var (
		c   client
		raw bool
	)
	cmd := &cobra.Command{
		Use:   "get KEY...",
		Short: "Print what this sidecar holds for keys",
		Long: `Prints the values that the sidecar holds, as GET and MGET of a Redis client
return them. It reads this sidecar's memory and nothing else: a key that is not
held is a miss, whatever other pods hold.

A miss counts as one of a reader, who may SET what it loads next.

Exit codes: 0 all keys are held, 1 one is not, 3 no sidecar answers,
5 refused, 7 the sidecar answered with an error.`,
		Example: `  nearside get product:42
  nearside get product:42 product:43 -o json
  nearside get --raw image:7 > image.png`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, keys []string) error {
			replies, err := c.ask(cmd.Context(), append([]string{"MGET"}, keys...))
			if err != nil {
				return err
			}
			return printValues(cmd.OutOrStdout(), c.output, raw, keys, replies[0].Elems)
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().BoolVar(&raw, "raw", false, "print the bytes of the values and nothing else")
	return cmd
}

// errMiss says that a key is not held. The lines before have told which.
var errMiss = &codeError{codeFailed, errNoWords}

func printValues(w io.Writer, o output, raw bool, keys []string, values []resp.Reply) error {
	if len(values) != len(keys) {
		return &codeError{codeServer, fmt.Errorf("the sidecar answered %d values for %d keys", len(values), len(keys))}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var result error
	for i, v := range values {
		if v.IsNull() {
			result = errMiss
		}
		var err error
		switch {
		case o.isJSON():
			err = printJSON(w, valuePairs(keys[i], v))
		case raw:
			_, err = io.WriteString(w, v.Str)
		case v.IsNull():
			fmt.Fprintf(t, "%s\t(not held)\n", printable(keys[i]))
		case len(keys) == 1:
			fmt.Fprintln(w, v.Str)
		default:
			fmt.Fprintf(t, "%s\t%s\n", printable(keys[i]), printable(v.Str))
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(t.Flush(), result)
}

func valuePairs(key string, v resp.Reply) []pair {
	pairs := []pair{{"key", key}, {"held", !v.IsNull()}}
	switch {
	case v.IsNull():
	case utf8.ValidString(v.Str):
		pairs = append(pairs, pair{"value", v.Str})
	default: // JSON writes bytes in base64
		pairs = append(pairs, pair{"value_base64", []byte(v.Str)})
	}
	return pairs
}

func newSet() *cobra.Command {
	var (
		c         client
		ttl, wait time.Duration
	)
	cmd := &cobra.Command{
		Use:   "set KEY VALUE",
		Short: "Offer a value to this sidecar, as a reader does after a miss",
		Long: `Offers a value, as SET of a Redis client does. The sidecar keeps it unless it
may be older than an invalidation that it knows of; the answer tells which.
VALUE - reads the value from standard input.

No other sidecar sees the value: whoever changes data invalidates.

--wait offers it again until it is kept, for a sidecar that has just started.

Exit codes: 0 taken or dropped, as a cache may, 1 not kept within --wait,
3 no sidecar answers,
4 the namespace takes a SET for a write, and that is not acknowledged,
5 refused, 7 the sidecar answered with an error.`,
		Example: `  nearside set product:42 '{"price": 9}' --ttl 10m
  nearside set image:7 - < image.png`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			value := args[1]
			if value == "-" {
				b, err := io.ReadAll(cmd.InOrStdin())
				if err != nil {
					return fmt.Errorf("reading the value from standard input: %w", err)
				}
				value = string(b)
			}
			set := []string{"SET", args[0], value}
			if cmd.Flags().Changed("ttl") {
				set = append(set, "PX", strconv.FormatInt(ttl.Milliseconds(), 10))
			}
			f, err := c.offer(cmd.Context(), set, wait)
			if err != nil {
				return err
			}
			if err := f.print(cmd.OutOrStdout(), c.output, args[0]); err != nil || f.stored || wait == 0 {
				return err
			}
			return &codeError{codeFailed, fmt.Errorf("%s was not kept within %v", args[0], wait)}
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long it may be held; not given: what the policy says")
	cmd.Flags().DurationVar(&wait, "wait", 0, "offer it again for so long until it is kept")
	settings.CommandLineOnly(cmd.Flags(), "ttl")
	settings.CommandLineOnly(cmd.Flags(), "wait")
	return cmd
}

// offerInterval is how long set pauses between two tries.
const offerInterval = 250 * time.Millisecond

// offer sends a SET until its value is stored, or wait has passed.
func (c *client) offer(ctx context.Context, set []string, wait time.Duration) (fate, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		replies, err := c.ask(ctx, set, []string{"NEAR.EXPLAIN", set[1]})
		if err != nil {
			return fate{}, err
		}
		f, err := fateOf(replies[1])
		if err != nil || f.stored {
			return f, err
		}
		select {
		case <-waiting.Done():
			return f, nil
		case <-time.After(offerInterval):
		}
	}
}

// fate is what became of a value that was offered.
type fate struct {
	stored bool
	why    string
}

func fateOf(explained resp.Reply) (fate, error) {
	e, err := pairsOf(explained)
	if err != nil {
		return fate{}, err
	}
	if rule, _ := find(e, "plain_set").(string); strings.HasPrefix(rule, "is taken for a write") {
		return fate{why: "a SET " + rule}, nil
	}
	last, _ := find(e, "last_fill").(string)
	return fate{find(e, "resident") == true && strings.HasPrefix(last, "stored "), last}, nil
}

func (f fate) print(w io.Writer, o output, key string) error {
	switch {
	case o.isJSON():
		return printJSON(w, []pair{{"key", key}, {"stored", f.stored}, {"why", f.why}})
	case f.stored:
		fmt.Fprintln(w, "stored")
	default:
		fmt.Fprintf(w, "not stored: %s\n", f.why)
	}
	return nil
}

func newInvalidate() *cobra.Command {
	var (
		c         client
		namespace string
	)
	cmd := &cobra.Command{
		Use:   "invalidate {KEY[@VERSION]... | --namespace NAME}",
		Short: "Drop keys in every sidecar of the domain, and print the token",
		Long: `Publishes an invalidation and prints its token, when the stream has acknowledged
it and this sidecar has applied it. Every other sidecar applies it within
moments; a read with the token never sees what was before.

VERSION is the source's own number of the newest value, such as a row version:
entries that have it already stay. What follows the last @ is a version if it
is a number. For a key that itself ends so, add @0: user@7@0.

--namespace drops everything below NAME: in every sidecar, and only where the
policy of the namespace permits it: see purge and wide_purges there.

Exit codes: 0 acknowledged and applied here, 3 no sidecar answers,
4 not acknowledged: it may still appear, repeat it, 5 refused,
7 the sidecar answered with an error.`,
		Example: `  nearside invalidate product:42
  nearside invalidate product:42@7 price:42@7
  nearside invalidate --namespace product`,
		RunE: func(cmd *cobra.Command, keys []string) error {
			if (len(keys) > 0) == cmd.Flags().Changed("namespace") {
				return &codeError{codeUsage, errors.New("want keys, or --namespace, and not both")}
			}
			command := []string{"NEAR.INVALIDATE", "NAMESPACE", namespace}
			if len(keys) > 0 {
				command = invalidateKeys(keys)
			}
			replies, err := c.ask(cmd.Context(), command)
			if err != nil {
				return err
			}
			if c.output.isJSON() {
				return printJSON(cmd.OutOrStdout(), []pair{{"token", replies[0].Text()}})
			}
			fmt.Fprintln(cmd.OutOrStdout(), replies[0].Text())
			return nil
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().StringVar(&namespace, "namespace", "", "drop everything in this namespace")
	settings.CommandLineOnly(cmd.Flags(), "namespace")
	return cmd
}

func invalidateKeys(args []string) []string {
	command := []string{"NEAR.INVALIDATE", "KEYS", strconv.Itoa(len(args))}
	for _, arg := range args {
		key, version := splitVersion(arg)
		command = append(command, key, version)
	}
	return command
}

// splitVersion reads KEY[@VERSION].
func splitVersion(arg string) (key, version string) {
	if i := strings.LastIndexByte(arg, '@'); i > 0 {
		if _, err := strconv.ParseUint(arg[i+1:], 10, 64); err == nil {
			return arg[:i], arg[i+1:]
		}
	}
	return arg, "0"
}
