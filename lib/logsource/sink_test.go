package logsource

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory is a sink that keeps what it gets, as the spool does over kill -9.
type memory struct {
	t  testing.TB
	mu sync.Mutex

	lines  map[string][]string
	order  []string // of all keys
	states map[string][]byte
	puts   int

	waiting int // Puts that wait for block

	fail  func(put int) (kept bool, err error) // what becomes of a Put, nil: it is kept
	block chan struct{}                        // Put waits for it to be closed
}

func newMemory(t testing.TB) *memory {
	return &memory{t: t, lines: map[string][]string{}, states: map[string][]byte{}}
}

var errSink = errors.New("the sink fails")

func (m *memory) Put(ctx context.Context, c *Chunk) error {
	m.mu.Lock()
	block := m.block
	if block != nil {
		m.waiting++
	}
	m.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case len(c.Lines) > 0 && c.Lines[len(c.Lines)-1] != '\n':
		m.t.Errorf("a chunk ends in %q, not with a whole line", tail(c.Lines))
	case len(c.Lines) > MaxChunk || len(c.State) > MaxState || len(c.Key) > MaxKey || c.Key == "":
		m.t.Errorf("a chunk of %d bytes, state of %d, key %q", len(c.Lines), len(c.State), c.Key)
	}
	m.puts++
	kept, err := true, error(nil)
	if m.fail != nil {
		kept, err = m.fail(m.puts)
	}
	if kept {
		for line := range strings.Lines(string(c.Lines)) {
			line = strings.TrimSuffix(line, "\n")
			m.lines[c.Key] = append(m.lines[c.Key], line)
			m.order = append(m.order, line)
		}
		m.states[c.Key] = bytes.Clone(c.State)
	}
	return err
}

func (m *memory) State(key string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.states[key])
}

// all is what came, in order.
func (m *memory) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.order)
}

func (m *memory) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func tail(b []byte) []byte { return b[max(len(b)-40, 0):] }

// eventually waits for something to become true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// expect waits until these lines came, in this order, and nothing else.
func (m *memory) expect(t testing.TB, want ...string) {
	t.Helper()
	m.wait(t, len(want))
	if got := m.all(); !slices.Equal(got, want) {
		t.Fatalf("lines\n%s\nwant\n%s", show(got), show(want))
	}
}

func (m *memory) wait(t testing.TB, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); len(m.all()) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d lines came within 20 s, want %d; the last:\n%s", len(m.all()), n, show(m.all()))
		}
	}
}

func show(lines []string) string {
	var b strings.Builder
	for _, l := range lines[max(0, len(lines)-30):] {
		if len(l) > 100 {
			l = l[:100] + "..."
		}
		b.WriteString(l + "\n")
	}
	return b.String()
}

// said keeps what is logged.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *said) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (s *said) count(text string) int { return strings.Count(s.String(), text) }

// runner is a source.
type runner interface{ Run(context.Context) error }

// run runs a source until stop is called, which returns what Run did.
func run(t testing.TB, r runner) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(20 * time.Second):
				t.Error("the source does not end")
			}
		})
		return err
	}
	t.Cleanup(func() { stop() })
	return stop
}
