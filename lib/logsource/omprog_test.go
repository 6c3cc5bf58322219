package logsource

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/tests/peer"
)

// om is an Omprog and rsyslog's side of it.
type om struct {
	*place
	to     *os.File // its standard input
	answer *bufio.Reader
	o      *Omprog
}

func newOm(t testing.TB, sink Sink, opt OmprogOptions) *om {
	m := &om{place: newPlace(t)}
	if sink == nil {
		sink = m.sink
	}
	inR, inW, err := os.Pipe()
	m.check(err)
	outR, outW, err := os.Pipe()
	m.check(err)
	t.Cleanup(func() {
		for _, f := range []*os.File{inR, inW, outR, outW} {
			f.Close()
		}
	})
	opt.Log = m.said.log()
	m.to, m.answer = inW, bufio.NewReader(outR)
	m.o = NewOmprog(inR, outW, sink, opt)
	m.stop = run(t, m.o)
	m.want("OK")
	return m
}

func (m *om) send(text string) {
	m.t.Helper()
	_, err := m.to.WriteString(text)
	m.check(err)
}

func (m *om) want(answers ...string) {
	m.t.Helper()
	for _, want := range answers {
		got, err := m.answer.ReadString('\n')
		m.check(err)
		if got != want+"\n" {
			m.t.Fatalf("answer %q, want %q", got, want)
		}
	}
}

func TestOmprog(t *testing.T) {
	m := newOm(t, nil, OmprogOptions{})
	m.send("one\n")
	m.want("OK")
	m.expect("one")
	m.send("two\nthree\nfo")
	m.want("OK", "OK")
	m.send("ur\n")
	m.want("OK")
	long := strings.Repeat("x", MaxLine)
	m.send(long)
	m.send(long + long + long + long + long)
	m.send("\nfive\n")
	m.want("OK", "OK")
	m.send("six")
	m.to.Close()
	m.want("OK")
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	m.expect("one", "two", "three", "four", long, "five", "six")
	if st := m.o.Stats(); st.Lines != 7 || st.Cut != 1 || st.Torn != 1 {
		t.Errorf("stats %+v", st)
	}
}

// TestOmprogAgain gets the line again that it was killed behind.
func TestOmprogAgain(t *testing.T) {
	m := newOm(t, nil, OmprogOptions{})
	m.send("one\n")
	m.want("OK")
	again := func(lines string, answers int, want ...string) {
		t.Helper()
		n := newOm(t, m.sink, OmprogOptions{})
		n.send(lines)
		for range answers {
			n.want("OK")
		}
		n.stop()
		m.expect(want...)
	}
	again("one\n", 1, "one")
	again("two\n", 1, "one", "two")
	again("two\ntwo\n", 2, "one", "two", "two")
	again("three\ntwo\n", 2, "one", "two", "two", "three", "two")
}

func TestOmprogSinkFails(t *testing.T) {
	m := newOm(t, nil, OmprogOptions{})
	m.sink.set(func() {
		m.sink.fail = func(int) (bool, error) { return false, fmt.Errorf("disk\nfull\x1b") }
	})
	m.send("one\ntwo\n")
	m.want("error: disk full ", "error: disk full ")
	m.sink.set(func() { m.sink.fail = nil })
	m.send("one\n")
	m.want("OK")
	m.expect("one")
}

func TestOmprogKeepAlive(t *testing.T) {
	m := newOm(t, nil, OmprogOptions{KeepAlive: time.Millisecond})
	block := make(chan struct{})
	m.sink.set(func() { m.sink.block = block })
	m.send("one\n")
	dots := 0
	for ; dots < 3; dots++ {
		c, err := m.answer.ReadByte()
		m.check(err)
		if c != '.' {
			t.Fatalf("%q, want a dot", c)
		}
	}
	m.sink.set(func() { m.sink.block = nil })
	close(block)
	got, err := m.answer.ReadString('\n')
	m.check(err)
	if strings.TrimLeft(got, ".") != "OK\n" {
		t.Errorf("answer %q", got)
	}
	m.send("two\n")
	if got, _ := m.answer.ReadString('\n'); strings.TrimLeft(got, ".") != "OK\n" {
		t.Errorf("answer %q", got)
	}
}

func TestOmprogTransactions(t *testing.T) {
	m := newOm(t, nil, OmprogOptions{})
	no := `rol-logpipe takes no transactions: set useTransactions="off"`
	m.send("BEGIN TRANSACTION\n")
	m.want(no)
	m.send("one\nBEGIN TRANSACTION\ntwo TRANSACTION\nCOMMIT TRANSACTION\n")
	m.want("OK", no, "OK", no)
	m.expect("one", "two TRANSACTION")
	if m.said.count("useTransactions") != 1 {
		t.Errorf("said\n%s", m.said.String())
	}
}

func TestOmprogAllocates(t *testing.T) {
	m := newOm(t, discard{}, OmprogOptions{})
	b := make([]byte, 3)
	line := []byte("2026-11-25T00:00:00.000000+00:00 mx1 postfix/qmgr[1]: 4XYZ: removed\n")
	n := testing.AllocsPerRun(1000, func() {
		m.to.Write(line)
		io.ReadFull(m.answer, b)
	})
	if n > 0 {
		t.Errorf("%v allocations a line", n)
	}
}

// BenchmarkOmprog sends a line and waits for its answer, as omprog does.
func BenchmarkOmprog(b *testing.B) {
	var to, from [2]int
	for _, p := range []*[2]int{&to, &from} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			b.Fatal(err)
		}
	}
	in, out := os.NewFile(uintptr(to[0]), "in"), os.NewFile(uintptr(from[1]), "out")
	defer in.Close()
	defer out.Close()
	run(b, NewOmprog(in, out, discard{}, OmprogOptions{}))
	line := []byte("2026-11-25T00:00:00.000000+00:00 mx1 postfix/qmgr[1]: 4XYZ: removed\n")
	ok := make([]byte, 64)
	if _, err := unix.Read(from[0], ok); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		unix.Write(to[1], line)
		unix.Read(from[0], ok)
	}
}

// discard is a sink that keeps nothing.
type discard struct{}

func (discard) Put(context.Context, *Chunk) error { return nil }
func (discard) State(string) []byte               { return nil }

// diary is a sink in a file, for processes that are killed: a record is one
// write(2).
type diary struct {
	f     *os.File
	state []byte
	lines []string
	buf   []byte
}

func openDiary(name string) (*diary, error) {
	d := &diary{}
	b, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for len(b) >= 8 {
		n, k := int(binary.LittleEndian.Uint32(b)), int(binary.LittleEndian.Uint32(b[4:]))
		if len(b) < 8+n+k {
			return nil, fmt.Errorf("the diary is torn")
		}
		d.state = b[8 : 8+n]
		for line := range strings.Lines(string(b[8+n : 8+n+k])) {
			d.lines = append(d.lines, strings.TrimSuffix(line, "\n"))
		}
		b = b[8+n+k:]
	}
	d.f, err = os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return d, err
}

func (d *diary) Put(_ context.Context, c *Chunk) error {
	d.buf = binary.LittleEndian.AppendUint32(d.buf[:0], uint32(len(c.State)))
	d.buf = binary.LittleEndian.AppendUint32(d.buf, uint32(len(c.Lines)))
	d.buf = append(append(d.buf, c.State...), c.Lines...)
	_, err := d.f.Write(d.buf)
	return err
}

func (d *diary) State(string) []byte { return d.state }

const childEnv = "ROL_TEST_SOURCE"

// TestMain runs a source as a process of its own if it is told to.
func TestMain(m *testing.M) {
	what, dir, _ := strings.Cut(os.Getenv(childEnv), ":")
	if what == "" {
		os.Exit(m.Run())
	}
	if err := child(what, dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(what, dir string) error {
	if what == "trivial" {
		return peer.LeastChild(filepath.Join(dir, "diary"))
	}
	d, err := openDiary(filepath.Join(dir, "diary"))
	if err != nil {
		return err
	}
	pid := fmt.Sprint(os.Getpid())
	if err := os.WriteFile(filepath.Join(dir, "pid.new"), []byte(pid), 0o600); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, "pid.new"), filepath.Join(dir, "pid")); err != nil {
		return err
	}
	if what == "omprog" {
		return NewOmprog(os.Stdin, os.Stdout, d, OmprogOptions{}).Run(context.Background())
	}
	p, err := NewPipe(filepath.Join(dir, "fifo"), d, PipeOptions{})
	if err != nil {
		return err
	}
	return p.Run(context.Background())
}
