package nearside_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/nearside-cache/nearside/sdk/go/nearside"
)

// standIn stands in for a real sidecar, so that examples run anywhere: it listens on the
// socket that NEARSIDE_SOCKET names.
func standIn() (stop func()) {
	dir, err := os.MkdirTemp("", "nearside")
	if err != nil {
		log.Fatal(err)
	}
	path := filepath.Join(dir, "nearside.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	os.Setenv("NEARSIDE_SOCKET", path)
	f := newFake()
	f.now = nearside.BootTime
	go f.listen(l)
	return func() {
		l.Close()
		os.Unsetenv("NEARSIDE_SOCKET")
		os.RemoveAll(dir)
	}
}

// Product is what the examples cache.
type Product struct {
	ID      string
	Price   int
	Version uint64
}

var database = map[string]Product{}

func loadProduct(_ context.Context, key string) (nearside.Loaded[Product], error) {
	p, ok := database[key]
	if !ok {
		return nearside.Loaded[Product]{Absent: true}, nil
	}
	fmt.Println("loaded", key)
	return nearside.Loaded[Product]{Value: p, Version: p.Version, Tags: []string{"products"}}, nil
}

// Cache-aside: one load of a key in the process and, as far as the sidecar knows, in the
// pod. Without a sidecar the same code works, and loads.
func ExampleGetOrLoad() {
	defer standIn()()
	database["product:42"] = Product{ID: "42", Price: 7, Version: 1}

	cache, err := nearside.Open(nearside.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close()
	products := nearside.Source[Product]{Load: loadProduct, Timeout: time.Second}

	ctx := context.Background()
	for range 2 {
		p, err := nearside.GetOrLoad(ctx, cache, "product:42", products)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("price", p.Price)
	}
	_, err = nearside.GetOrLoad(ctx, cache, "product:43", products)
	fmt.Println("absent:", errors.Is(err, nearside.ErrAbsent))
	// Output:
	// loaded product:42
	// price 7
	// price 7
	// absent: true
}

// A writer commits, then says what has changed. A write that was not published is an
// error: other pods go on with what they have until it expires.
func ExampleClient_Invalidate() {
	defer standIn()()
	cache, err := nearside.Open(nearside.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close()

	ctx := context.Background()
	database["product:42"] = Product{ID: "42", Price: 8, Version: 2} // the commit
	_, err = cache.Invalidate(ctx, nearside.Key("product:42", 2), nearside.Tag("price-lists"))
	switch {
	case errors.Is(err, nearside.ErrNotPublished), errors.Is(err, nearside.ErrUncertain):
		log.Print("other pods may not know yet, try again: ", err)
	case errors.Is(err, nearside.ErrNotApplied):
		log.Print("other pods know, this one will: ", err)
	case err == nil:
		fmt.Println("known everywhere that has caught up")
	}
	// Output: known everywhere that has caught up
}

// Reads through a session see the writes that were made through it, and a token takes
// that to another process.
func ExampleContextWithSession() {
	defer standIn()()
	database["product:42"] = Product{ID: "42", Price: 9, Version: 3}
	cache, err := nearside.Open(nearside.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close()
	products := nearside.Source[Product]{Load: loadProduct}

	ctx := nearside.ContextWithSession(context.Background())
	if _, err := cache.Invalidate(ctx, nearside.Key("product:42", 3)); err != nil {
		fmt.Println(err)
		return
	}
	p, err := nearside.GetOrLoad(ctx, cache, "product:42", products)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("price", p.Price)

	header := string(nearside.TokenFrom(ctx)) // goes with the request
	elsewhere := nearside.ContextWithToken(context.Background(), nearside.Token(header))
	p, err = nearside.GetOrLoad(elsewhere, cache, "product:42", products)
	fmt.Println("price", p.Price, err)
	// Output:
	// loaded product:42
	// price 9
	// price 9 <nil>
}

// Hot keys in the app's own memory, in nanoseconds, dropped when the sidecar says so.
func ExampleOptions_l0() {
	defer standIn()()
	database["product:42"] = Product{ID: "42", Price: 7, Version: 1}
	cache, err := nearside.Open(nearside.Options{L0: &nearside.L0Options{MaxEntries: 50_000, Bound: 2 * time.Second}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close()
	products := nearside.Source[Product]{Load: loadProduct, Shared: true}

	ctx := context.Background()
	for range 3 {
		r, err := nearside.Load(ctx, cache, "product:42", products, nearside.MaxStale(time.Second))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("loaded", r.Loaded, "from L0", r.FromL0)
	}
	if _, err := cache.Invalidate(ctx, nearside.Key("product:42", 2)); err != nil {
		fmt.Println(err)
		return
	}
	a, err := cache.Get(ctx, "product:42")
	fmt.Println("after a write:", a.Status, err)
	// Output:
	// loaded product:42
	// loaded true from L0 false
	// loaded false from L0 false
	// loaded false from L0 true
	// after a write: MISS <nil>
}

// A program that keeps something of its own hears of every event.
func ExampleClient_Watch() {
	defer standIn()()
	cache, err := nearside.Open(nearside.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for e := range cache.Watch(ctx) {
		if e.Gap {
			fmt.Println("whatever happened before is not known: begin anew")
			if _, err := cache.Invalidate(ctx, nearside.Key("product:42", 4)); err != nil {
				fmt.Println(err)
				return
			}
			continue
		}
		for _, k := range e.Keys {
			fmt.Println(e.Op, k.Key, k.Version)
		}
		break
	}
	// Output:
	// whatever happened before is not known: begin anew
	// invalidate product:42 4
}
