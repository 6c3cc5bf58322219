package logsource

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// FollowOptions are what a Follow may be told. Zero values get the defaults.
type FollowOptions struct {
	Poll   time.Duration // how often is looked, 200 ms
	Idle   time.Duration // how long an old incarnation must be silent before it is let go, 2 min if it was deleted, else 30 times that
	Away   time.Duration // how long a log may be away before it is spoken of, 1 min
	Hint   bool          // let the kernel say when to look before it is time
	Resume []Mark        // positions that a database knows, for logs without a state
	Log    *slog.Logger
}

// Follow follows log files as they are written and rotated.
//
// A log is a name; what stands under it from one rotation to the next is held
// open and read by inode, so that it is read to its end when it was renamed.
// It is let go when its name is gone and it has been silent for Idle, or for
// much longer and its successor has grown. The older is read before the newer; what a writer still
// writes to the older is read as it comes.
//
// The state of a log has what its incarnations begin with, and what stands
// before the position. By these they are found again after a restart among the
// rotated files, compressed ones as well; unknown files newer than those are
// read from their beginning, and nothing older. The same is done when a log
// was truncated: the rest that was not read is looked for in the copy.
//
// What cannot be known is decided so: a log without a state, and without a
// position in Resume, is read from its beginning. One that begins as it did
// and is now shorter than what was read has lost its end, in a crash of the
// host for one: what it has was read, and it is followed from its end. One
// whose beginning, or what stood before the position, is another is a new log,
// read from its beginning. What was in the old one and is nowhere found is
// said, and counted in Stats.Lost.
//
// One goroutine does it all, with one buffer. The kernel's notifications
// (Hint) only say when to look: what is done depends on stat and read alone.
type Follow struct {
	patterns []string
	sink     Sink
	opt      FollowOptions
	log      *slog.Logger

	list  []*series
	owner map[inode]*series
	buf   []byte
	state []byte
	chunk Chunk
	wake  chan struct{}

	rounds atomic.Int64 // how often all logs were looked at
	count  counters
	mu     sync.Mutex // guards shared
	shared []*series
}

// counters are what a source counts.
type counters struct {
	lines, bytes, chunks, cut, torn atomic.Int64
	rotated, truncated, lost        atomic.Int64
	last                            atomic.Int64 // nanoseconds after epoch
}

// epoch is what times are counted from that need no wall clock.
var epoch = time.Now()

// lastTime is when lines were handed on last, zero if none were.
func (c *counters) lastTime() time.Time {
	if n := c.last.Load(); n != 0 {
		return epoch.Add(time.Duration(n))
	}
	return time.Time{}
}

// complaint is what is wrong with a source; Stats may read it at any time.
type complaint struct{ text atomic.Pointer[string] }

func (c *complaint) get() string {
	if s := c.text.Load(); s != nil {
		return *s
	}
	return ""
}

func (c *complaint) set(text string) { c.text.Store(&text) }

// add counts lines that were handed on.
func (c *counters) add(lines []byte) {
	c.chunks.Add(1)
	c.bytes.Add(int64(len(lines)))
	c.lines.Add(int64(bytes.Count(lines, newline)))
	c.last.Store(int64(time.Since(epoch)))
}

var newline = []byte("\n")

// Stats are what a source has done since it was made.
type Stats struct {
	Lines, Bytes, Chunks int64     // handed on
	Cut                  int64     // lines that were longer than MaxLine
	Torn                 int64     // last lines without a newline, given out as they were
	Rotated              int64     // old incarnations that were read on, or wholly
	Truncated            int64     // logs that were truncated under the reader
	Lost                 int64     // logs of which the rest was not found
	Behind               int64     // bytes that are there and not yet handed on
	Last                 time.Time // when lines were handed on last, by the monotonic clock; zero: never
	Trouble              string    // what keeps it from reading; "" for nothing
	Files                []FileStats
}

// FileStats are of a log that is followed.
type FileStats struct {
	Path         string
	Lines, Bytes int64     // handed on
	Last         time.Time // when lines were handed on last; zero: never
	Behind       int64     // bytes in all its incarnations that are not yet handed on
	Held         int64     // incarnations that are open
	Away         bool      // there is nothing under the name
	Trouble      string    // why it cannot be read; "" for nothing
}

// NewFollow makes a follower of files and globs. The patterns' syntax is that
// of filepath.Match; a name without its special characters is waited for if it
// is not there.
func NewFollow(patterns []string, sink Sink, opt FollowOptions) (*Follow, error) {
	f := &Follow{sink: sink, opt: opt, log: opt.Log, owner: map[inode]*series{}, wake: make(chan struct{}, 1)}
	for _, p := range patterns {
		if _, err := filepath.Match(p, "x"); err != nil || p == "" {
			return nil, sysexits.Errorf(sysexits.Usage, "%.200q is no file name and no pattern; "+
				"write a backslash before a special character that is part of a name", p)
		}
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, sysexits.Wrap(sysexits.IO, err)
		}
		f.patterns = append(f.patterns, abs)
	}
	f.opt.Poll = orElse(opt.Poll, 200*time.Millisecond)
	f.opt.Idle = orElse(opt.Idle, 2*time.Minute)
	f.opt.Away = orElse(opt.Away, time.Minute)
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	return f, nil
}

func orElse[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Look has Run look at all files and patterns now, as after SIGHUP.
func (f *Follow) Look() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Run follows until ctx is done, and returns nil then, or until the sink fails
// or its state cannot be understood. It may be called again, not twice at once.
func (f *Follow) Run(ctx context.Context) error {
	f.list, f.owner = nil, map[inode]*series{}
	f.buf = make([]byte, MaxChunk)
	defer func() {
		for _, s := range f.list {
			s.close()
		}
	}()
	hint := newHint(f.opt.Hint, f.log)
	defer hint.close()
	timer := time.NewTimer(f.opt.Poll)
	defer timer.Stop()
	var refreshed time.Time
	for asked := true; ; {
		if asked || time.Since(refreshed) >= 5*f.opt.Poll {
			if err := f.refresh(hint); err != nil {
				return err
			}
			refreshed = time.Now()
		}
		busy, err := f.lookAll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		asked = false
		if busy {
			continue
		}
		timer.Reset(f.opt.Poll)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-f.wake:
			asked = true
		case asked = <-hint.wake():
		}
	}
}

// lookAll looks at every log once.
func (f *Follow) lookAll(ctx context.Context) (busy bool, err error) {
	for _, s := range f.list {
		more, err := s.look(ctx)
		if err != nil || ctx.Err() != nil {
			return false, err
		}
		busy = busy || more
	}
	f.rounds.Add(1)
	return busy, nil
}

// refresh finds the names that are to be followed.
func (f *Follow) refresh(hint *hint) error {
	f.list = slices.DeleteFunc(f.list, func(s *series) bool {
		return !s.literal && s.away.Load() && len(s.bodies) == 0
	})
	for _, p := range f.patterns {
		if !isGlob(p) {
			if err := f.follow(unescape(p), true); err != nil {
				return err
			}
		}
	}
	for _, p := range f.patterns {
		if !isGlob(p) {
			continue
		}
		names, _ := filepath.Glob(p) // the pattern is sound
		for _, name := range names {
			if isRegular(name) {
				if err := f.follow(name, false); err != nil {
					return err
				}
			}
		}
	}
	for _, s := range f.list {
		hint.watch(filepath.Dir(s.path))
	}
	for _, p := range f.patterns {
		if dir := filepath.Dir(p); !isGlob(dir) {
			hint.watch(unescape(dir))
		}
	}
	f.mu.Lock()
	f.shared = slices.Clone(f.list)
	f.mu.Unlock()
	return nil
}

func isGlob(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

func unescape(p string) string {
	if !strings.Contains(p, `\`) {
		return p
	}
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '\\' && i+1 < len(p) {
			i++
		}
		b.WriteByte(p[i])
	}
	return b.String()
}
