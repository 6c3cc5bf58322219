package logsource

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
)

// number reads the time that the tests' lines begin with.
func number(_ int, line []byte) (int64, bool) {
	first, _, _ := strings.Cut(string(line), " ")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, err == nil
}

func merged(tb testing.TB, m *Merger) []string {
	tb.Helper()
	var got []string
	for {
		slot, line, err := m.Next()
		if err == io.EOF {
			return got
		}
		if err != nil {
			tb.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%c%s", 'a'+slot, line))
	}
}

func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  string
	}{
		{"none", nil, ""},
		{"one", []string{"3\n1\n2\n"}, "a3 a1 a2"},
		{"two", []string{"1\n4\n5\n", "2\n3\n6\n"}, "a1 b2 b3 a4 a5 b6"},
		{"ties by argument", []string{"1\n2\n", "1\n2\n3\n", "1\n9\n"}, "a1 b1 a2 a3 b9"},
		{"ties of different logs", []string{"1 x\n2\n", "1 y\n2\n"}, "a1 x b1 y a2 b2"},
		{"no time goes with the line before", []string{"1\nx\ny\n4\n", "2\n3\n"}, "a1 ax ay b2 b3 a4"},
		{"no time at first", []string{"2\n", "x\n1\n"}, "bx b1 a2"},
		{"no reordering within", []string{"1\n9\n2\n3\n", "4\n10\n"}, "a1 b4 a9 a2 a3 b10"},
		{"empty ones", []string{"", "1\n", ""}, "b1"},
		{"the last without newline", []string{"1\n5", "2\n6"}, "a1 b2 a5 b6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sources []*Source
			for i, f := range c.files {
				sources = append(sources, open(t, write(t, fmt.Sprint("f", i), []byte(f))))
			}
			if got := strings.Join(merged(t, NewMerger(sources, number)), " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestMergeManySources(t *testing.T) {
	const n, each = 37, 200
	var sources []*Source
	for i := range n {
		var b strings.Builder
		for j := range each {
			fmt.Fprintln(&b, j*n+(i*7)%n, "of", i)
		}
		sources = append(sources, open(t, write(t, fmt.Sprint(i), []byte(b.String()))))
	}
	m := NewMerger(sources, number)
	for want := range n * each {
		_, line, err := m.Next()
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := number(0, line); got != int64(want) {
			t.Fatalf("line %q, want time %d", line, want)
		}
	}
}

// Marks count the line given out last and no line that only waits.
func TestMergeMarks(t *testing.T) {
	a := open(t, write(t, "a", []byte("1\n4\n5\n")))
	b := open(t, write(t, "b", []byte("2\n3\n6")))
	m := NewMerger([]*Source{a, b}, number)
	want := []struct{ a, b int64 }{{2, 0}, {2, 2}, {2, 4}, {4, 4}, {6, 4}, {6, 4}}
	for i, w := range want {
		if _, _, err := m.Next(); err != nil {
			t.Fatal(err)
		}
		ma, _ := m.Mark(0)
		mb, ok := m.Mark(1)
		if ma.Offset != w.a || mb.Offset != w.b || ok != (w.b > 0) {
			t.Errorf("after line %d: %d and %d (%v), want %d and %d", i+1, ma.Offset, mb.Offset, ok, w.a, w.b)
		}
	}
}

// The same log twice is read once, and to the end of the longer copy.
func TestMergeCopies(t *testing.T) {
	text, rest := numbered(0, 1000), numbered(1000, 1500)
	for _, c := range []struct {
		name  string
		files [][]byte
		want  int
	}{
		{"the same", [][]byte{[]byte(text), zip(t, text)}, 1000},
		{"the second is longer", [][]byte{zip(t, text), []byte(text + rest)}, 1500},
		{"the first is longer", [][]byte{[]byte(text + rest), zst(t, text)}, 1500},
		{"three", [][]byte{[]byte(text), []byte(text), []byte(text + rest)}, 1500},
		{"the first ends within a line", [][]byte{[]byte(text[:len(text)-10]), []byte(text + rest)}, 1500},
		{"short", [][]byte{[]byte(numbered(0, 2)), []byte(text)}, 1000},
		{"the first is broken", [][]byte{zip(t, text)[:2000], []byte(text)}, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sources []*Source
			for i, f := range c.files {
				sources = append(sources, open(t, write(t, fmt.Sprint(i), f)))
			}
			m := NewMerger(sources, func(int, []byte) (int64, bool) { return 0, false })
			if m.Slots() != 1 {
				t.Fatalf("%d slots, want 1", m.Slots())
			}
			got := merged(t, m)
			if len(got) != c.want {
				t.Fatalf("%d lines, want %d", len(got), c.want)
			}
			for i, l := range got {
				if !strings.HasPrefix(l, fmt.Sprintf("aline %d of", i)) {
					t.Fatalf("line %d is %q", i, l)
				}
			}
		})
	}
}

func TestMergeGoesOnAfterAFailure(t *testing.T) {
	a := open(t, write(t, "a", zip(t, numbered(0, 5000))[:5000]))
	b := open(t, write(t, "b", []byte("x\ny\n")))
	m := NewMerger([]*Source{a, b}, func(int, []byte) (int64, bool) { return 0, false })
	got := merged(t, m)
	if got[len(got)-1] != "by" || m.Err(0) == nil || m.Err(1) != nil {
		t.Errorf("last line %q, errors %v and %v", got[len(got)-1], m.Err(0), m.Err(1))
	}
}

func BenchmarkMergeOne(b *testing.B) {
	const lines = 200_000
	text := numbered(0, lines)
	path := write(b, "log", []byte(text))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		m := NewMerger([]*Source{open(b, path)}, func(int, []byte) (int64, bool) { return 0, true })
		n := 0
		for ; ; n++ {
			if _, _, err := m.Next(); err != nil {
				break
			}
		}
		if n != lines {
			b.Fatal(n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/lines, "ns/line")
}
