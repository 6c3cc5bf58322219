package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"strconv"
	"strings"
	"sync"

	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/lib/term"
)

// Formats of messages.
const (
	formatText   = "text"
	formatJSON   = "json"
	formatSyslog = "syslog"
)

// levelFatal is the level of the error that ends the program.
const levelFatal = slog.LevelError + 4

// newHandler makes the handler for a --log-format.
func newHandler(format string, stderr io.Writer, name string, level slog.Level) (slog.Handler, error) {
	switch format {
	case formatText:
		return newTextHandler(stderr, name, level), nil
	case formatJSON:
		h := slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: nameLevel})
		return h.WithAttrs([]slog.Attr{slog.String("program", name)}), nil
	case formatSyslog:
		w, err := dialSyslog("rol/" + name)
		if err != nil {
			return nil, sysexits.Errorf(sysexits.Unavailable, "option --%s=%s: %w", flagLogFormat, format, err)
		}
		return newSyslogHandler(w, level), nil
	}
	return nil, sysexits.Errorf(sysexits.Usage, "option --%s: %.40q: want text, json or syslog", flagLogFormat, format)
}

// dialSyslog is a variable for the tests.
var dialSyslog = func(tag string) (syslogger, error) {
	return syslog.New(syslog.LOG_MAIL|syslog.LOG_INFO, tag)
}

func nameLevel(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey && a.Value.Any() == levelFatal {
		a.Value = slog.StringValue("FATAL")
	}
	return a
}

// lineHandler writes a record as one line of text, as Postfix words them:
//
//	warning: text key=value
type lineHandler struct {
	level  slog.Level
	emit   func(level slog.Level, line string) error
	mu     *sync.Mutex
	attrs  string // formatted already
	prefix string // of keys, from groups
}

// newTextHandler writes "name: warning: text" to w.
func newTextHandler(w io.Writer, name string, level slog.Level) slog.Handler {
	return &lineHandler{level: level, mu: new(sync.Mutex), emit: func(_ slog.Level, line string) error {
		_, err := io.WriteString(w, name+": "+line+"\n")
		return err
	}}
}

// syslogger is what is used of *syslog.Writer.
type syslogger interface {
	Debug(string) error
	Info(string) error
	Warning(string) error
	Err(string) error
	Crit(string) error
}

func newSyslogHandler(w syslogger, level slog.Level) slog.Handler {
	return &lineHandler{level: level, mu: new(sync.Mutex), emit: func(l slog.Level, line string) error {
		switch {
		case l < slog.LevelInfo:
			return w.Debug(line)
		case l < slog.LevelWarn:
			return w.Info(line)
		case l < slog.LevelError:
			return w.Warning(line)
		case l < levelFatal:
			return w.Err(line)
		}
		return w.Crit(line)
	}}
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	switch {
	case r.Level < slog.LevelInfo:
		b.WriteString("debug: ")
	case r.Level < slog.LevelWarn:
	case r.Level < slog.LevelError:
		b.WriteString("warning: ")
	case r.Level < levelFatal:
		b.WriteString("error: ")
	default:
		b.WriteString("fatal: ")
	}
	b.WriteString(term.Printable(r.Message))
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, h.prefix, a)
		return true
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.emit(r.Level, b.String())
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		writeAttr(&b, h.prefix, a)
	}
	c := *h
	c.attrs += b.String()
	return &c
}

func (h *lineHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix += name + "."
	return &c
}

func writeAttr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, sub := range v.Group() {
			writeAttr(b, prefix, sub)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	fmt.Fprintf(b, " %s%s=%s", prefix, term.Printable(a.Key), quoteValue(v.String()))
}

// quoteValue quotes what would not stay one word.
func quoteValue(s string) string {
	if s == "" || strings.ContainsAny(s, " \"=") || term.Printable(s) != s {
		return strconv.Quote(s)
	}
	return s
}
