package logsource

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// schedule writes and rotates a log by chance while it is followed, and kills
// the follower. Nothing is written between a copy and its truncation, and
// rotated files are not deleted.
type schedule struct {
	*place
	rnd     *rand.Rand
	w       *os.File
	append  bool     // the writer's mode
	written []string // whole lines
	partial string
	ops     []string
	rotated int
	running bool
}

func (s *schedule) note(format string, args ...any) {
	s.ops = append(s.ops, fmt.Sprintf(format, args...))
}

func (s *schedule) open() {
	mode := os.O_CREATE | os.O_WRONLY
	if s.append {
		mode |= os.O_APPEND
	}
	if s.w != nil {
		s.check(s.w.Close())
	}
	var err error
	s.w, err = os.OpenFile(s.path("mail.log"), mode, 0o644)
	s.check(err)
	_, err = s.w.Seek(0, io.SeekEnd)
	s.check(err)
}

func (s *schedule) write() {
	n := 1 + s.rnd.IntN(5)
	if s.rnd.IntN(10) == 0 {
		n = 2000
	}
	s.note("write %d", n)
	var b strings.Builder
	for range n {
		line := s.partial
		s.partial = ""
		if line == "" {
			line = fmt.Sprintf("line %d %s", len(s.written), strings.Repeat("x", s.rnd.IntN(120)))
			b.WriteString(line)
		} else {
			b.WriteString("end")
			line += "end"
		}
		s.written = append(s.written, line)
		b.WriteByte('\n')
	}
	if s.rnd.IntN(4) == 0 {
		s.partial = fmt.Sprintf("part %d ", len(s.written))
		b.WriteString(s.partial)
	}
	_, err := s.w.WriteString(b.String())
	s.check(err)
}

// finishLine ends a line before its file is taken away.
func (s *schedule) finishLine() {
	if s.partial != "" {
		_, err := s.w.WriteString("end\n")
		s.check(err)
		s.written = append(s.written, s.partial+"end")
		s.partial = ""
	}
}

// shift renames the rotated logs, the oldest first, as logrotate does.
func (s *schedule) shift() {
	for i := s.rotated; i >= 1; i-- {
		for _, end := range []string{"", ".gz", ".zst"} {
			from := s.path(fmt.Sprintf("mail.log.%d%s", i, end))
			if _, err := os.Stat(from); err == nil {
				s.check(os.Rename(from, s.path(fmt.Sprintf("mail.log.%d%s", i+1, end))))
			}
		}
	}
	s.rotated++
}

func (s *schedule) rotate() {
	s.shift()
	if s.rnd.IntN(2) == 0 {
		s.finishLine()
		s.note("copytruncate")
		s.copytruncate("mail.log", "mail.log.1")
		return
	}
	s.rename("mail.log", "mail.log.1")
	for range s.rnd.IntN(3) {
		s.note("late")
		s.write()
	}
	s.finishLine()
	s.note("rename")
	s.open()
}

func (s *schedule) compress() {
	all, _ := filepath.Glob(s.path("mail.log.*"))
	if len(all) == 0 {
		return
	}
	name := filepath.Base(all[s.rnd.IntN(len(all))])
	if filepath.Ext(name) == ".gz" || filepath.Ext(name) == ".zst" {
		return
	}
	s.note("pack %s", name)
	s.pack(name, []string{".gz", ".zst"}[s.rnd.IntN(2)])
}

// kill ends the follower at a Put, before or after it took effect.
func (s *schedule) kill() {
	if !s.running {
		return
	}
	s.note("kill")
	dead := false
	at := s.rnd.IntN(3)
	s.sink.set(func() {
		n := 0
		s.sink.fail = func(int) (bool, error) {
			if n++; dead || n > at {
				was := dead
				dead = true
				return !was && at%2 == 0, errSink
			}
			return true, nil
		}
	})
	if s.rnd.IntN(2) == 0 {
		s.write()
	}
	s.stop()
	s.sink.set(func() { s.sink.fail = nil })
	s.running = false
}

func (s *schedule) run(steps int) {
	for range steps {
		switch s.rnd.IntN(12) {
		case 0, 1:
			s.rotate()
		case 2:
			s.compress()
		case 3:
			s.kill()
		case 4, 5:
			if !s.running {
				s.note("start")
				s.running = true
				s.start("mail.log")
			}
		case 6, 7:
			if s.running {
				s.note("wait")
				s.wait(len(s.written))
			}
		default:
			s.write()
		}
	}
	s.finishLine()
	if !s.running {
		s.start("mail.log")
	}
	s.wait(len(s.written))
	s.quiet()
	s.end()
	s.verify()
}

func (s *schedule) wait(n int) {
	for end := time.Now().Add(30 * time.Second); len(s.sink.all()) < n; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			s.verify()
			s.t.Fatal("lines do not come")
		}
	}
}

// verify compares what came with what was written.
func (s *schedule) verify() {
	got := s.sink.all()
	for i := range max(len(got), len(s.written)) {
		if i >= len(got) || i >= len(s.written) || got[i] != s.written[i] {
			s.t.Fatalf("line %d is wrong: %d lines came of %d\ngot  %s\nwant %s\nops %s\nsaid %s", i, len(got), len(s.written),
				show(got[min(i, len(got)):min(i+3, len(got))]), show(s.written[min(i, len(s.written)):min(i+3, len(s.written))]),
				strings.Join(s.ops, ", "), lastLines(s.said.String()))
		}
	}
}

// TestFollowSchedules has every line once, in order, whatever happens to the
// log and to the follower.
func TestFollowSchedules(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 20
	}
	if n, err := strconv.Atoi(os.Getenv("ROL_SCHEDULES")); err == nil {
		rounds = n
	}
	for seed := range rounds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := &schedule{place: newPlace(t), rnd: rand.New(rand.NewPCG(uint64(seed), 1))}
			s.append = s.rnd.IntN(3) > 0
			defer func() { s.w.Close() }()
			// A first run sees the log before anything is rotated away from it.
			s.open()
			s.write()
			s.start("mail.log")
			s.running = true
			s.place.sink.wait(t, 1)
			s.run(40)
		})
	}
}

// lastLines is the end of what was logged.
func lastLines(s string) string { return strings.ReplaceAll(s[max(0, len(s)-8000):], "file=", "\n") }
