package nemesis

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

var errEnded = errors.New("it ended by itself")

// process is a child that can be killed, paused and started again. Its methods
// are safe for concurrent use.
type process struct {
	name    string
	command func() *exec.Cmd
	machine *machine
	log     string             // path
	failed  func(reason error) // when it ended and nobody had asked for it

	mu     sync.Mutex
	cmd    *exec.Cmd // nil while it does not run
	asked  bool      // it shall end
	exited chan struct{}
	lives  int
}

// newProcess does not start it. disk is the folder of the files that need room.
func newProcess(dir, name, disk string, command func() *exec.Cmd, failed func(error)) (*process, error) {
	m, err := newMachine(dir, name)
	if err != nil {
		return nil, err
	}
	onMachine := func() *exec.Cmd {
		cmd := command()
		cmd.Env = append(cmd.Environ(), machineEnv+"="+m.path, diskEnv+"="+disk)
		return cmd
	}
	return &process{name: name, command: onMachine, machine: m, log: filepath.Join(dir, name+".log"), failed: failed}, nil
}

// start starts it unless it runs.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("log of %s: %w", p.name, err)
	}
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = log, log
	// Nothing outlives the run, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.lives++ // before anybody can reach it: see sidecar.dial
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", p.name, err), log.Close())
	}
	exited := make(chan struct{})
	p.cmd, p.asked, p.exited = cmd, false, exited
	go func() {
		reason := errors.Join(errEnded, cmd.Wait(), log.Close())
		p.mu.Lock()
		asked := p.asked
		p.cmd = nil
		p.mu.Unlock()
		if !asked {
			p.failed(fmt.Errorf("%s: %w: %s", p.name, reason, p.tail()))
		}
		close(exited)
	}()
	return nil
}

// life counts the starts.
func (p *process) life() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lives
}

// running reports whether it has been started and has not ended.
func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// signal sends one, unless it does not run.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s) // the child may just have ended
	}
}

// end sends a signal that ends it and waits until it has ended.
func (p *process) end(s syscall.Signal) {
	p.mu.Lock()
	exited := p.exited
	if p.cmd != nil {
		p.asked = true
		_ = p.cmd.Process.Signal(s)
		_ = p.cmd.Process.Signal(syscall.SIGCONT) // a paused one does not hear SIGTERM
	}
	p.mu.Unlock()
	if exited != nil {
		<-exited
	}
}

// setFiles limits how many files it can open: to those that it has open, or to
// as many as it could at first.
func (p *process) setFiles(enough bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	pid := p.cmd.Process.Pid
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return p.gone(fmt.Errorf("limit of files of %s: %w", p.name, err))
	}
	limit.Cur = limit.Max
	if !enough {
		open, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
		if err != nil {
			return p.gone(fmt.Errorf("open files of %s: %w", p.name, err))
		}
		limit.Cur = uint64(len(open))
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return p.gone(fmt.Errorf("limit of files of %s: %w", p.name, err))
	}
	return nil
}

// gone is nil if err only says that the process has just ended.
func (p *process) gone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// said counts how often its log, from a size on, has one of the texts.
func (p *process) said(since int64, texts ...string) (n int) {
	log, err := os.ReadFile(p.log)
	if err != nil || int64(len(log)) < since {
		return 0
	}
	for _, t := range texts {
		n += bytes.Count(log[since:], []byte(t))
	}
	return n
}

// logged returns the size of the log.
func (p *process) logged() int64 {
	info, err := os.Stat(p.log)
	if err != nil {
		return 0
	}
	return info.Size()
}

const tailBytes = 2000

// tail returns the end of the log.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-tailBytes):]))
}
