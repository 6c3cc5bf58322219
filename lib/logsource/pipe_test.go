package logsource

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fifo is a FIFO and a Pipe that reads it.
type fifo struct {
	*place
	w *os.File
	p *Pipe
}

func newFIFO(t testing.TB) *fifo {
	f := &fifo{place: newPlace(t)}
	f.check(unix.Mkfifo(f.path("fifo"), 0o600))
	f.w = f.writer("fifo")
	return f
}

// writer opens a FIFO as a writer that also holds it, so that its content
// outlives the reader.
func (f *fifo) writer(name string) *os.File {
	w, err := os.OpenFile(f.path(name), os.O_RDWR, 0)
	f.check(err)
	f.t.Cleanup(func() { w.Close() })
	return w
}

func (f *fifo) open(opt PipeOptions) {
	f.t.Helper()
	opt.Log, opt.Poll = f.said.log(), time.Millisecond
	p, err := NewPipe(f.path("fifo"), f.sink, opt)
	f.check(err)
	f.p, f.stop = p, run(f.t, p)
}

func (f *fifo) write(text string) {
	f.t.Helper()
	_, err := f.w.WriteString(text)
	f.check(err)
}

// left is how many bytes are in the FIFO.
func (f *fifo) left() int {
	n, err := unix.IoctlGetInt(int(f.w.Fd()), unix.TIOCINQ)
	f.check(err)
	return n
}

func (f *fifo) empty() {
	f.t.Helper()
	eventually(f.t, "the FIFO is empty", func() bool { return f.left() == 0 })
}

func TestPipe(t *testing.T) {
	f := newFIFO(t)
	f.open(PipeOptions{})
	f.write("one\ntwo\nthr")
	f.expect("one", "two")
	eventually(t, "the beginning of a line stays in the FIFO", func() bool { return f.left() == 3 })
	f.end()
	f.open(PipeOptions{})
	f.write("ee\n")
	f.expect("one", "two", "three")
	f.empty()
	f.end()
	f.write("four\n")
	f.open(PipeOptions{})
	f.expect("one", "two", "three", "four")
	if st := f.p.Stats(); st.Lines != 1 || st.Bytes != 5 {
		t.Errorf("stats %+v", st)
	}
}

func TestPipeLongLines(t *testing.T) {
	f := newFIFO(t)
	long := strings.Repeat("x", MaxLine)
	f.open(PipeOptions{})
	f.write(long + "\n" + long + "y\n" + "one\n")
	f.expect(long, long, "one")
	f.write("a" + long)
	f.sink.wait(t, 4)
	f.write(long + long + long + long + long) // more than a chunk
	f.empty()
	f.end()
	f.write("still the same\ntwo\n")
	f.open(PipeOptions{})
	f.expect(long, long, "one", "a"+long[1:], "two")
}

// TestPipeSkipEnds is killed just when a line too long has ended: the next
// line is not taken for its rest.
func TestPipeSkipEnds(t *testing.T) {
	for _, kept := range []bool{true, false} {
		f := newFIFO(t)
		f.sink.fail = func(put int) (bool, error) {
			if put == 2 {
				return kept, errSink
			}
			return true, nil
		}
		f.open(PipeOptions{})
		f.write(strings.Repeat("x", MaxLine+10))
		f.sink.wait(t, 1)
		f.empty()
		f.write("end\n")
		eventually(t, "the second put", func() bool { f.sink.mu.Lock(); defer f.sink.mu.Unlock(); return f.sink.puts == 2 })
		if err := f.stop(); err != errSink && err != nil {
			t.Fatal(err)
		}
		f.write("next\n")
		f.open(PipeOptions{})
		f.expect(strings.Repeat("x", MaxLine), "next")
		f.end()
	}
}

// TestPipeKill has every line once, whether it was killed before a Put or
// before what was put was read out of the FIFO.
func TestPipeKill(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	f := newFIFO(t)
	var want []string
	done := make(chan bool)
	go func() {
		defer close(done)
		var b strings.Builder
		for i := range 20000 {
			line := fmt.Sprintf("line %d %s", i, strings.Repeat("x", i%90))
			want = append(want, line)
			b.WriteString(line + "\n")
			if i%7 == 0 || i == 19999 { // not at the end of a line
				n := b.Len() / 2
				s := b.String()
				f.w.WriteString(s[:n])
				f.w.WriteString(s[n:])
				b.Reset()
				for f.left() > 4000 { // chunks are to be many
					time.Sleep(10 * time.Microsecond)
				}
			}
		}
	}()
	kills := 0
	for ended := false; !ended; {
		at, kept := 1+rnd.IntN(20), rnd.IntN(2) == 0
		f.sink.set(func() {
			n := 0
			f.sink.fail = func(int) (bool, error) {
				if n++; n == at {
					return kept, errSink
				}
				return true, nil
			}
		})
		p, err := NewPipe(f.path("fifo"), f.sink, PipeOptions{})
		f.check(err)
		ctx, cancel := context.WithCancel(t.Context())
		died := make(chan error, 1)
		go func() { died <- p.Run(ctx) }()
		written := false
		eventually(t, "it dies, or there is no more", func() bool {
			select {
			case err := <-died:
				if err != errSink {
					t.Fatal(err)
				}
				kills++
				return true
			case <-done:
				written = true
			default:
			}
			ended = written && f.left() == 0
			return ended
		})
		cancel()
	}
	if kills < 10 {
		t.Errorf("killed %d times only", kills)
	}
	f.expect(want...)
}

func TestPipeReplaced(t *testing.T) {
	f := newFIFO(t)
	f.open(PipeOptions{})
	f.write("one\n")
	f.expect("one")
	f.check(os.Remove(f.path("fifo")))
	f.write("two\n") // the writer still has it
	f.expect("one", "two")
	eventually(t, "that it is gone is said", func() bool { return f.said.count("cannot read the FIFO") == 1 })
	f.check(os.WriteFile(f.path("fifo"), []byte("no FIFO\n"), 0o600))
	eventually(t, "what stands there is said", func() bool { return f.said.count("is no FIFO") >= 1 })
	f.check(os.Remove(f.path("fifo")))
	f.check(unix.Mkfifo(f.path("fifo"), 0o600))
	w := f.writer("fifo")
	_, err := w.WriteString("three\n")
	f.check(err)
	f.expect("one", "two", "three")
}

func TestPipeMade(t *testing.T) {
	f := &fifo{place: newPlace(t)}
	f.open(PipeOptions{Make: 0o620})
	eventually(t, "the FIFO is made", func() bool {
		fi, err := os.Stat(f.path("fifo"))
		return err == nil && fi.Mode() == os.ModeNamedPipe|0o620
	})
	f.w = f.writer("fifo")
	f.write("one\n")
	f.expect("one")
}

func TestPipeSilent(t *testing.T) {
	f := newFIFO(t)
	f.open(PipeOptions{Silent: 5 * time.Millisecond})
	eventually(t, "the silence is said", func() bool { return f.said.count("nobody writes") == 1 })
	f.write("one\n")
	f.expect("one")
	eventually(t, "and said again", func() bool { return f.said.count("nobody writes") == 2 })
}

func TestPipeState(t *testing.T) {
	f := newFIFO(t)
	f.sink.states["fifo:"+f.path("fifo")] = []byte("of another version")
	f.open(PipeOptions{})
	eventually(t, "an error", func() bool { return f.stop() != nil })
}

func TestInput(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"lines", "one\ntwo\n", []string{"one", "two"}},
		{"no newline at the end", "one\ntwo", []string{"one", "two"}},
		{"a line just long enough", long + "\none\n", []string{long, "one"}},
		{"a line too long", "one\n" + long + "y\ntwo\n", []string{"one", long, "two"}},
		{"a line much too long", "one\n" + strings.Repeat(long, 9) + "y\ntwo", []string{"one", long, "two"}},
		{"a line much too long without an end", strings.Repeat(long, 9), []string{long}},
		{"NULs", "\x00\x00one\n\x00two\n", []string{"one", "two"}},
	} {
		for _, kind := range []string{"pipe", "file", "socket"} {
			t.Run(kind+"/"+tt.name, func(t *testing.T) {
				p := newPlace(t)
				in := input(t, kind, tt.in)
				if err := NewInput(in, "", p.sink, PipeOptions{}).Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				p.expect(tt.want...)
			})
		}
	}
}

// The writer writes the rest and closes between the look at the pipe and the
// question whether anybody will write more.
func TestInputWrittenMeanwhile(t *testing.T) {
	for _, rest := range []string{"line\ntwo\n", "line"} {
		pl := newPlace(t)
		r, w, err := os.Pipe()
		pl.check(err)
		t.Cleanup(func() { r.Close() })
		_, err = w.WriteString("one ")
		pl.check(err)
		p := NewInput(r, "", pl.sink, PipeOptions{})
		p.looked = func() {
			if w != nil {
				_, err := w.WriteString(rest)
				pl.check(err)
				pl.check(w.Close())
				w = nil
			}
		}
		pl.check(p.Run(t.Context()))
		pl.expect(strings.Split(strings.TrimSuffix("one "+rest, "\n"), "\n")...)
	}
}

// input is an open file of a kind with a content.
func input(t *testing.T, kind, content string) *os.File {
	t.Helper()
	if kind == "file" {
		name := t.TempDir() + "/in"
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	var fds [2]int
	var err error
	if kind == "pipe" {
		err = unix.Pipe2(fds[:], unix.O_CLOEXEC)
	} else {
		fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(fds[0]), "in"), os.NewFile(uintptr(fds[1]), "out")
	go func() {
		w.WriteString(content)
		w.Close()
	}()
	t.Cleanup(func() { r.Close() })
	return r
}
