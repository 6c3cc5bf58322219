package logpipe

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/term"
)

// Meter tells how far a run has come. A nil Meter is one that nobody looks at.
type Meter struct {
	lines atomic.Int64
	doing atomic.Pointer[string]
}

func (m *Meter) set(lines int64) {
	if m != nil {
		m.lines.Store(lines)
	}
}

func (m *Meter) phase(what string) {
	if m != nil {
		m.doing.Store(&what)
	}
}

// progressEvery is how often the display changes.
const progressEvery = 250 * time.Millisecond

// Show shows on w, if that is a terminal, how far a run over the sources has
// come, until stop is called, which clears the display.
func (m *Meter) Show(w io.Writer, sources []*logsource.Source) (stop func()) {
	if !term.IsTerminal(w) {
		return func() {}
	}
	ended, cleared := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(cleared)
		defer fmt.Fprint(w, "\r\x1b[K")
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		begun := time.Now()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				done, size := total(sources)
				line := m.line(time.Since(begun), done, size)
				fmt.Fprint(w, "\r\x1b[K"+term.Fit(line, term.Width(w)))
			}
		}
	}()
	var once sync.Once
	return func() { once.Do(func() { close(ended) }); <-cleared }
}

// total is how much of all sources has been read, in bytes of the files as
// they are on the disk. size is 0 where one source's size is not known.
func total(sources []*logsource.Source) (done, size int64) {
	known := true
	for _, s := range sources {
		d, n := s.Progress()
		done, size = done+d, size+n
		known = known && n > 0
	}
	if !known {
		size = 0
	}
	return done, size
}

// line is the display: "42%  1234567 lines  812345 lines/s  0:07 left".
func (m *Meter) line(took time.Duration, done, size int64) string {
	if p := m.doing.Load(); p != nil {
		return *p + " ..."
	}
	lines := m.lines.Load()
	rate := int64(float64(lines) / max(took.Seconds(), 0.001))
	if size <= 0 || done <= 0 {
		return fmt.Sprintf("%d lines  %d lines/s", lines, rate)
	}
	done = min(done, size)
	left := time.Duration(float64(took) * float64(size-done) / float64(done)).Round(time.Second)
	return fmt.Sprintf("%3d%%  %d lines  %d lines/s  %d:%02d left", done*100/size, lines, rate,
		int(left.Minutes()), int(left.Seconds())%60)
}
