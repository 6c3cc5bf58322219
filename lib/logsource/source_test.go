package logsource

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// write makes a file of the test's own.
func write(tb testing.TB, name string, content []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func open(tb testing.TB, path string) *Source {
	tb.Helper()
	s, err := Open(path, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// all reads a source to its end.
func all(s *Source) (lines []string, err error) {
	for {
		l, err := s.Next()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		lines = append(lines, string(l))
	}
}

func zip(tb testing.TB, content string) []byte {
	tb.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, content); err != nil {
		tb.Fatal(err)
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func zst(tb testing.TB, content string) []byte {
	tb.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return e.EncodeAll([]byte(content), nil)
}

func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "line %d of a log that is long enough to fill more than one buffer\n", i)
	}
	return b.String()
}

func TestLines(t *testing.T) {
	many := numbered(0, 20000)
	for _, c := range []struct {
		name    string
		content []byte
		want    []string
		partial bool
	}{
		{"empty", nil, nil, false},
		{"one", []byte("a\n"), []string{"a"}, false},
		{"no newline at the end", []byte("a\nb"), []string{"a", "b"}, true},
		{"only that", []byte("b"), []string{"b"}, true},
		{"empty lines", []byte("\n\na\n\n"), []string{"", "", "a", ""}, false},
		{"crlf", []byte("a\r\nb\r\n"), []string{"a", "b"}, false},
		{"a lone cr stays", []byte("a\rb\n"), []string{"a\rb"}, false},
		{"byte order mark", []byte("\xef\xbb\xbfa\n"), []string{"a"}, false},
		{"NULs before the log", []byte("\x00\x00\x00a\nb\n"), []string{"a", "b"}, false},
		{"NULs before a line", []byte("a\n\x00\x00b\n"), []string{"a", "b"}, false},
		{"NULs in a line", []byte("a\x00b\n"), []string{"a\x00b"}, false},
		{"NULs at the end", []byte("a\n\x00\x00"), []string{"a"}, false},
		{"nothing but NULs", make([]byte, 100000), nil, false},
		{"a hole", append(append([]byte("a\n"), make([]byte, 2<<20)...), "b\n"...), []string{"a", "b"}, false},
		{"more than a buffer", []byte(many), strings.Split(strings.TrimSuffix(many, "\n"), "\n"), false},
		{"gzip", zip(t, "a\nb\n"), []string{"a", "b"}, false},
		{"empty gzip", zip(t, ""), nil, false},
		{"gzip members", append(zip(t, "a\nb"), zip(t, "c\nd\n")...), []string{"a", "bc", "d"}, false},
		{"gzip padded with NULs", append(zip(t, "a\n"), 0, 0, 0), []string{"a"}, false},
		{"zstd", zst(t, "a\nb\n"), []string{"a", "b"}, false},
		{"zstd frames", append(zst(t, "a\nb"), zst(t, "c\n")...), []string{"a", "bc"}, false},
		{"zstd after a skippable frame", append([]byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x"), zst(t, "a\n")...), []string{"a"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, write(t, "log", c.content))
			got, err := all(s)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) || len(got) != len(c.want) {
				t.Errorf("%d lines %.200q, want %d %.200q", len(got), got, len(c.want), c.want)
			}
			if s.Partial() != c.partial {
				t.Errorf("partial %v, want %v", s.Partial(), c.partial)
			}
			if done, size := s.Progress(); done != size || size != int64(len(c.content)) {
				t.Errorf("progress %d of %d bytes, want all of %d", done, size, len(c.content))
			}
			slow, err := Open("-", iotest.OneByteReader(bytes.NewReader(c.content)))
			if err != nil {
				t.Fatal(err)
			}
			again, err := all(slow)
			if err != nil || fmt.Sprint(again) != fmt.Sprint(got) {
				t.Errorf("byte by byte: %v, %.200q, want %.200q", err, again, got)
			}
		})
	}
}

func TestLongLinesAreCut(t *testing.T) {
	for _, n := range []int{MaxLine - 1, MaxLine, MaxLine + 1, MaxLine + 2, 2 * MaxLine, 4*MaxLine - 1, 4 * MaxLine, 1 << 20, 3 << 20} {
		for _, lead := range []int{0, 1, 9000, 100_000} {
			before := strings.Repeat(strings.Repeat("x", 99)+"\n", lead/100)
			content := before + strings.Repeat("y", n) + "\nnext\n"
			s := open(t, write(t, "log", []byte(content)))
			lines, err := all(s)
			if err != nil {
				t.Fatal(err)
			}
			if len(lines) != lead/100+2 {
				t.Fatalf("%d bytes after %d: %d lines", n, lead, len(lines))
			}
			long, next := lines[len(lines)-2], lines[len(lines)-1]
			if len(long) != min(n, MaxLine) || strings.Trim(long, "y") != "" || next != "next" {
				t.Errorf("%d bytes after %d: %d bytes, then %.20q", n, lead, len(long), next)
			}
			if want := int64(0); n > MaxLine {
				want = 1
				if s.Cut() != want {
					t.Errorf("%d bytes: cut %d, want %d", n, s.Cut(), want)
				}
			}
			if m, _ := s.Mark(true); m.Offset != int64(len(content)) {
				t.Errorf("%d bytes after %d: offset %d, want %d", n, lead, m.Offset, len(content))
			}
		}
	}
}

func TestLongLastLineKeepsThePositionBeforeIt(t *testing.T) {
	s := open(t, write(t, "log", []byte("a\n"+strings.Repeat("y", 1<<20))))
	lines, err := all(s)
	if err != nil || len(lines) != 2 || len(lines[1]) != MaxLine {
		t.Fatalf("%v, %d lines", err, len(lines))
	}
	if m, _ := s.Mark(true); m.Offset != 2 || !s.Partial() {
		t.Errorf("offset %d, want 2; partial %v", m.Offset, s.Partial())
	}
}

func TestNextAllocatesNothing(t *testing.T) {
	s := open(t, write(t, "log", []byte(numbered(0, 60000))))
	for range 10000 { // until the buffer has its size
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(40000, func() {
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a line, want 0", n)
	}
}

func TestBrokenArchives(t *testing.T) {
	text := numbered(0, 5000)
	whole := zip(t, text)
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-6] ^= 1 // in the checksum
	for _, c := range []struct {
		name    string
		content []byte
		says    string
		some    bool
	}{
		{"cut gzip", whole[:len(whole)*2/3], "gzip data is cut off after", true},
		{"cut gzip trailer", whole[:len(whole)-3], "gzip data is cut off after", true},
		{"flipped gzip", flipped, "gzip data is damaged after", true},
		{"gzip and garbage", append(bytes.Clone(whole), "garbage"...), "no gzip data", true},
		{"gzip header only", whole[:5], "gzip data is cut off after 0 lines", false},
		{"cut zstd", zst(t, text)[:300], "zstd data is cut off after", false},
		{"bzip2", []byte("BZh91AY&SY"), "bzip2 -dc", false},
		{"xz", []byte("\xfd7zXZ\x00\x00\x00"), "xz -dc", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, "log.gz", c.content)
			var lines []string
			s, err := Open(path, nil)
			if err == nil {
				lines, err = all(s)
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("error %v, want %q of %s", err, c.says, path)
			}
			if got := sysexits.Status(err); got != sysexits.Data {
				t.Errorf("status %d, want %d", got, sysexits.Data)
			}
			if (len(lines) > 0) != c.some {
				t.Errorf("%d lines", len(lines))
			}
			for i, l := range lines {
				if !strings.HasPrefix(l, fmt.Sprintf("line %d of", i)) || !strings.HasSuffix(l, "buffer") {
					t.Fatalf("line %d is %q", i, l)
				}
			}
		})
	}
}

func TestWhatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(filepath.Join(dir, "none"), nil)
	if sysexits.Status(err) != sysexits.IO || !strings.HasSuffix(err.Error(), "/none: no such file or directory") {
		t.Errorf("missing: %v", err)
	}
	_, err = Open(dir, nil)
	if sysexits.Status(err) != sysexits.Data || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: %v", err)
	}
	path := write(t, "secret", []byte("a\n"))
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		t.Log("not tried without permission: root may read everything")
		return
	}
	if _, err = Open(path, nil); sysexits.Status(err) != sysexits.NoPerm {
		t.Errorf("without permission: %v", err)
	}
}

func TestReadingFails(t *testing.T) {
	boom := errors.New("boom")
	s, err := Open("-", io.MultiReader(strings.NewReader(numbered(0, 1000)), iotest.ErrReader(boom)))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := all(s)
	if len(lines) != 1000 || !errors.Is(err, boom) || sysexits.Status(err) != sysexits.IO {
		t.Errorf("%d lines, error %v", len(lines), err)
	}
}

func TestType(t *testing.T) {
	tar := append(make([]byte, 257), "ustar\x0000"...)
	tar[0] = 'x'
	for content, want := range map[string]string{
		"\xff\xd8\xff\xe0\x00\x10JFIF": "JPEG image",
		"SQLite format 3\x00more":      "SQLite database",
		string(tar):                    "tar archive",
		"ab\x00c":                      "binary data",
		"Nov 23 17:36:40 mx1 a: b\n":   "",
		"":                             "",
	} {
		s := open(t, write(t, "x", []byte(content)))
		if got := s.Type(); got != want {
			t.Errorf("%.20q is %q, want %q", content, got, want)
		}
	}
}
