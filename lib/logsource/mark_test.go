package logsource

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// readSome reads n lines and returns the mark behind them.
func readSome(tb testing.TB, s *Source, n int) Mark {
	tb.Helper()
	for range n {
		if _, err := s.Next(); err != nil {
			tb.Fatal(err)
		}
	}
	m, ok := s.Mark(true)
	if !ok {
		tb.Fatal("no mark")
	}
	return m
}

func TestResume(t *testing.T) {
	text := numbered(0, 5000)
	mark := readSome(t, open(t, write(t, "mail.log", []byte(text))), 3000)
	grown := text + numbered(5000, 5100)
	for _, c := range []struct {
		name    string
		content []byte
		want    int // first line
		last    int
	}{
		{"unchanged", []byte(text), 3000, 4999},
		{"grown", []byte(grown), 3000, 5099},
		{"compressed since", zip(t, grown), 3000, 5099},
		{"zstd", zst(t, text), 3000, 4999},
		{"with a byte order mark", []byte("\xef\xbb\xbf" + text), 3000, 4999},
		{"behind NULs", append(make([]byte, 50000), grown...), 3000, 5099},
		{"another log", []byte("another\n" + text), -1, 4999},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, write(t, "renamed", c.content))
			n := s.Resume([]Mark{{Prefix: [32]byte{1}, PrefixLen: 4096, Offset: 17}, mark})
			if c.want >= 0 && n != mark.Offset {
				t.Errorf("skipped %d bytes, want %d", n, mark.Offset)
			}
			lines, err := all(s)
			if err != nil {
				t.Fatal(err)
			}
			if c.want >= 0 && !strings.HasPrefix(lines[0], fmt.Sprintf("line %d of", c.want)) {
				t.Errorf("first line %q, want number %d", lines[0], c.want)
			}
			if c.want < 0 && (n != 0 || len(lines) != 5001) {
				t.Errorf("skipped %d bytes, %d lines", n, len(lines))
			}
			if !strings.HasPrefix(lines[len(lines)-1], fmt.Sprintf("line %d of", c.last)) {
				t.Errorf("last line %q, want number %d", lines[len(lines)-1], c.last)
			}
			if done, size := s.Progress(); done != size {
				t.Errorf("progress %d of %d", done, size)
			}
		})
	}
}

// A log shorter than HeadLen at first is known by its shorter prefix, and
// later by the longer one.
func TestResumeShortLog(t *testing.T) {
	text := numbered(0, 3)
	first := readSome(t, open(t, write(t, "a", []byte(text))), 3)
	if first.PrefixLen != int64(len(text)) {
		t.Fatalf("prefix of %d bytes, want %d", first.PrefixLen, len(text))
	}
	s := open(t, write(t, "b", []byte(text+numbered(3, 200))))
	if n := s.Resume([]Mark{first}); n != int64(len(text)) {
		t.Fatalf("skipped %d bytes", n)
	}
	second := readSome(t, s, 100)
	if second.PrefixLen != HeadLen {
		t.Errorf("prefix of %d bytes, want %d", second.PrefixLen, HeadLen)
	}
	s = open(t, write(t, "c", []byte(text+numbered(3, 200))))
	if n := s.Resume([]Mark{first, second}); n != second.Offset {
		t.Errorf("skipped %d bytes, want %d", n, second.Offset)
	}
}

func TestPartialLineIsReadAgain(t *testing.T) {
	s := open(t, write(t, "a", []byte("one\ntwo\nthr")))
	if lines, _ := all(s); len(lines) != 3 {
		t.Fatalf("%d lines", len(lines))
	}
	m, ok := s.Mark(true)
	if !ok || m.Offset != 8 {
		t.Fatalf("offset %d, want 8", m.Offset)
	}
	s = open(t, write(t, "b", []byte("one\ntwo\nthree\n")))
	s.Resume([]Mark{m})
	if lines, _ := all(s); fmt.Sprint(lines) != "[three]" {
		t.Errorf("lines %q, want the third whole", lines)
	}
}

// NULs at the end may be space that a writer has reserved.
func TestMarkStaysBeforeNULs(t *testing.T) {
	s := open(t, write(t, "a", []byte("one\n\x00\x00\x00\x00")))
	if lines, _ := all(s); len(lines) != 1 {
		t.Fatalf("%d lines", len(lines))
	}
	if m, _ := s.Mark(true); m.Offset != 4 {
		t.Errorf("offset %d, want 4", m.Offset)
	}
}

// A copy of the beginning of a log that was read further keeps that mark.
func TestShorterCopyKeepsTheMark(t *testing.T) {
	text := numbered(0, 1000)
	m := readSome(t, open(t, write(t, "a", []byte(text))), 1000)
	for _, content := range [][]byte{[]byte(text[:30000]), zip(t, text[:30000])} {
		s := open(t, write(t, "b", content))
		s.Resume([]Mark{m})
		if lines, err := all(s); len(lines) != 0 || err != nil {
			t.Errorf("%d lines, %v", len(lines), err)
		}
		if got, _ := s.Mark(true); got != m {
			t.Errorf("mark at %d, want %d", got.Offset, m.Offset)
		}
	}
}

func TestStandardInputFromTheMiddleOfAFile(t *testing.T) {
	text := numbered(0, 3000)
	f, err := os.Open(write(t, "a", []byte("before\n"+text)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(7, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	m := readSome(t, open(t, write(t, "b", []byte(text))), 2000)
	s, err := Open("-", f)
	if err != nil {
		t.Fatal(err)
	}
	s.Resume([]Mark{m})
	lines, err := all(s)
	if err != nil || len(lines) != 1000 || !strings.HasPrefix(lines[0], "line 2000 of") {
		t.Errorf("%v, %d lines, first %.40q", err, len(lines), lines)
	}
}

// What was read of a broken archive is not read again, and the error stays.
func TestResumeInABrokenArchive(t *testing.T) {
	path := write(t, "a.gz", zip(t, numbered(0, 5000))[:5000])
	s := open(t, path)
	lines, err := all(s)
	if err == nil || len(lines) == 0 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	m, _ := s.Mark(true)
	s = open(t, path)
	if n := s.Resume([]Mark{m}); n != m.Offset {
		t.Errorf("skipped %d bytes, want %d", n, m.Offset)
	}
	if again, err := all(s); len(again) != 0 || err == nil {
		t.Errorf("%d lines, %v", len(again), err)
	}
}
