package logsource

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFollowCopytruncate(t *testing.T) {
	p := newPlace(t)
	p.append("mail.log", "one\n")
	p.start("mail.log")
	p.expect("one")
	block := make(chan struct{})
	p.sink.set(func() { p.sink.block = block })
	p.append("mail.log", "two\n")
	eventually(t, "a look", func() bool { return p.f.Stats().Behind == 0 })
	p.append("mail.log", "three\n") // nobody has read that
	p.copytruncate("mail.log", "mail.log.1")
	p.append("mail.log", "four\n")
	p.sink.set(func() { p.sink.block = nil })
	close(block)
	p.expect("one", "two", "three", "four")
	if n := p.f.Stats().Truncated; n != 1 {
		t.Errorf("truncated %d times", n)
	}
}

// TestFollowRefilled is truncated and gets more than it had before anybody
// looks.
func TestFollowRefilled(t *testing.T) {
	for _, tt := range []struct{ name, head string }{
		{"another beginning", ""},
		{"the same beginning", "head of the log, as long as it needs to be to tell it from another log, which it does not\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			a, first := lines("a", 0, 100)
			b, second := lines("b", 0, 200)
			p.append("mail.log", tt.head+a)
			p.start("mail.log")
			p.sink.wait(t, 100)
			p.end()
			p.check(os.Truncate(p.path("mail.log"), 0))
			p.append("mail.log", tt.head+b)
			p.start("mail.log")
			var head []string
			if tt.head != "" {
				head = []string{strings.TrimSuffix(tt.head, "\n")}
			}
			p.expect(slices.Concat(head, first, head, second)...)
			if p.said.count("is gone") != 1 || p.f.Stats().Lost != 1 {
				t.Errorf("said\n%s", p.said.String())
			}
		})
	}
}

// TestFollowRefilledUnderway is truncated and refilled between two looks, with
// the same beginning and more than there was.
func TestFollowRefilledUnderway(t *testing.T) {
	p := newPlace(t)
	head, common := lines("head", 0, 2*HeadLen/80)
	a, first := lines("a", 0, 100)
	b, second := lines("b", 0, 200)
	p.append("mail.log", head+a)
	p.start("mail.log")
	p.sink.wait(t, len(common)+100)
	block := make(chan struct{})
	p.sink.set(func() { p.sink.block = block })
	p.append("mail.log", "last\n")
	eventually(t, "it waits for the sink", func() bool {
		p.sink.mu.Lock()
		defer p.sink.mu.Unlock()
		return p.sink.waiting > 0
	})
	p.check(os.Truncate(p.path("mail.log"), 0))
	p.append("mail.log", head+b)
	p.sink.set(func() { p.sink.block = nil })
	close(block)
	p.expect(slices.Concat(common, first, []string{"last"}, common, second)...)
}

// TestFollowCopied begins when copytruncate has made its copy and not yet
// truncated.
func TestFollowCopied(t *testing.T) {
	p := newPlace(t)
	p.append("mail.log", "one of some length that tells the log from all others, and the host\n")
	p.start("mail.log")
	p.sink.wait(t, 1)
	p.end()
	want := p.sink.all()
	p.rename("mail.log", "mail.log.2")
	text, all := lines("a", 0, 100)
	p.append("mail.log", text)
	p.append("mail.log.1", text)
	p.start("mail.log")
	want = append(want, all...)
	p.expect(want...)
	p.quiet()
	p.check(os.Truncate(p.path("mail.log"), 0))
	p.append("mail.log", "two\n")
	p.expect(append(want, "two")...)
	p.quiet()
	p.expect(append(want, "two")...)
}

// TestFollowNULs has a writer that does not append.
func TestFollowNULs(t *testing.T) {
	p := newPlace(t)
	w, err := os.Create(p.path("mail.log"))
	p.check(err)
	defer w.Close()
	text, all := lines("a", 0, 5000)
	_, err = w.WriteString(text)
	p.check(err)
	p.start("mail.log")
	p.sink.wait(t, 5000)
	p.check(w.Truncate(0))
	_, err = w.WriteString("\nnew\n")
	p.check(err)
	p.expect(append(all, "", "new")...)
	p.end()
	_, err = w.WriteString("more\n")
	p.check(err)
	p.start("mail.log")
	p.expect(append(all, "", "new", "more")...)
}

func TestFollowDeleted(t *testing.T) {
	p := newPlace(t)
	p.append("mail.log", "one\n")
	p.start("mail.log")
	p.expect("one")
	p.check(os.Remove(p.path("mail.log")))
	eventually(t, "that it is away is said", func() bool { return p.said.count("does not come back") == 1 })
	eventually(t, "it is let go", func() bool { return p.f.Stats().Files[0].Held == 0 })
	p.append("mail.log", "two\n")
	p.expect("one", "two")
	eventually(t, "it is back", func() bool { return p.said.count("following a log") == 1 })
}

func TestFollowMissing(t *testing.T) {
	p := newPlace(t)
	p.start("later/mail.log")
	eventually(t, "it is said", func() bool { return p.said.count("waiting for it") == 1 })
	p.quiet()
	p.check(os.Mkdir(p.path("later"), 0o755))
	p.quiet()
	p.append("later/mail.log", "one\n")
	p.expect("one")
	if n := p.said.count("level=WARN"); n > 2 { // missing, and away if that took long
		t.Errorf("said\n%s", p.said.String())
	}
}

// TestFollowDown is rotated while nobody looks.
func TestFollowDown(t *testing.T) {
	for _, tt := range []struct {
		name   string
		rotate func(p *place)
	}{
		{"once", func(p *place) { p.rename("mail.log", "mail.log.1") }},
		{"once, with a date", func(p *place) { p.rename("mail.log", "mail.log-20261125") }},
		{"once, before the end of the name", func(p *place) { p.rename("mail.log", "mail-20261125.log") }},
		{"once, gzip", func(p *place) { p.rename("mail.log", "mail.log.1"); p.pack("mail.log.1", ".gz") }},
		{"once, zstd", func(p *place) { p.rename("mail.log", "mail.log.1"); p.pack("mail.log.1", ".zst") }},
		{"copytruncate", func(p *place) { p.copytruncate("mail.log", "mail.log.1") }},
	} {
		for _, times := range []int{1, 3} {
			t.Run(tt.name, func(t *testing.T) {
				p := newPlace(t)
				p.append("mail.log.5", "older than all\n")
				p.append("mail.log", "one of some length that tells the log from all others, and the host\n")
				p.start("mail.log")
				p.sink.wait(t, 1)
				p.end()
				p.check(os.Remove(p.path("mail.log.5")))
				want := p.sink.all()
				for i := range times {
					for k := i; k >= 1 && times > 1; k-- {
						for _, end := range []string{"", ".gz", ".zst"} {
							name := "mail.log." + string(rune('0'+k))
							os.Rename(p.path(name+end), p.path("mail.log."+string(rune('1'+k))+end))
						}
					}
					text, all := lines(string(rune('a'+i)), 0, 300)
					want = append(want, all...)
					p.append("mail.log", text)
					if times == 1 {
						tt.rotate(p)
						continue
					}
					p.rename("mail.log", "mail.log.1")
					if i%2 == 0 {
						p.pack("mail.log.1", []string{".gz", ".zst"}[i/2])
					}
				}
				p.append("mail.log", "last\n")
				p.start("mail.log")
				p.expect(append(want, "last")...)
				p.quiet()
				p.end()
				p.append("mail.log", "after\n")
				p.start("mail.log")
				p.expect(append(want, "last", "after")...)
				if p.said.count("level=ERROR") > 0 {
					t.Errorf("said\n%s", p.said.String())
				}
			})
		}
	}
}

// TestFollowOlder leaves what was rotated before it began.
func TestFollowOlder(t *testing.T) {
	p := newPlace(t)
	p.append("mail.log.2", "old\n")
	p.append("mail.log.1", "also old\n")
	p.append("mail.log", "one\n")
	p.start("mail.log")
	p.expect("one")
	p.rename("mail.log.2", "mail.log.3")
	p.rename("mail.log.1", "mail.log.2")
	p.rename("mail.log", "mail.log.1")
	p.append("mail.log", "two\n")
	p.expect("one", "two")
	p.quiet()
	p.expect("one", "two")
}

// TestFollowGlob finds logs as they are made, and does not take one that was
// rotated for another.
func TestFollowGlob(t *testing.T) {
	p := newPlace(t)
	for _, host := range []string{"mx1", "mx2"} {
		p.check(os.MkdirAll(p.path("remote/"+host), 0o755))
	}
	p.append("remote/mx1/mail.log.1", "zero\n")
	p.append("remote/mx1/mail.log", "one\n")
	p.start("remote/*/mail.log*")
	p.expect("zero", "one")
	p.append("remote/mx2/mail.log", "two\n")
	p.expect("zero", "one", "two")
	p.rename("remote/mx2/mail.log", "remote/mx2/mail.log.1")
	p.append("remote/mx2/mail.log", "three\n")
	p.expect("zero", "one", "two", "three")
	p.check(os.MkdirAll(p.path("remote/mx3"), 0o755))
	p.append("remote/mx3/mail.log", "four\n")
	p.expect("zero", "one", "two", "three", "four")
	p.end()
	p.start("remote/*/mail.log*")
	p.append("remote/mx3/mail.log", "five\n")
	p.expect("zero", "one", "two", "three", "four", "five")
	p.quiet()
	if n := len(p.f.Stats().Files); n != 3 {
		t.Errorf("%d logs, want 3: %+v", n, p.f.Stats().Files)
	}
}

// TestFollowTwoNames reads a file once.
func TestFollowTwoNames(t *testing.T) {
	p := newPlace(t)
	p.append("mail.log", "one\n")
	p.check(os.Link(p.path("mail.log"), p.path("hard")))
	p.check(os.Symlink("mail.log", p.path("soft")))
	p.start("mail.log", "hard", "soft")
	p.expect("one")
	p.append("hard", "two\n")
	p.append("soft", "three\n")
	p.expect("one", "two", "three")
	p.quiet()
	if n := p.said.count("is the same file"); n != 2 {
		t.Errorf("said %d times\n%s", n, p.said.String())
	}
	p.rename("mail.log", "mail.log.1")
	p.append("mail.log", "four\n")
	p.expect("one", "two", "three", "four")
	eventually(t, "the old one is let go", func() bool { return p.f.Stats().Files[0].Held == 1 })
	p.append("hard", "five\n")
	p.expect("one", "two", "three", "four", "five")
}

func TestFollowSymlink(t *testing.T) {
	p := newPlace(t)
	p.check(os.Mkdir(p.path("data"), 0o755))
	p.append("data/mail.log", "one\n")
	p.check(os.Symlink("data/mail.log", p.path("log")))
	p.start("log")
	p.expect("one")
	p.end()
	p.append("data/mail.log", "two\n")
	p.rename("data/mail.log", "data/mail.log.1")
	p.append("data/mail.log", "three\n")
	p.start("log")
	p.expect("one", "two", "three")
}

func TestFollowLongLines(t *testing.T) {
	p := newPlace(t)
	long := strings.Repeat("x", MaxLine)
	p.append("mail.log", "one\n"+long+"\n"+long+"y\ntwo\n"+strings.Repeat(long, 9))
	p.start("mail.log")
	p.expect("one", long, long, "two", long)
	p.end()
	p.append("mail.log", "the same line\nthree\n")
	p.start("mail.log")
	p.expect("one", long, long, "two", long, "three")
}

// TestFollowLongPacked goes on in a line too long that was compressed since.
func TestFollowLongPacked(t *testing.T) {
	p := newPlace(t)
	long := strings.Repeat("x", MaxLine)
	p.append("mail.log", "one\n"+long+"yy")
	p.start("mail.log")
	p.expect("one", long)
	p.end()
	p.append("mail.log", long+"the same line\ntwo\n")
	p.pack("mail.log", ".gz")
	p.append("mail.log", "three\n")
	p.start("mail.log")
	p.expect("one", long, "two", "three")
}

func TestFollowDenied(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root is denied nothing")
	}
	p := newPlace(t)
	p.append("mail.log", "one\n")
	p.check(os.Chmod(p.path("mail.log"), 0))
	p.start("mail.log")
	eventually(t, "it is said", func() bool { return p.said.count("permission denied") == 1 })
	p.quiet()
	p.check(os.Chmod(p.path("mail.log"), 0o600))
	p.expect("one")
	if n := p.said.count("permission denied"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

func TestFollowNoFile(t *testing.T) {
	for _, kind := range []string{"directory", "FIFO"} {
		t.Run(kind, func(t *testing.T) {
			p := newPlace(t)
			p.append("mail.log", "one\n")
			p.start("mail.log")
			p.expect("one")
			p.rename("mail.log", "mail.log.1")
			if kind == "FIFO" {
				p.check(unix.Mkfifo(p.path("mail.log"), 0o600))
			} else {
				p.check(os.Mkdir(p.path("mail.log"), 0o700))
			}
			p.append("mail.log.1", "two\n")
			p.expect("one", "two")
			eventually(t, "it is said", func() bool { return p.said.count("is no regular file") == 1 })
			p.check(os.Remove(p.path("mail.log")))
			p.append("mail.log", "three\n")
			p.expect("one", "two", "three")
		})
	}
}

// TestFollowSameHead has a new log that begins as the old one did.
func TestFollowSameHead(t *testing.T) {
	p := newPlace(t)
	head, all := lines("a", 0, 100)
	p.append("mail.log", head+"end of the first\n")
	p.start("mail.log")
	p.sink.wait(t, 101)
	p.rename("mail.log", "mail.log.1")
	p.append("mail.log", head)
	want := slices.Concat(all, []string{"end of the first"}, all)
	p.expect(want...)
	p.append("mail.log", "end of the second\n")
	want = append(want, "end of the second")
	p.expect(want...)
	p.end()
	p.rename("mail.log.1", "mail.log.2")
	p.rename("mail.log", "mail.log.1")
	p.append("mail.log", head+"end of the third\n")
	p.start("mail.log")
	p.expect(slices.Concat(want, all, []string{"end of the third"})...)
}

// TestFollowShorter lost its end in a crash.
func TestFollowShorter(t *testing.T) {
	p := newPlace(t)
	text, all := lines("a", 0, 100)
	p.append("mail.log", text)
	p.start("mail.log")
	p.sink.wait(t, 100)
	p.end()
	p.check(os.Truncate(p.path("mail.log"), 1000))
	p.start("mail.log")
	eventually(t, "it is said", func() bool { return p.said.count("is shorter than what was read") == 1 })
	p.append("mail.log", "new\n")
	p.expect(append(all, "new")...)
}

// TestFollowMoved is replaced by a copy of itself.
func TestFollowMoved(t *testing.T) {
	p := newPlace(t)
	text, all := lines("a", 0, 100)
	p.append("mail.log", text)
	p.start("mail.log")
	p.sink.wait(t, 100)
	p.append("copy", text+"new\n")
	p.rename("copy", "mail.log")
	p.expect(append(all, "new")...)
}

// TestFollowResume goes on where a replay left off, also in what was rotated
// since.
func TestFollowResume(t *testing.T) {
	p := newPlace(t)
	text, _ := lines("a", 0, 100)
	p.append("mail.log.9", "old\n")
	p.append("mail.log", text)
	src, err := Open(p.path("mail.log"), nil)
	p.check(err)
	for _, err = src.Next(); err == nil; _, err = src.Next() {
	}
	m, ok := src.Mark(true)
	src.Close()
	if !ok {
		t.Fatal("no mark")
	}
	p.append("mail.log", "one\n")
	p.rename("mail.log", "mail.log.2")
	p.append("mail.log.1", "two\n")
	p.append("mail.log", "three\n")
	p.opt.Resume = []Mark{{Prefix: m.Prefix, PrefixLen: m.PrefixLen, Offset: 10}, m}
	p.start("mail.log")
	p.expect("one", "two", "three")
	p.quiet()
	p.expect("one", "two", "three")
}

func TestFollowManyHeld(t *testing.T) {
	p := newPlace(t)
	p.opt.Idle = time.Hour
	var want []string
	for i := range 2 * maxOld {
		text, all := lines(string(rune('a'+i)), 0, 3)
		p.append("mail.log", text)
		want = append(want, all...)
		if i == 0 {
			p.start("mail.log")
		}
		p.expect(want...)
		p.rename("mail.log", "mail.log-2026112"+string(rune('A'+i)))
	}
	p.append("mail.log", "last\n")
	p.expect(append(want, "last")...)
	eventually(t, "the oldest are let go", func() bool { return p.f.Stats().Files[0].Held == maxOld })
	if len(p.sink.State(keyOf(p.path("mail.log")))) > MaxState {
		t.Error("the state is too long")
	}
}

func TestFollowSink(t *testing.T) {
	p := newPlace(t)
	p.sink.fail = func(int) (bool, error) { return false, errSink }
	p.append("mail.log", "one\n")
	f, err := NewFollow([]string{p.path("mail.log")}, p.sink, p.opt)
	p.check(err)
	if err := f.Run(t.Context()); err != errSink {
		t.Fatalf("error %v", err)
	}
	p.sink.set(func() { p.sink.fail = nil; p.sink.block = make(chan struct{}) })
	p.start("mail.log")
	p.end() // although the sink blocks
	p.sink.set(func() { p.sink.block = nil })
	p.start("mail.log")
	p.expect("one")
}

func TestFollowState(t *testing.T) {
	p := newPlace(t)
	p.append("mail.log", "one\n")
	p.sink.states[keyOf(p.path("mail.log"))] = []byte{99}
	p.start("mail.log")
	if err := p.stop(); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("error %v", err)
	}
}

func TestFollowHint(t *testing.T) {
	p := newPlace(t)
	p.opt.Hint, p.opt.Poll = true, time.Hour
	p.append("mail.log", "one\n")
	p.start("mail.log")
	p.expect("one")
	p.append("mail.log", "two\n")
	p.expect("one", "two")
	p.rename("mail.log", "mail.log.1")
	p.append("mail.log", "three\n")
	p.expect("one", "two", "three")
}

func TestFollowLook(t *testing.T) {
	p := newPlace(t)
	p.opt.Poll = time.Hour
	p.start("mail*")
	p.append("mail.log", "one\n")
	p.f.Look()
	p.expect("one")
}

func TestFollowPatterns(t *testing.T) {
	for _, pattern := range []string{"", "[", `a\`} {
		if _, err := NewFollow([]string{pattern}, nil, FollowOptions{}); err == nil {
			t.Errorf("%q is taken", pattern)
		}
	}
	p := newPlace(t)
	p.append("a[1]", "one\n")
	p.start(`a\[1]`)
	p.expect("one")
}

func TestRotated(t *testing.T) {
	for _, tt := range []struct {
		name, live, label, number string
		ok                        bool
	}{
		{"mail.log.1", "mail.log", "mail.log.1", "1", true},
		{"mail.log.12.gz", "mail.log", "mail.log.12", "12", true},
		{"mail.log-20261125", "mail.log", "mail.log-20261125", "", true},
		{"mail.log-20261125.zst", "mail.log", "mail.log-20261125", "", true},
		{"mail.log-1764000000.gz", "mail.log", "mail.log-1764000000", "", true},
		{"mail-20261125.log", "mail.log", "mail-20261125.log", "", true},
		{"mail.log-2026-11-25T00:00:00", "mail.log", "mail.log-2026-11-25T00:00:00", "", true},
		{"mail.1.log.gz", "mail.log", "mail.1.log", "1", true},
		{"mail.log.gz", "mail.log", "mail.log", "", true},
		{"mail.log.old", "mail.log", "mail.log.old", "", true},
		{"maillog.0", "maillog", "maillog.0", "0", true},
		{"mail.log", "mail.log", "mail.log", "", false},
		{"mail.log.offset", "mail.log", "", "", false},
		{"mail.log1", "mail.log", "", "", false},
		{"mx-2", "mx", "", "", false},
		{"mail.err", "mail.log", "", "", false},
		{"mail.err.1", "mail.log", "", "", false},
	} {
		label, number, ok := rotated(tt.name, tt.live)
		if ok != tt.ok || ok && (label != tt.label || number != tt.number) {
			t.Errorf("%s of %s: %q %q %v", tt.name, tt.live, label, number, ok)
		}
	}
}

func TestTidy(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for _, tt := range []struct {
		in, want string
		cut      int64
	}{
		{"", "", 0},
		{"\n", "\n", 0},
		{"a\nb\n", "a\nb\n", 0},
		{"\x00\x00a\n\x00\nb\x00\n", "a\n\nb\x00\n", 0},
		{long + "\n", long + "\n", 0},
		{"a\n" + long + "y\nb\n", "a\n" + long + "\nb\n", 1},
		{long + long + "\n" + long + "\x00\n", long + "\n" + long + "\n", 2},
	} {
		got, cut := tidy([]byte(tt.in))
		if string(got) != tt.want || cut != tt.cut {
			t.Errorf("%.60q: %.60q, %d cut", tt.in, got, cut)
		}
	}
}

// FuzzState has no state crash, and writes what it read.
func FuzzState(f *testing.F) {
	id := ident{dev: 1, ino: 2, mtime: 3, off: 5000, headLen: 4096, tailLen: 256}
	f.Add(appendIdent([]byte{stateVersion}, &id))
	id = ident{off: 100, headLen: 100, tailLen: 100, skip: true, done: true}
	f.Add(appendIdent([]byte{stateVersion}, &id))
	f.Add([]byte{stateVersion})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, err := readIdents(b)
		if err != nil || len(ids) == 0 {
			return
		}
		out := []byte{stateVersion}
		for i := range ids {
			out = appendIdent(out, &ids[i])
		}
		again, err := readIdents(out)
		if err != nil || !slices.Equal(ids, again) {
			t.Errorf("%+v became %+v, %v", ids, again, err)
		}
		var p pipeState
		if p.get(b) == nil && len(b) > 0 {
			var out [pipeStateLen]byte
			p.put(&out)
			if string(out[:]) != string(b) {
				t.Errorf("%x became %x", b, out)
			}
		}
	})
}

func TestFollowAllocates(t *testing.T) {
	p := newPlace(t)
	text, _ := lines("a", 0, 100000)
	p.append("mail.log", text)
	f, err := NewFollow([]string{p.path("mail.log")}, discard{}, p.opt)
	p.check(err)
	n := testing.AllocsPerRun(1, func() {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		from := f.Stats().Lines
		go func() { done <- f.Run(ctx) }()
		eventually(t, "it is read", func() bool { return f.Stats().Lines == from+100000 })
		cancel()
		<-done
	})
	if n > 10000 {
		t.Errorf("%v allocations for 100,000 lines", n)
	}
}

func BenchmarkFollow(b *testing.B) {
	p := newPlace(b)
	text, _ := lines("a", 0, 1000000)
	p.append("mail.log", text)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		f, err := NewFollow([]string{filepath.Join(p.dir, "mail.log")}, discard{}, FollowOptions{})
		p.check(err)
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		for f.Stats().Lines < 1000000 {
			time.Sleep(100 * time.Microsecond)
		}
		cancel()
		<-done
	}
}
