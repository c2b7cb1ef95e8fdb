package bustest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nearside-cache/nearside/bus"
)

// RunBuckets runs the conformance suite of buckets. open returns a fresh domain;
// its attachments must be bus.Buckets.
func RunBuckets(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range []struct {
		name string
		run  func(s *shelf)
	}{
		{"revisions", caseRevisions},
		{"conflicts", caseConflicts},
		{"delete and create", caseDeleteAndCreate},
		{"any key", caseAnyKey},
		{"values", caseValues},
		{"settings", caseSettings},
		{"opened twice", caseOpenedTwice},
		{"one of many creates", caseOneCreates},
		{"compare and set loses nothing", caseCompareAndSet},
		{"time to live", caseTimeToLive},
		{"wait", caseWait},
		{"no answer", caseNoAnswer},
		{"restart", caseBucketRestart},
		{"full", caseFull},
		{"slices are not shared", caseNotShared},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			s := &shelf{t: t, ctx: ctx, Harness: open(t)}
			s.at, s.Bucket = s.attach("shelf", bus.BucketConfig{})
			c.run(s)
		})
	}
}

// shelf is a bucket under test.
type shelf struct {
	bus.Bucket
	Harness
	t   *testing.T
	ctx context.Context
	at  Attachment
}

func (s *shelf) attach(name string, c bus.BucketConfig) (Attachment, bus.Bucket) {
	a := s.Attach(s.t)
	return a, s.open(a, name, c)
}

func (s *shelf) open(a Attachment, name string, c bus.BucketConfig) bus.Bucket {
	b, err := a.(bus.Buckets).Bucket(s.ctx, name, c)
	require.NoError(s.t, err)
	return b
}

// holds wants the key present with this value and at this revision, for any
// reader.
func (s *shelf) holds(key, value string, revision uint64) {
	s.t.Helper()
	for _, read := range []func(context.Context, string) ([]byte, uint64, error){s.Get, s.Latest} {
		got, at, err := read(s.ctx, key)
		require.NoError(s.t, err)
		require.Equal(s.t, value, string(got))
		require.Equal(s.t, revision, at)
	}
}

func (s *shelf) lacks(key string) {
	s.t.Helper()
	_, _, err := s.Get(s.ctx, key)
	require.ErrorIs(s.t, err, bus.ErrKeyNotFound)
	_, _, err = s.Latest(s.ctx, key)
	require.ErrorIs(s.t, err, bus.ErrKeyNotFound)
}

func (s *shelf) put(key, value string) uint64 {
	s.t.Helper()
	revision, err := s.Put(s.ctx, key, []byte(value), 0)
	require.NoError(s.t, err)
	return revision
}

func caseRevisions(s *shelf) {
	s.lacks("a")
	last := uint64(0)
	for i := range 10 {
		key, value := "k"+strconv.Itoa(i%3), strconv.Itoa(i)
		revision := s.put(key, value)
		require.Greater(s.t, revision, last, "higher than every former one of the bucket")
		s.holds(key, value, revision)
		last = revision
	}
	revision, err := s.Update(s.ctx, "k0", []byte("new"), last, 0)
	require.NoError(s.t, err, "k0 was written last")
	require.Greater(s.t, revision, last)
	s.holds("k0", "new", revision)
}

func caseConflicts(s *shelf) {
	first, err := s.Create(s.ctx, "a", []byte("1"), 0)
	require.NoError(s.t, err)
	refused := func(err error) {
		s.t.Helper()
		require.ErrorIs(s.t, err, bus.ErrConflict)
		require.NotErrorIs(s.t, err, bus.ErrKeyNotFound)
	}
	_, err = s.Create(s.ctx, "a", []byte("2"), 0)
	refused(err)
	for _, other := range []uint64{0, 1, first - 1, first + 1} {
		_, err = s.Update(s.ctx, "a", []byte("2"), other, 0)
		refused(err)
		refused(s.Delete(s.ctx, "a", other))
	}
	for _, revision := range []uint64{0, first} {
		_, err = s.Update(s.ctx, "absent", []byte("2"), revision, 0)
		refused(err)
		refused(s.Delete(s.ctx, "absent", revision))
	}
	s.holds("a", "1", first)
	s.lacks("absent")
}

func caseDeleteAndCreate(s *shelf) {
	last := s.put("a", "1")
	for i := range 3 {
		require.NoError(s.t, s.Delete(s.ctx, "a", last))
		s.lacks("a")
		require.ErrorIs(s.t, s.Delete(s.ctx, "a", last), bus.ErrConflict, "it is gone")
		_, err := s.Update(s.ctx, "a", []byte("x"), last, 0)
		require.ErrorIs(s.t, err, bus.ErrConflict, "it is gone")
		revision, err := s.Create(s.ctx, "a", []byte(strconv.Itoa(i)), 0)
		require.NoError(s.t, err)
		require.Greater(s.t, revision, last)
		s.holds("a", strconv.Itoa(i), revision)
		last = revision
	}
}

func caseAnyKey(s *shelf) {
	keys := []string{
		"a", "a.b", "a..b", ".", "*", ">", "a >", " ", "\x00", "\xff\xfe", "product:42", "é", "=", "%41", "A", "k", "KV_x", "\r\n",
		strings.Repeat("k", 255), strings.Repeat("k", bus.MaxKey), strings.Repeat("k", bus.MaxKey-1) + ".",
	}
	revisions := make(map[string]uint64)
	for i, key := range keys {
		revisions[key] = s.put(key, strconv.Itoa(i))
	}
	require.Len(s.t, revisions, len(keys))
	for i, key := range keys {
		s.holds(key, strconv.Itoa(i), revisions[key])
	}
	for _, bad := range []string{"", strings.Repeat("k", bus.MaxKey+1)} {
		_, _, err := s.Get(s.ctx, bad)
		require.ErrorIs(s.t, err, bus.ErrBadKey)
		_, err = s.Put(s.ctx, bad, nil, 0)
		require.ErrorIs(s.t, err, bus.ErrBadKey)
		_, err = s.Create(s.ctx, bad, nil, 0)
		require.ErrorIs(s.t, err, bus.ErrBadKey)
		require.ErrorIs(s.t, s.Delete(s.ctx, bad, 1), bus.ErrBadKey)
		_, _, err = s.Wait(s.ctx, bad, 0)
		require.ErrorIs(s.t, err, bus.ErrBadKey)
	}
}

func caseValues(s *shelf) {
	for _, value := range []string{"", "\x00", "\r\n\r\n", "NATS/1.0 404\r\n\r\n", strings.Repeat("\xff", 512<<10)} {
		s.holds("a", value, s.put("a", value))
	}
	revision := s.put("a", "small")
	large := make([]byte, 16<<20)
	_, err := s.Put(s.ctx, "a", large, 0)
	require.ErrorIs(s.t, err, bus.ErrTooLarge)
	_, err = s.Update(s.ctx, "a", large, revision, 0)
	require.ErrorIs(s.t, err, bus.ErrTooLarge)
	s.holds("a", "small", revision)
}

func caseSettings(s *shelf) {
	for _, c := range []struct {
		name   string
		config bus.BucketConfig
		says   string
	}{
		{"", bus.BucketConfig{}, "name"},
		{"a.b", bus.BucketConfig{}, "name"},
		{"a b", bus.BucketConfig{}, "name"},
		{"é", bus.BucketConfig{}, "name"},
		{strings.Repeat("a", bus.MaxBucketName+1), bus.BucketConfig{}, "name"},
		{"a", bus.BucketConfig{TTL: time.Millisecond}, "ttl is 1ms"},
		{"a", bus.BucketConfig{TTL: -1}, "ttl is -1ns"},
		{"a", bus.BucketConfig{MaxBytes: -1}, "max_bytes is -1"},
		{"a", bus.BucketConfig{Replicas: 6}, "replicas is 6"},
		{"a", bus.BucketConfig{Storage: "tape"}, `storage is "tape"`},
	} {
		_, err := s.at.(bus.Buckets).Bucket(s.ctx, c.name, c.config)
		require.ErrorIs(s.t, err, bus.ErrBucketUnfit)
		require.ErrorContains(s.t, err, c.says)
	}
	full := bus.BucketConfig{TTL: time.Hour, MaxBytes: 1 << 20, Replicas: 1, Storage: bus.StorageMemory}
	s.Bucket = s.open(s.at, strings.Repeat("Z", bus.MaxBucketName), full)
	s.holds("a", "1", s.put("a", "1"))
}

// Opening again, also with other settings, shows the same keys; another bucket
// does not.
func caseOpenedTwice(s *shelf) {
	revision := s.put("a", "1")
	_, other := s.attach("other", bus.BucketConfig{})
	_, _, err := other.Get(s.ctx, "a")
	require.ErrorIs(s.t, err, bus.ErrKeyNotFound)
	for range 2 {
		_, s.Bucket = s.attach("shelf", bus.BucketConfig{TTL: time.Hour})
		s.holds("a", "1", revision)
	}
}

func caseOneCreates(s *shelf) {
	const racers = 8
	won := make(chan uint64, racers)
	var group sync.WaitGroup
	for i := range racers {
		_, b := s.attach("shelf", bus.BucketConfig{})
		group.Go(func() {
			revision, err := b.Create(s.ctx, "a", []byte(strconv.Itoa(i)), 0)
			if err == nil {
				won <- revision
			} else if !errors.Is(err, bus.ErrConflict) {
				s.t.Error(err)
			}
		})
	}
	group.Wait()
	require.Len(s.t, won, 1)
	_, revision, err := s.Latest(s.ctx, "a")
	require.NoError(s.t, err)
	require.Equal(s.t, <-won, revision)
}

func caseCompareAndSet(s *shelf) {
	const racers, each = 4, 25
	s.put("n", "0")
	var group sync.WaitGroup
	for range racers {
		_, b := s.attach("shelf", bus.BucketConfig{})
		group.Go(func() {
			for range each {
				if err := increment(s.ctx, b, "n"); err != nil {
					s.t.Error(err)
				}
			}
		})
	}
	group.Wait()
	value, _, err := s.Latest(s.ctx, "n")
	require.NoError(s.t, err)
	require.Equal(s.t, strconv.Itoa(racers*each), string(value))
}

func increment(ctx context.Context, b bus.Bucket, key string) error {
	for {
		value, revision, err := b.Latest(ctx, key)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(value))
		if err != nil {
			return err
		}
		_, err = b.Update(ctx, key, []byte(strconv.Itoa(n+1)), revision, 0)
		if !errors.Is(err, bus.ErrConflict) {
			return err
		}
	}
}

func caseTimeToLive(s *shelf) {
	s.Bucket = s.open(s.at, "mortal", bus.BucketConfig{TTL: time.Hour})
	begun := time.Now()
	put := func(key string, ttl time.Duration) uint64 {
		revision, err := s.Put(s.ctx, key, []byte("1"), ttl)
		require.NoError(s.t, err)
		return revision
	}
	mortal := put("mortal", time.Millisecond)
	own := put("own", 0)
	renewed, err := s.Update(s.ctx, "renewed", []byte("2"), put("renewed", time.Second), 0)
	require.NoError(s.t, err, "an update replaces the TTL")
	put("replaced", time.Hour)
	replaced := put("replaced", time.Second)
	again, err := s.Create(s.ctx, "created", nil, time.Second)
	require.NoError(s.t, err)
	require.NotZero(s.t, again)

	for key, revision := range map[string]uint64{"mortal": mortal, "replaced": replaced, "created": again} {
		_, _, err := s.Wait(s.ctx, key, revision)
		require.ErrorIs(s.t, err, bus.ErrKeyNotFound)
		require.GreaterOrEqual(s.t, time.Since(begun), 990*time.Millisecond, "whole seconds, and never too early")
		s.lacks(key)
	}
	_, err = s.Create(s.ctx, "created", []byte("3"), 0)
	require.NoError(s.t, err)
	s.holds("own", "1", own)
	s.holds("renewed", "2", renewed)
}

func caseWait(s *shelf) {
	_, other := s.attach("shelf", bus.BucketConfig{})
	revision := uint64(0)
	for _, c := range []struct {
		value  string
		change func() error
	}{
		{"1", func() (err error) { revision, err = s.Create(s.ctx, "a", []byte("1"), 0); return err }},
		{"2", func() (err error) { revision, err = s.Put(s.ctx, "a", []byte("2"), 0); return err }},
		{"3", func() (err error) { revision, err = s.Update(s.ctx, "a", []byte("3"), revision, 0); return err }},
		{"", func() error { defer func() { revision = 0 }(); return s.Delete(s.ctx, "a", revision) }},
		{"4", func() (err error) { revision, err = s.Create(s.ctx, "a", []byte("4"), 0); return err }},
	} {
		woken, before := make(chan told, 1), revision
		go func() { woken <- s.waits(s.ctx, other, before) }()
		s.put("b", "")
		select {
		case was := <-woken:
			s.t.Fatal("woken by nothing:", was)
		case <-time.After(20 * time.Millisecond):
		}
		require.NoError(s.t, c.change())
		now := told{c.value, revision, nil}
		if revision == 0 {
			now.err = bus.ErrKeyNotFound
		}
		require.Equal(s.t, now, <-woken)
		require.Equal(s.t, now, s.waits(s.ctx, other, before), "what has changed needs no wait")
	}
	ctx, cancel := context.WithTimeout(s.ctx, 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(s.t, s.waits(ctx, other, revision).err, context.DeadlineExceeded)
}

// told is what a Wait for the key a returned.
type told struct {
	value    string
	revision uint64
	err      error
}

func (s *shelf) waits(ctx context.Context, b bus.Bucket, revision uint64) told {
	value, now, err := b.Wait(ctx, "a", revision)
	return told{string(value), now, err}
}

func caseNoAnswer(s *shelf) {
	revision := s.put("a", "1")
	waiting := make(chan error, 1)
	go func() {
		_, _, err := s.Wait(s.ctx, "a", revision)
		waiting <- err
	}()
	s.at.Disconnect(s.t)
	err := <-waiting
	require.Error(s.t, err, "a cut connection ends a wait")
	require.NoError(s.t, s.ctx.Err())
	ctx, cancel := context.WithTimeout(s.ctx, 300*time.Millisecond)
	defer cancel()
	_, _, read := s.Get(ctx, "a")
	_, _, latest := s.Latest(ctx, "a")
	_, put := s.Put(ctx, "a", nil, 0)
	_, create := s.Create(ctx, "b", nil, 0)
	_, update := s.Update(ctx, "a", nil, revision, 0)
	_, _, waited := s.Wait(ctx, "a", revision)
	_, opened := s.at.(bus.Buckets).Bucket(ctx, "shelf", bus.BucketConfig{})
	for _, err := range []error{read, latest, put, create, update, opened, s.Delete(ctx, "a", revision), waited} {
		require.Error(s.t, err)
		require.NotErrorIs(s.t, err, bus.ErrKeyNotFound)
		require.NotErrorIs(s.t, err, bus.ErrConflict)
		require.NotErrorIs(s.t, err, bus.ErrBucketUnfit)
	}
	s.at.Reconnect(s.t)
	require.Eventually(s.t, func() bool {
		_, _, err := s.Get(s.ctx, "a")
		return err == nil
	}, patience, 10*time.Millisecond)
	s.holds("a", "1", revision)
	s.lacks("b")

	ended, end := context.WithCancel(s.ctx)
	end()
	_, _, err = s.Get(ended, "a")
	require.ErrorIs(s.t, err, context.Canceled)
	_, err = s.Put(ended, "a", nil, 0)
	require.ErrorIs(s.t, err, context.Canceled)
	s.holds("a", "1", revision)
}

func caseBucketRestart(s *shelf) {
	revision := s.put("a", "1")
	s.Restart(s.t)
	require.Eventually(s.t, func() bool {
		_, _, err := s.Latest(s.ctx, "a")
		return err == nil
	}, patience, 10*time.Millisecond)
	s.holds("a", "1", revision)
	require.Greater(s.t, s.put("a", "2"), revision)
}

// What was written longest ago gives way; writing never fails for it.
func caseFull(s *shelf) {
	s.Bucket = s.open(s.at, "full", bus.BucketConfig{MaxBytes: 64 << 10})
	value := strings.Repeat("v", 4<<10)
	var last uint64
	for i := range 40 {
		last = s.put(fmt.Sprintf("k%d", i), value)
	}
	s.lacks("k0")
	s.holds("k39", value, last)
	_, err := s.Create(s.ctx, "k0", nil, 0)
	require.NoError(s.t, err)
}

func caseNotShared(s *shelf) {
	mine := []byte("mine")
	revision, err := s.Put(s.ctx, "a", mine, 0)
	require.NoError(s.t, err)
	mine[0] = 'M'
	got, _, err := s.Get(s.ctx, "a")
	require.NoError(s.t, err)
	copy(got, bytes.Repeat([]byte("x"), len(got)))
	s.holds("a", "mine", revision)
}
