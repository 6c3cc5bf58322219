package logsource

import (
	"io"
	"strings"
	"testing"
)

// chunks gives out a few bytes at a time.
type chunks struct {
	b    []byte
	size int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.size)], c.b)
	c.b = c.b[n:]
	return n, nil
}

// plainLines is what a source should make of a plain log, said simply.
func plainLines(content string) []string {
	content = strings.TrimLeft(content, "\x00")
	content = strings.TrimPrefix(content, "\xef\xbb\xbf")
	lines := strings.Split(content, "\n")
	if last := len(lines) - 1; strings.Trim(lines[last], "\x00") == "" {
		lines = lines[:last]
	}
	for i, l := range lines {
		l = strings.TrimSuffix(strings.TrimLeft(l, "\x00"), "\r")
		lines[i] = l[:min(len(l), MaxLine)]
	}
	return lines
}

// Whatever the content, and however it comes in, its lines come out; and from
// any mark the rest of them.
func FuzzLines(f *testing.F) {
	// Long lines have a test of their own: here they would only be slow.
	f.Add([]byte("a\nb\r\n\x00\x00c"), 1, 1)
	f.Add([]byte("\x00\xef\xbb\xbfa\n"), 3, 0)
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"), 100, 1)
	f.Add([]byte("\x28\xb5\x2f\xfd\x04\x00"), 100, 1)
	f.Fuzz(func(t *testing.T, content []byte, size, stop int) {
		if size <= 0 {
			size = 1
		}
		s, err := Open("-", &chunks{content, size})
		if err != nil {
			return
		}
		defer s.Close()
		var marks []Mark
		lines := []string{}
		for {
			l, err := s.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
			lines = append(lines, string(l))
			m, _ := s.Mark(true)
			marks = append(marks, m)
		}
		if s.pack == "" {
			want := plainLines(string(content))
			if strings.Join(lines, "\n") != strings.Join(want, "\n") || len(lines) != len(want) {
				t.Fatalf("lines %.300q, want %.300q", lines, want)
			}
		}
		if stop < 0 || stop >= len(marks) || marks[stop].Offset == 0 {
			return
		}
		again, err := Open("-", &chunks{content, size})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		again.Resume([]Mark{marks[stop]})
		rest, err := all(again)
		from := stop + 1
		if s.Partial() && from == len(lines) {
			from-- // the last line without newline comes again
		}
		if err != nil || strings.Join(rest, "\n") != strings.Join(lines[from:], "\n") {
			t.Fatalf("%v: after line %d came %.300q, want %.300q", err, stop, rest, lines[from:])
		}
	})
}
