package maillog

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// labLines are real lines of a Postfix, Amavis, Postfix chain.
func labLines(tb testing.TB) [][]byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "lab.log"))
	if err != nil {
		tb.Fatal(err)
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
}

func TestLabLinesAreAllKnown(t *testing.T) {
	p := NewParser(Options{Location: time.UTC})
	var ev Event
	for _, l := range labLines(t) {
		if c := p.Parse(l, &ev); c < Noise {
			t.Errorf("class %d, shape %q: %s", c, p.Shape(l, &ev), l)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	p := NewParser(Options{Location: time.UTC})
	lines := labLines(t)
	var ev Event
	n := testing.AllocsPerRun(3, func() {
		for _, l := range lines {
			p.Parse(l, &ev)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations in %d lines, want 0", n, len(lines))
	}
}

func BenchmarkParse(b *testing.B) {
	p := NewParser(Options{Location: time.UTC})
	lines := labLines(b)
	size := 0
	for _, l := range lines {
		size += len(l) + 1
	}
	var ev Event
	b.ReportAllocs()
	b.SetBytes(int64(size))
	for b.Loop() {
		for _, l := range lines {
			p.Parse(l, &ev)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(lines)), "ns/line")
}
