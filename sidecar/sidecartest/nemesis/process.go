package nemesis

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

var errEnded = errors.New("it ended by itself")

// process is a child that can be killed, paused and started again. Its methods
// are safe for concurrent use.
type process struct {
	name    string
	command func() *exec.Cmd
	log     string             // path
	failed  func(reason error) // when it ended and nobody had asked for it

	mu     sync.Mutex
	cmd    *exec.Cmd // nil while it does not run
	asked  bool      // it shall end
	exited chan struct{}
	lives  int
}

func newProcess(dir, name string, command func() *exec.Cmd, failed func(error)) *process {
	return &process{name: name, command: command, log: filepath.Join(dir, name+".log"), failed: failed}
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

const tailBytes = 2000

// tail returns the end of the log.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-tailBytes):]))
}
