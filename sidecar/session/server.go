package session

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nearside-cache/nearside/api/resp"
)

var serverCommands = []command{
	{"COMMAND", -1, "", 0, 0, 0, "Describes the commands", (*Session).commandCommand},
	{"INFO", -1, "", 0, 0, 0, "Describes the sidecar", (*Session).info},
	{"CONFIG", -2, "", 0, 0, 0, "CONFIG GET tells some settings", (*Session).config},
}

// commandCommand is COMMAND [COUNT | INFO name… | DOCS name… | LIST].
func (s *Session) commandCommand(args resp.Command) {
	all := slices.Sorted(maps.Keys(commands))
	switch {
	case len(args) == 1:
		s.describeCommands(all)
	case is(args[1], "COUNT") && len(args) == 2:
		s.integer(int64(len(all)))
	case is(args[1], "LIST") && len(args) == 2:
		s.array(len(all))
		for _, name := range all {
			s.text(strings.ToLower(name))
		}
	case is(args[1], "INFO"):
		s.describeCommands(named(args[2:], all))
	case is(args[1], "DOCS"):
		s.documentCommands(named(args[2:], all))
	default:
		s.fail(fmt.Sprintf("ERR unknown subcommand '%.64s'. Try COMMAND HELP.", args[1]))
	}
}

// named returns the names asked for in capitals, or all.
func named(args [][]byte, all []string) []string {
	if len(args) == 0 {
		return all
	}
	names := make([]string, len(args))
	for i, a := range args {
		names[i] = strings.ToUpper(string(a))
	}
	return names
}

func (s *Session) describeCommands(names []string) {
	s.array(len(names))
	for _, name := range names {
		c, ok := commands[name]
		if !ok {
			s.null()
			continue
		}
		s.array(10)
		s.text(strings.ToLower(c.name))
		s.integer(int64(c.arity))
		s.simples(strings.Fields(c.flags))
		s.integer(int64(c.first))
		s.integer(int64(c.last))
		s.integer(int64(c.step))
		s.simples(nil) // ACL categories: there are no ACLs
		s.simples(nil) // tips
		s.simples(nil) // key specifications beyond first, last and step
		s.simples(nil) // subcommands
	}
}

// simples answers with a set of words.
func (s *Session) simples(words []string) {
	s.out = s.proto.AppendSet(s.out, len(words))
	for _, w := range words {
		s.simple(w)
	}
}

func (s *Session) documentCommands(names []string) {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return commands[n] == nil })
	s.dict(len(names))
	for _, name := range names {
		s.text(strings.ToLower(name))
		s.dict(1)
		s.text("summary")
		s.text(commands[name].summary)
	}
}

// info is INFO [section…], in Redis's form, with a section of our own.
func (s *Session) info(args resp.Command) {
	want := func(section string) bool {
		return len(args) == 1 || slices.ContainsFunc(args[1:], func(a []byte) bool {
			return strings.EqualFold(view(a), section) || is(a, "ALL") || is(a, "EVERYTHING") || is(a, "DEFAULT")
		})
	}
	var b strings.Builder
	for _, section := range s.infoSections() {
		if !want(section.name) {
			continue
		}
		fmt.Fprintf(&b, "# %s\r\n", section.name)
		for _, f := range section.fields {
			fmt.Fprintf(&b, "%s:%v\r\n", f.name, f.value)
		}
		b.WriteString("\r\n")
	}
	s.out = s.proto.AppendVerbatim(s.out, b.String())
}

type infoField struct {
	name  string
	value any
}

type infoSection struct {
	name   string
	fields []infoField
}

func (s *Session) infoSections() []infoSection {
	up := time.Since(s.env.Started)
	st := s.cache.Status()
	n := s.cache.Counts()
	return []infoSection{
		{"Server", []infoField{
			{"redis_version", redisVersion}, {"redis_mode", "standalone"}, {"nearside_version", s.env.Version},
			{"process_id", os.Getpid()}, {"tcp_port", 0}, {"uptime_in_seconds", int(up.Seconds())},
			{"uptime_in_days", int(up.Hours() / 24)},
		}},
		{"Clients", []infoField{{"connected_clients", s.env.Clients.Len()}}},
		{"Memory", []infoField{{"used_memory", st.Store.Bytes}, {"maxmemory", s.env.Memory}, {"maxmemory_policy", "allkeys-fifo"}}},
		{"Persistence", []infoField{{"loading", 0}, {"rdb_bgsave_in_progress", 0}, {"aof_enabled", 0}}},
		{"Stats", []infoField{{"keyspace_hits", n.Hits}, {"keyspace_misses", n.Misses}, {"evicted_keys", st.Store.Evicted}}},
		{"Replication", []infoField{{"role", "master"}, {"connected_slaves", 0}}},
		{"Keyspace", []infoField{{"db0", fmt.Sprintf("keys=%d,expires=%d,avg_ttl=0", st.Store.Entries, st.Store.Entries)}}},
		{"Nearside", []infoField{
			{"ready", st.Ready}, {"applied", st.Applied}, {"stream", st.Bus.Stream}, {"connected", st.Bus.Connected},
			{"doubts", st.Bus.Doubts}, {"gaps", st.Bus.Gaps}, {"repairs", st.Bus.Repairs},
		}},
	}
}

// config is CONFIG GET pattern…: what tools ask for before they start.
func (s *Session) config(args resp.Command) {
	if !is(args[1], "GET") || len(args) < 3 {
		s.fail("ERR only CONFIG GET is supported: the configuration is the file that `nearside serve --config` names")
		return
	}
	settings := [][2]string{
		{"appendonly", "no"}, {"databases", "1"}, {"maxmemory", strconv.FormatInt(s.env.Memory, 10)},
		{"maxmemory-policy", "allkeys-fifo"}, {"proto-max-bulk-len", strconv.Itoa(s.env.Limits.MaxBulk)},
		{"save", ""}, {"timeout", "0"},
	}
	settings = slices.DeleteFunc(settings, func(kv [2]string) bool {
		return !slices.ContainsFunc(args[2:], func(p []byte) bool { return globMatch(strings.ToLower(string(p)), kv[0]) })
	})
	s.dict(len(settings))
	for _, kv := range settings {
		s.text(kv[0])
		s.text(kv[1])
	}
}
