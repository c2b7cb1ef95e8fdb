package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// memory measures what n entries take of resident memory, here and in Redis. Everything
// that a process has beside is taken off, of both.
func memory(n int) error {
	ours, err := ownMemory(n)
	if err != nil {
		return err
	}
	fmt.Printf("\nResident memory of %d entries of 16 + %d bytes, without what the process had before\n\n| | MiB | bytes an entry |\n|---|---|---|\n", n, valueSize)
	line := func(name string, bytes int64) {
		fmt.Printf("| %s | %.1f | %.1f |\n", name, float64(bytes)/(1<<20), float64(bytes)/float64(n))
	}
	line("nearside's store", ours)
	var redis [2]int64
	for i, ttl := range []string{"", "\r\n$2\r\nEX\r\n$4\r\n3600"} {
		if redis[i], err = redisMemory(n, ttl); err != nil {
			return err
		}
	}
	line("Redis", redis[0])
	line("Redis, with a time to live, as nearside's have", redis[1])
	fmt.Printf("\nnearside ÷ Redis: **%.2f**, with a time to live %.2f\n", float64(ours)/float64(redis[0]), float64(ours)/float64(redis[1]))
	return nil
}

func ownMemory(n int) (int64, error) {
	debug.FreeOSMemory()
	before, err := resident(os.Getpid())
	if err != nil {
		return 0, err
	}
	s, err := openStore(n)
	if err != nil {
		return 0, err
	}
	if held := s.Len(); held != n {
		return 0, fmt.Errorf("%d of %d entries are held: a larger budget is needed", held, n)
	}
	debug.FreeOSMemory()
	after, err := resident(os.Getpid())
	runtime.KeepAlive(s)
	return after - before, err
}

func redisMemory(n int, ttl string) (int64, error) {
	dir, err := os.MkdirTemp("", "reads")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	socket := filepath.Join(dir, "redis.sock")
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", dir)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start Redis: %w", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var c net.Conn
	for range 100 {
		if c, err = net.Dial("unix", socket); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return 0, fmt.Errorf("connect to Redis: %w", err)
	}
	defer c.Close()
	before, err := resident(cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	if err := fillRedis(c, n, ttl); err != nil {
		return 0, fmt.Errorf("fill Redis: %w", err)
	}
	after, err := resident(cmd.Process.Pid)
	return after - before, err
}

// fillRedis stores n entries. ttl is the end of the command, encoded.
func fillRedis(c net.Conn, n int, ttl string) error {
	args := 3 + strings.Count(ttl, "$")
	out, in := bufio.NewWriter(c), bufio.NewReader(c)
	value := strings.Repeat("v", valueSize)
	for i := range n {
		fmt.Fprintf(out, "*%d\r\n$3\r\nSET\r\n$16\r\n%s\r\n$%d\r\n%s%s\r\n", args, key(i), valueSize, value, ttl)
		if i%1000 != 999 && i != n-1 {
			continue
		}
		if err := out.Flush(); err != nil {
			return err
		}
		for range i%1000 + 1 {
			if answer, err := in.ReadString('\n'); err != nil || answer != "+OK\r\n" {
				return fmt.Errorf("answer %q: %w", answer, err)
			}
		}
	}
	return nil
}

// resident returns the resident memory of a process in bytes.
func resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
