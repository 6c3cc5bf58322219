package main

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// sink counts rows by outcome.
type sink struct {
	outcomes   map[string]int
	incomplete int
	ids        map[flat.ID]bool
}

func (s *sink) Put(r *flat.Row) {
	if s.ids[r.ID] {
		return
	}
	s.ids[r.ID] = true
	s.outcomes[r.Outcome]++
	if !r.Complete {
		s.incomplete++
	}
}

func (s *sink) Delete(flat.ID) {}

func traced(t *testing.T, log []byte) *sink {
	t.Helper()
	s := &sink{outcomes: map[string]int{}, ids: map[flat.ID]bool{}}
	p := maillog.NewParser(maillog.Options{Location: time.UTC, Now: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)})
	tr := trace.New(trace.Options{}, s)
	var ev maillog.Event
	for l := range bytes.Lines(log) {
		if c := p.Parse(l, &ev); c < maillog.Noise {
			t.Errorf("not understood: %s", l)
		}
		tr.Add(&ev)
	}
	tr.Sync()
	return s
}

// A log of n copies has n times the mails of one, and no id or client twice.
func TestCopiesJoinAsTheOriginal(t *testing.T) {
	tpl, err := readTemplate(filepath.Join("..", "lab", "testdata", "lab-a.log"))
	if err != nil {
		t.Fatal(err)
	}
	const copies = 5
	for _, bsd := range []bool{false, true} {
		var one, many bytes.Buffer
		if err := tpl.write(&one, len(tpl.lines), bsd); err != nil {
			t.Fatal(err)
		}
		if err := tpl.write(&many, copies*len(tpl.lines), bsd); err != nil {
			t.Fatal(err)
		}
		a, b := traced(t, one.Bytes()), traced(t, many.Bytes())
		if a.outcomes["sent"] < 200 {
			t.Errorf("bsd %v: outcomes %v", bsd, a.outcomes)
		}
		for outcome, n := range a.outcomes {
			if b.outcomes[outcome] != copies*n {
				t.Errorf("bsd %v: %d rows are %s, want %d times %d", bsd, b.outcomes[outcome], outcome, copies, n)
			}
		}
		if !bsd && b.incomplete != copies*a.incomplete {
			t.Errorf("%d rows are incomplete, want %d times %d", b.incomplete, copies, a.incomplete)
		}
	}
}

func TestCopiesHaveNamesOfTheirOwn(t *testing.T) {
	tpl, err := readTemplate(filepath.Join("..", "lab", "testdata", "lab-a.log"))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if err := tpl.write(&log, 3*len(tpl.lines), false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
	names := regexp.MustCompile(`\b[0-9A-Za-z]{10}z[0-9A-Za-z]{4,5}\b|mail_id: \S+|\w+-[0-9]@|^\S+ \S+`)
	seen := map[string]int{}
	for i, l := range lines {
		for _, name := range names.FindAllString(l, -1) {
			if first, ok := seen[name]; ok && first/len(tpl.lines) != i/len(tpl.lines) {
				t.Fatalf("%s is in copies %d and %d: %s", name, first/len(tpl.lines), i/len(tpl.lines), l)
			}
			seen[name] = i
		}
	}
	if len(seen) < 3000 {
		t.Errorf("only %d names seen", len(seen))
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	const result = "BenchmarkX/y-2  10  12345 ns/op  3 allocs/op"
	if metric(result, "ns/op") != "12345" || metric(result, "allocs/op") != "3" || metric(result, "MB/s") != "" {
		t.Error("metric reads a benchmark's line wrong")
	}
}
