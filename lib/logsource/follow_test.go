package logsource

import (
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// place is a directory with logs.
type place struct {
	t    testing.TB
	dir  string
	sink *memory
	said said
	f    *Follow
	stop func() error
	opt  FollowOptions
}

func newPlace(t testing.TB) *place {
	p := &place{t: t, dir: t.TempDir(), sink: newMemory(t)}
	p.opt = FollowOptions{Poll: time.Millisecond, Idle: 30 * time.Millisecond, Away: 50 * time.Millisecond, Log: p.said.log()}
	return p
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// start begins to follow.
func (p *place) start(patterns ...string) {
	p.t.Helper()
	for i := range patterns {
		patterns[i] = p.path(patterns[i])
	}
	f, err := NewFollow(patterns, p.sink, p.opt)
	if err != nil {
		p.t.Fatal(err)
	}
	p.f, p.stop = f, run(p.t, f)
}

// end stops following.
func (p *place) end() {
	p.t.Helper()
	if err := p.stop(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) append(name, text string) {
	p.t.Helper()
	f, err := os.OpenFile(p.path(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	p.check(err)
	_, err = f.WriteString(text)
	p.check(err)
	p.check(f.Close())
}

func (p *place) rename(from, to string) {
	p.t.Helper()
	p.check(os.Rename(p.path(from), p.path(to)))
}

// copytruncate is logrotate's.
func (p *place) copytruncate(from, to string) {
	p.t.Helper()
	b, err := os.ReadFile(p.path(from))
	p.check(err)
	p.check(os.WriteFile(p.path(to), b, 0o644))
	p.check(os.Truncate(p.path(from), 0))
}

// pack compresses a file as gzip(1) and zstd(1) do: the time stays.
func (p *place) pack(name, end string) {
	p.t.Helper()
	fi, err := os.Stat(p.path(name))
	p.check(err)
	b, err := os.ReadFile(p.path(name))
	p.check(err)
	out, err := os.Create(p.path(name + end))
	p.check(err)
	if end == ".gz" {
		w := gzip.NewWriter(out)
		_, err = w.Write(b)
		p.check(err)
		p.check(w.Close())
	} else {
		w, err := zstd.NewWriter(out)
		p.check(err)
		_, err = w.Write(b)
		p.check(err)
		p.check(w.Close())
	}
	p.check(out.Close())
	p.check(os.Chtimes(p.path(name+end), fi.ModTime(), fi.ModTime()))
	p.check(os.Remove(p.path(name)))
}

// expect waits for lines; said is what must have been logged, each once.
func (p *place) expect(want ...string) {
	p.t.Helper()
	p.sink.expect(p.t, want...)
}

// quiet has the follower look at everything some times more, so that what it
// should not give out would have come.
func (p *place) quiet() {
	p.t.Helper()
	from := p.f.rounds.Load()
	eventually(p.t, "looks", func() bool { return p.f.rounds.Load() > from+10 })
}

func lines(name string, from, to int) (text string, all []string) {
	var b strings.Builder
	for i := from; i < to; i++ {
		l := fmt.Sprintf("%s line %06d of a log that has lines of some length, which differ", name, i)
		all = append(all, l)
		b.WriteString(l + "\n")
	}
	return b.String(), all
}

func TestFollowAppend(t *testing.T) {
	p := newPlace(t)
	p.append("mail.log", "one\ntwo\n")
	p.start("mail.log")
	p.expect("one", "two")
	p.append("mail.log", "thr")
	p.quiet()
	p.expect("one", "two")
	p.append("mail.log", "ee\nfour\nfi")
	p.expect("one", "two", "three", "four")
	p.end()
	p.append("mail.log", "ve\n")
	p.start("mail.log")
	p.expect("one", "two", "three", "four", "five")
	st := p.f.Stats()
	if st.Lines != 1 || st.Bytes != 5 || len(st.Files) != 1 || st.Files[0].Held != 1 {
		t.Errorf("stats %+v", st)
	}
}

func TestFollowRename(t *testing.T) {
	p := newPlace(t)
	p.append("mail.log", "one\n")
	p.start("mail.log")
	p.expect("one")
	p.rename("mail.log", "mail.log.1")
	p.append("mail.log.1", "two\n") // the writer still holds it
	p.expect("one", "two")
	p.append("mail.log", "three\n")
	p.expect("one", "two", "three")
	p.append("mail.log.1", "late\n")
	p.expect("one", "two", "three", "late")
	p.append("mail.log.1", "torn")
	p.expect("one", "two", "three", "late", "torn")
	eventually(t, "the old log is let go", func() bool { return p.f.Stats().Files[0].Held == 1 })
	p.append("mail.log", "four\n")
	p.expect("one", "two", "three", "late", "torn", "four")
	if n := p.said.count("level=WARN") + p.said.count("level=ERROR"); n > 0 {
		t.Errorf("said\n%s", p.said.String())
	}
}
