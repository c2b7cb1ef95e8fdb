package natsbus_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
	"github.com/nearside-cache/nearside/bus/natsbus"
)

func TestEnsureCreatesOnce(t *testing.T) {
	b := newBroker(t)
	cfg := natsbus.StreamConfig{Subjects: b.subjects, MaxBytes: 1 << 20}
	began := time.Now()
	info, created, err := natsbus.Ensure(within(t, patience), b.admin, cfg)
	require.NoError(t, err)
	require.True(t, created)
	require.Empty(t, info.Deviations)
	require.Equal(t, 1, info.Replicas, "a single server takes one")
	require.Equal(t, natsbus.DefaultMaxAge, info.MaxAge)
	require.EqualValues(t, 1<<20, info.MaxBytes)
	require.Equal(t, "File", info.Storage)
	require.NotEmpty(t, info.Leader)
	require.GreaterOrEqual(t, info.Origin, uint64(began.UnixMicro()))
	require.Less(t, info.Origin, uint64(1)<<53, "exact in any language's numbers")
	require.Equal(t, info.Origin, info.First)
	require.Equal(t, info.Origin-1, info.Last)

	again, created, err := natsbus.Ensure(within(t, patience), b.admin, cfg)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, info.Created, again.Created)

	require.NoError(t, b.admin.DeleteStream(context.Background(), info.Name))
	_, err = natsbus.Inspect(within(t, patience), b.admin, cfg)
	require.ErrorIs(t, err, bus.ErrNotFound)
	anew, _, err := natsbus.Ensure(within(t, patience), b.admin, cfg)
	require.NoError(t, err)
	require.Greater(t, anew.Origin, info.Origin, "a re-created stream does not reuse numbers")
}

// Several sidecars that find no stream end up with one.
func TestEnsureRaces(t *testing.T) {
	b := newBroker(t)
	cfg := natsbus.StreamConfig{Subjects: b.subjects}
	type result struct {
		info    natsbus.Info
		created bool
		err     error
	}
	results := make(chan result)
	for range 8 {
		go func() {
			info, created, err := natsbus.Ensure(context.Background(), b.admin, cfg)
			results <- result{info, created, err}
		}()
	}
	creators, births := 0, map[time.Time]bool{}
	for range 8 {
		r := <-results
		require.NoError(t, r.err)
		births[r.info.Created] = true
		if r.created {
			creators++
		}
	}
	require.Equal(t, 1, creators)
	require.Len(t, births, 1)
}

// Every setting of rule B7 that somebody may have chosen otherwise, on a real
// stream made that way.
func TestDeviations(t *testing.T) {
	b := newBroker(t)
	cfg := natsbus.StreamConfig{Subjects: b.subjects}
	for name, c := range map[string]struct {
		change  func(*jetstream.StreamConfig)
		setting string // empty: none is reported
		fatal   bool
	}{
		"as made":           {func(*jetstream.StreamConfig) {}, "", false},
		"longer max age":    {func(c *jetstream.StreamConfig) { c.MaxAge = 24 * time.Hour }, "", false},
		"no max age":        {func(c *jetstream.StreamConfig) { c.MaxAge = 0 }, "", false},
		"max bytes":         {func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 30 }, "", false},
		"max msgs":          {func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 << 20 }, "", false},
		"longer duplicates": {func(c *jetstream.StreamConfig) { c.Duplicates = 10 * time.Minute }, "", false},
		"atomic publish":    {func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = true }, "", false},
		"compression":       {func(c *jetstream.StreamConfig) { c.Compression = jetstream.S2Compression }, "", false},
		"shorter max age":   {func(c *jetstream.StreamConfig) { c.MaxAge = 10 * time.Minute }, "max_age", false},
		"discard new":       {func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardNew }, "discard", false},
		"first seq":         {func(c *jetstream.StreamConfig) { c.FirstSeq = 0 }, "first_seq", false},
		"max msg size":      {func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1024 }, "max_msg_size", false},
		"more subjects":     {func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "other") }, "subjects", false},
		"interest":          {func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }, "retention", true},
		"work queue":        {func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }, "retention", true},
		"per subject":       {func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 }, "max_msgs_per_subject", true},
		"message ttl":       {func(c *jetstream.StreamConfig) { c.AllowMsgTTL = true }, "allow_msg_ttl", true},
		"rollup":            {func(c *jetstream.StreamConfig) { c.AllowRollup, c.DenyPurge = true, false }, "allow_rollup_hdrs", true},
		"schedules":         {func(c *jetstream.StreamConfig) { c.AllowMsgSchedules, c.AllowRollup, c.DenyPurge = true, true, false }, "allow_msg_schedules", true},
		"delete":            {func(c *jetstream.StreamConfig) { c.DenyDelete = false }, "deny_delete", true},
		"purge":             {func(c *jetstream.StreamConfig) { c.DenyPurge = false }, "deny_purge", true},
		"counters":          {func(c *jetstream.StreamConfig) { c.AllowMsgCounter = true }, "allow_msg_counter", true},
		"transform": {func(c *jetstream.StreamConfig) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "nearside.test.ev.*", Destination: "nearside.test.ev.x"}
		}, "subject_transform", true},
		"sources":          {func(c *jetstream.StreamConfig) { c.Sources = []*jetstream.StreamSource{{Name: "OTHER"}} }, "sources", true},
		"no ack":           {func(c *jetstream.StreamConfig) { c.NoAck = true }, "no_ack", true},
		"short duplicates": {func(c *jetstream.StreamConfig) { c.Duplicates = time.Second }, "duplicate_window", true},
		"fewer subjects": {func(c *jetstream.StreamConfig) {
			c.Subjects = []string{"nearside.test.ev.>"}
			c.RePublish.Source = "nearside.test.ev.>"
		}, "subjects", true},
		"no direct":             {func(c *jetstream.StreamConfig) { c.AllowDirect = false }, "allow_direct", true},
		"no republish":          {func(c *jetstream.StreamConfig) { c.RePublish = nil }, "republish", true},
		"republish elsewhere":   {func(c *jetstream.StreamConfig) { c.RePublish.Destination = "elsewhere.>" }, "republish", true},
		"republish headers":     {func(c *jetstream.StreamConfig) { c.RePublish.HeadersOnly = true }, "republish headers_only", true},
		"memory":                {func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, "storage", true},
		"asynchronous persists": {func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode }, "persist_mode", true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, patience)
			made := cfg.JetStream(time.Now(), 1)
			c.change(&made)
			create(t, b, made)
			defer func() { require.NoError(t, b.admin.DeleteStream(context.Background(), made.Name)) }()
			info, created, err := natsbus.Ensure(ctx, b.admin, cfg)
			require.False(t, created)
			require.Equal(t, made.Name, info.Name, "Info is there whatever is wrong")
			if c.setting == "" {
				require.NoError(t, err)
				require.Empty(t, info.Deviations)
				return
			}
			found := false
			for _, d := range info.Deviations {
				if d.Setting == c.setting {
					found = true
					require.Equal(t, c.fatal, d.Fatal)
					require.NotEmpty(t, d.Is)
					require.NotEmpty(t, d.Wants)
					require.NotEmpty(t, d.Why)
				}
			}
			require.True(t, found, "%v", info.Deviations)
			if c.fatal {
				require.ErrorIs(t, err, bus.ErrUnfit)
				require.ErrorContains(t, err, c.setting)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

// What a real server cannot be made to show.
func TestDeviationsOfOtherServers(t *testing.T) {
	subjects, err := bus.NewSubjects("test")
	require.NoError(t, err)
	cfg := natsbus.StreamConfig{Subjects: subjects}
	made := cfg.JetStream(time.Now(), 1)
	made.Sealed, made.Mirror = true, &jetstream.StreamSource{Name: "OTHER"}
	info := &jetstream.StreamInfo{Config: made, Cluster: &jetstream.ClusterInfo{Name: "c", Leader: "s1"}}
	settings := map[string]bool{}
	for _, d := range natsbus.Check(info, cfg) {
		settings[d.Setting] = d.Fatal
	}
	require.Equal(t, map[string]bool{"sealed": true, "mirror": true, "server": true, "num_replicas": false}, settings)
}

func TestEnsureWithoutJetStream(t *testing.T) {
	b := newBroker(t)
	js, err := jetstream.NewWithDomain(b.admin.Conn(), "nowhere")
	require.NoError(t, err)
	_, _, err = natsbus.Ensure(within(t, patience), js, natsbus.StreamConfig{Subjects: b.subjects})
	require.ErrorContains(t, err, "--nats-domain")
	require.NotErrorIs(t, err, bus.ErrUnfit, "it may come")
}
