package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/sysexits"
)

func open(t testing.TB, o Options) *Spool {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s *Spool, key, state, lines string) {
	t.Helper()
	c := &logsource.Chunk{Key: key, Lines: []byte(lines)}
	if state != "" {
		c.State = []byte(state)
	}
	if err := s.Put(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// all reads everything there is from an offset on.
func all(t testing.TB, s *Spool, from int64) (lines string) {
	t.Helper()
	r, err := s.NewReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for at := int64(-1); ; {
		b, err := r.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			return lines
		}
		if b.From <= at || b.To <= b.From {
			t.Fatalf("block from %d to %d behind %d", b.From, b.To, at)
		}
		at = b.From
		lines += b.Key + "|" + string(b.Lines)
	}
}

func TestPutAndRead(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	put(t, s, "a", "1", "x\ny\n")
	put(t, s, "b", "", "z\n")
	put(t, s, "a", "2", "")
	want := "a|x\ny\nb|z\na|"
	if got := all(t, s, s.Begin()); got != want {
		t.Errorf("got %q", got)
	}
	id, end := s.ID(), s.End()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), &logsource.Chunk{Key: "a"}); err == nil {
		t.Error("put into a closed spool")
	}
	s = open(t, Options{Dir: dir})
	if s.ID() != id || s.End() != end || all(t, s, s.Begin()) != want {
		t.Errorf("after a restart: %x, %d, %q", s.ID(), s.End(), all(t, s, s.Begin()))
	}
	if string(s.State("a")) != "2" || s.State("b") != nil {
		t.Errorf("states %q, %q", s.State("a"), s.State("b"))
	}
	put(t, s, "b", "", "w\n")
	if got := all(t, s, end); got != "b|w\n" {
		t.Errorf("from the old end: %q", got)
	}
}

func TestAReaderIsWoken(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	r, err := s.NewReader(s.Begin())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make(chan string)
	go func() {
		for range 100 {
			b, err := r.Next(t.Context())
			if err != nil {
				got <- err.Error()
				return
			}
			got <- string(b.Lines)
		}
	}()
	for i := range 100 {
		line := fmt.Sprintln(i)
		put(t, s, "a", "", line)
		if g := <-got; g != line {
			t.Fatalf("got %q, want %q", g, line)
		}
	}
}

func TestSegmentsAreReleased(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, MaxBytes: 64 << 10, SegmentBytes: 4096}
	s := open(t, o)
	line := strings.Repeat("x", 999) + "\n"
	for i := range 20 {
		put(t, s, "a", fmt.Sprint(i), line)
	}
	if n := s.Stats().Segments; n < 4 {
		t.Fatalf("%d segments", n)
	}
	middle := s.segs[2].base
	if err := s.Release(middle + 10); err != nil {
		t.Fatal(err)
	}
	if s.Begin() != middle {
		t.Errorf("begins at %d, want %d", s.Begin(), middle)
	}
	if _, err := s.NewReader(0); !errors.Is(err, ErrGone) {
		t.Errorf("a reader of what is gone: %v", err)
	}
	if _, err := s.NewReader(s.End() + 1); !errors.Is(err, ErrAhead) {
		t.Errorf("a reader of what is not there: %v", err)
	}
	if err := s.Release(1 << 40); err != nil || s.Stats().Segments != 1 {
		t.Errorf("%v, %d segments", err, s.Stats().Segments)
	}
	s.Close()
	s = open(t, o)
	if string(s.State("a")) != "19" {
		t.Errorf("state %q: the last segment does not say it", s.State("a"))
	}
}

func TestAFullSpoolWaits(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxBytes: 16 << 10, SegmentBytes: 4096})
	line := strings.Repeat("x", 999) + "\n"
	n := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := s.Put(ctx, &logsource.Chunk{Key: "a", Lines: []byte(line)})
		cancel()
		if err != nil {
			break
		}
		n++
	}
	if st := s.Stats(); n < 10 || st.WaitingSince.IsZero() || st.WaitingFor == "" || st.Bytes > 16<<10 {
		t.Fatalf("%d lines, %+v", n, st)
	}
	done := make(chan error)
	go func() { done <- s.Put(t.Context(), &logsource.Chunk{Key: "a", Lines: []byte(line)}) }()
	if err := s.Release(s.End()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); !st.WaitingSince.IsZero() {
		t.Errorf("waits still: %+v", st)
	}
}

func TestDamage(t *testing.T) {
	build := func(t *testing.T) (dir string, segs []string) {
		dir = t.TempDir()
		s := open(t, Options{Dir: dir, SegmentBytes: 4096})
		for i := range 30 {
			put(t, s, "a", fmt.Sprint(i), fmt.Sprintf("%03d %s\n", i, strings.Repeat("x", 495)))
		}
		s.Close()
		segs, _ = filepath.Glob(filepath.Join(dir, "*.seg"))
		if len(segs) < 3 {
			t.Fatal(segs)
		}
		return dir, segs
	}
	numbers := func(t *testing.T, s *Spool) (all []string) {
		r, err := s.NewReader(s.Begin())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for {
			b, err := r.TryNext()
			if err != nil {
				t.Fatal(err)
			}
			if b == nil {
				return all
			}
			all = append(all, string(b.Lines[:3]))
		}
	}
	change := func(t *testing.T, path string, f func([]byte) []byte) {
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, f(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Run("torn tail", func(t *testing.T) {
		dir, segs := build(t)
		change(t, segs[len(segs)-1], func(b []byte) []byte { return b[:len(b)-100] })
		s := open(t, Options{Dir: dir})
		if got := numbers(t, s); len(got) != 29 || got[28] != "028" || string(s.State("a")) != "28" {
			t.Errorf("got %v, state %q", got, s.State("a"))
		}
		if torn, _ := filepath.Glob(filepath.Join(dir, "*.torn")); len(torn) != 1 || s.Stats().SetAside != 1 {
			t.Errorf("set aside: %v, %d", torn, s.Stats().SetAside)
		}
		put(t, s, "a", "new", "new\n")
		if got := numbers(t, s); len(got) != 30 || got[29] != "new" {
			t.Errorf("then: %v", got)
		}
	})
	t.Run("a flipped bit in the middle", func(t *testing.T) {
		dir, segs := build(t)
		change(t, segs[1], func(b []byte) []byte { b[len(b)/2] ^= 4; return b })
		s := open(t, Options{Dir: dir})
		if got := numbers(t, s); len(got) != 29 || s.Stats().SetAside != 1 {
			t.Errorf("%d lines, %d set aside", len(got), s.Stats().SetAside)
		}
	})
	t.Run("an older segment cut short", func(t *testing.T) {
		dir, segs := build(t)
		change(t, segs[0], func(b []byte) []byte { return b[:len(b)-100] })
		s := open(t, Options{Dir: dir})
		if got := numbers(t, s); len(got) != 29 {
			t.Errorf("%d lines: %v", len(got), got)
		}
	})
	t.Run("an empty last segment", func(t *testing.T) {
		dir, _ := build(t)
		if err := os.WriteFile(filepath.Join(dir, "0000000000ffffff.seg"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, Options{Dir: dir})
		if got := numbers(t, s); len(got) != 30 || string(s.State("a")) != "29" {
			t.Errorf("%d lines, state %q", len(got), s.State("a"))
		}
	})
	t.Run("another version", func(t *testing.T) {
		dir, segs := build(t)
		change(t, segs[0], func(b []byte) []byte { b[8] = 9; return b })
		if _, err := Open(Options{Dir: dir}); sysexits.Status(err) != sysexits.Data || !strings.Contains(err.Error(), "version 9") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no spool", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "mail.log"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Dir: dir}); sysexits.Status(err) != sysexits.Config || !strings.Contains(err.Error(), "is no spool") {
			t.Errorf("got %v", err)
		}
	})
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	open(t, Options{Dir: dir})
	_, err := Open(Options{Dir: dir, LockWait: 50 * time.Millisecond})
	if sysexits.Status(err) != sysexits.TryAgain || !strings.Contains(err.Error(), "another rol-logpipe") {
		t.Errorf("got %v", err)
	}
}

func TestSkip(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	put(t, s, "a", "1", "x\n")
	to := s.End() + 1000
	if err := s.Skip(to); err != nil {
		t.Fatal(err)
	}
	if s.End() < to {
		t.Fatalf("ends at %d", s.End())
	}
	put(t, s, "a", "2", "y\n")
	if got := all(t, s, s.Begin()); got != "a|x\na|y\n" {
		t.Errorf("got %q", got)
	}
	if got := all(t, s, to); got != "a|y\n" {
		t.Errorf("from there: %q", got)
	}
}

func FuzzSegment(f *testing.F) {
	seed := appendStates(appendHeader(nil, [16]byte{1}, 0), map[string][]byte{"a": []byte("s")})
	seed = appendChunk(seed, &logsource.Chunk{Key: "k", State: []byte("t"), Lines: []byte("x\ny\n")})
	f.Add(seed)
	f.Add(append(bytes.Clone(seed), 7, 0, 0, 0))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, strings.Repeat("0", 16)+suffix), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Options{Dir: dir})
		if err != nil {
			return
		}
		defer s.Close()
		before := all(t, s, s.Begin())
		put(t, s, "new", "", "new\n")
		if got := all(t, s, s.Begin()); got != before+"new|new\n" {
			t.Fatalf("got %q, want %q and a new line", got, before)
		}
	})
}

func BenchmarkPut(b *testing.B) {
	for name, n := range map[string]int{"line": 180, "chunk": 64 << 10} {
		b.Run(name, func(b *testing.B) {
			s := open(b, Options{Dir: b.TempDir(), MaxBytes: 1 << 40})
			c := &logsource.Chunk{Key: "omprog", Lines: append(bytes.Repeat([]byte("x"), n-1), '\n')}
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Put(b.Context(), c); err != nil {
					b.Fatal(err)
				}
				if s.Stats().Segments > 4 {
					_ = s.Release(s.End())
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	s := open(b, Options{Dir: b.TempDir()})
	c := &logsource.Chunk{Key: "a", Lines: append(bytes.Repeat([]byte("x"), 64<<10-1), '\n')}
	for range 1000 {
		if err := s.Put(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(1000 * 64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		r, err := s.NewReader(s.Begin())
		if err != nil {
			b.Fatal(err)
		}
		for range 1000 {
			if _, err := r.TryNext(); err != nil {
				b.Fatal(err)
			}
		}
		r.Close()
	}
}
