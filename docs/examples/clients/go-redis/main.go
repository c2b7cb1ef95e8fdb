// Command go-redis is what go-redis does against nearside, with its defaults. It
// is a module of its own, so that nearside's does not depend on the client. It is
// called as go-redis SOCKET; .ci/clients says what it prints and waits for.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

var database sync.Map

func loadProduct(id string) (string, error) {
	product, ok := database.Load(id)
	if !ok {
		return "", errors.New("no such product")
	}
	return product.(string), nil
}

func saveProduct(id, product string) error {
	database.Store(id, product)
	return nil
}

// begin cache-aside
func connect(socket string) *redis.Client {
	return redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
}

func readProduct(ctx context.Context, c *redis.Client, id string) (string, error) {
	cached, err := c.Get(ctx, "product:"+id).Result()
	if !errors.Is(err, redis.Nil) {
		return cached, err
	}
	product, err := loadProduct(id) // from the database
	if err != nil {
		return "", err
	}
	return product, c.Set(ctx, "product:"+id, product, 5*time.Minute).Err()
}

func writeProduct(ctx context.Context, c *redis.Client, id, product string) error {
	if err := saveProduct(id, product); err != nil { // commit first,
		return err
	}
	return c.Del(ctx, "product:"+id).Err() // then drop it in every pod
}

// end cache-aside

// check is one run against the server: its keys begin with run.
type check struct {
	ctx context.Context
	c   *redis.Client
	run string
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: go-redis SOCKET")
	}
	fmt.Println("version", redis.Version())
	if err := runAll(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func runAll(socket string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	random := make([]byte, 6)
	rand.Read(random) // never fails
	k := check{ctx: ctx, c: connect(socket), run: hex.EncodeToString(random)}
	defer func() { err = errors.Join(err, k.c.Close()) }()
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"commands", k.commands}, {"pipeline", k.pipeline}, {"multi", k.multi}, {"large value", k.largeValue},
		{"unknown command", k.unknownCommand}, {"cache-aside", k.cacheAside}, {"reconnect", k.reconnect},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// want compares what a command gave with what it should have.
func want[T comparable](name string, expected, got T, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if got != expected {
		return fmt.Errorf("%s: want %v, got %v", name, expected, got)
	}
	return nil
}

// gone is nil when a GET found nothing.
func (k check) gone(key string) error {
	value, err := k.c.Get(k.ctx, key).Result()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return errors.Join(fmt.Errorf("GET %s: want nothing, got %q", key, value), err)
}

// is is nil when key holds value.
func (k check) is(key, value string) error {
	got, err := k.c.Get(k.ctx, key).Result()
	return want("GET "+key, value, got, err)
}

func (k check) commands() error {
	a, b, none := k.run+":a", k.run+":b", k.run+":none"
	if err := errors.Join(k.c.Ping(k.ctx).Err(), k.gone(a), k.c.Set(k.ctx, a, 1, 0).Err(), k.is(a, "1"),
		k.c.Set(k.ctx, b, 2, 100*time.Second).Err()); err != nil {
		return err
	}
	if ttl, err := k.c.TTL(k.ctx, b).Result(); err != nil || ttl <= 90*time.Second || ttl > 100*time.Second {
		return fmt.Errorf("TTL after SET EX 100: %v, %w", ttl, err)
	}
	values, err := k.c.MGet(k.ctx, a, b, none).Result()
	if err := want("MGET", "[1 2 <nil>]", fmt.Sprint(values), err); err != nil {
		return err
	}
	n, err := k.c.Exists(k.ctx, a, b, none).Result()
	if err := want("EXISTS", 2, n, err); err != nil {
		return err
	}
	n, err = k.c.Del(k.ctx, a).Result()
	known, errCommand := k.c.Command(k.ctx).Result()
	return errors.Join(want("DEL", 1, n, err), k.gone(a), want("COMMAND knows get", true, known["get"] != nil, errCommand))
}

func (k check) pipeline() error {
	key := func(i int) string { return k.run + ":p" + strconv.Itoa(i) }
	if _, err := k.c.Pipelined(k.ctx, func(p redis.Pipeliner) error {
		for i := range 100 {
			p.Set(k.ctx, key(i), i, 0)
		}
		return nil
	}); err != nil {
		return err
	}
	answers, err := k.c.Pipelined(k.ctx, func(p redis.Pipeliner) error {
		for i := range 100 {
			p.Get(k.ctx, key(i))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, a := range answers {
		got, err := a.(*redis.StringCmd).Int()
		if err := want(key(i), i, got, err); err != nil {
			return err
		}
	}
	return nil
}

func (k check) multi() error {
	key := k.run + ":multi"
	var got *redis.StringCmd
	_, err := k.c.TxPipelined(k.ctx, func(p redis.Pipeliner) error {
		p.Set(k.ctx, key, "1", 0)
		got = p.Get(k.ctx, key)
		return nil
	})
	if err != nil {
		return err
	}
	return want("GET in MULTI", "1", got.Val(), got.Err())
}

func (k check) largeValue() error {
	value := make([]byte, 1<<20)
	rand.Read(value) // never fails
	if err := k.c.Set(k.ctx, k.run+":large", value, 0).Err(); err != nil {
		return err
	}
	got, err := k.c.Get(k.ctx, k.run+":large").Bytes()
	return want("1 MiB came back the same", true, bytes.Equal(value, got), err)
}

func (k check) unknownCommand() (err error) {
	conn := k.c.Conn()
	defer func() { err = errors.Join(err, conn.Close()) }()
	before, err := conn.ClientID(k.ctx).Result()
	if err != nil {
		return err
	}
	cmd := redis.NewCmd(k.ctx, "NOSUCH", "x")
	if err := conn.Process(k.ctx, cmd); err == nil || !strings.Contains(err.Error(), "unknown command") {
		return fmt.Errorf("want an error about the unknown command, got %w", err)
	}
	after, err := conn.ClientID(k.ctx).Result()
	return want("the connection's id", before, after, err)
}

func (k check) cacheAside() error {
	read := func(expected string) error {
		got, err := readProduct(k.ctx, k.c, k.run)
		return want("product", expected, got, err)
	}
	return errors.Join(saveProduct(k.run, "price 10"), read("price 10"), k.is("product:"+k.run, "price 10"),
		writeProduct(k.ctx, k.c, k.run, "price 20"), read("price 20"))
}

// reconnect lets the client find by itself that its pooled connections are dead.
func (k check) reconnect() error {
	fmt.Println("restart")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	return errors.Join(k.c.Ping(k.ctx).Err(), k.c.Set(k.ctx, k.run+":after", 3, 0).Err(), k.is(k.run+":after", "3"))
}
