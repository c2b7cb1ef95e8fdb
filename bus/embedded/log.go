package embedded

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// serverLog routes the server's log to hclog. A fatal message, at which the
// server would end the process, is kept for Start to return.
type serverLog struct {
	logger hclog.Logger
	mu     sync.Mutex
	died   error
}

func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.died
}

func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.mu.Lock()
	l.died = errors.Join(l.died, errors.New(text))
	l.mu.Unlock()
	l.logger.Error("nats server failed", "message", text)
}

func (l *serverLog) Noticef(format string, v ...any) { l.write(hclog.Debug, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.write(hclog.Debug, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.write(hclog.Warn, format, v) }
func (l *serverLog) Debugf(format string, v ...any)  { l.write(hclog.Debug, format, v) }
func (l *serverLog) Tracef(format string, v ...any)  { l.write(hclog.Trace, format, v) }

func (l *serverLog) write(level hclog.Level, format string, v []any) {
	l.logger.Log(level, "nats server", "message", fmt.Sprintf(format, v...))
}
