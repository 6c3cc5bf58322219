package copylog

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

// sink keeps what is last said of each row.
type sink struct {
	rows       map[flat.ID]flat.Row
	outcomes   map[string]int
	incomplete int
}

func (s *sink) Put(r *flat.Row)   { s.rows[r.ID] = flat.Row{Outcome: r.Outcome, Complete: r.Complete} }
func (s *sink) Delete(id flat.ID) { delete(s.rows, id) }

func (s *sink) count() {
	for _, r := range s.rows {
		s.outcomes[r.Outcome]++
		if !r.Complete {
			s.incomplete++
		}
	}
}

func traced(t *testing.T, log []byte) *sink {
	t.Helper()
	s := &sink{rows: map[flat.ID]flat.Row{}, outcomes: map[string]int{}}
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
	s.count()
	return s
}

// A log of n copies has n times the mails of one, and no id or client twice.
func TestCopiesJoinAsTheOriginal(t *testing.T) {
	tpl, err := Read(filepath.Join("..", "lab", "testdata", "lab-a.log"))
	if err != nil {
		t.Fatal(err)
	}
	const copies = 5
	for _, bsd := range []bool{false, true} {
		var one, many bytes.Buffer
		if err := tpl.Write(&one, len(tpl.lines), bsd); err != nil {
			t.Fatal(err)
		}
		if err := tpl.Write(&many, copies*len(tpl.lines), bsd); err != nil {
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
	tpl, err := Read(filepath.Join("..", "lab", "testdata", "lab-a.log"))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if err := tpl.Write(&log, 3*len(tpl.lines), false); err != nil {
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

// A day has each copy whole, its times never go back, and the afternoon is
// busier than the night.
func TestDay(t *testing.T) {
	tpl, err := Read(filepath.Join("..", "lab", "testdata", "lab-a.log"))
	if err != nil {
		t.Fatal(err)
	}
	const copies = 40
	midnight := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	var one, day bytes.Buffer
	if err := tpl.Write(&one, tpl.Lines(), false); err != nil {
		t.Fatal(err)
	}
	d := tpl.NewDay(midnight, copies)
	var last string
	perHour := map[int]int{}
	for l := d.Next(); l != nil; l = d.Next() {
		day.Write(l)
		stamp := string(l[:len("2006-01-02T15:04:05.000000")])
		if stamp < last {
			t.Fatalf("%s comes behind %s", stamp, last)
		}
		last = stamp
		if at, err := time.Parse("2006-01-02T15:04:05.000000", stamp); err != nil {
			t.Fatal(err)
		} else if at.Day() == midnight.Day() {
			perHour[at.Hour()]++
		}
	}
	want := copies * (tpl.Lines() + PerCopy*MailLines)
	if n := bytes.Count(day.Bytes(), []byte("\n")); n != want {
		t.Errorf("%d lines, want %d", n, want)
	}
	night, noon := perHour[3]+perHour[4]+perHour[5], perHour[15]+perHour[16]+perHour[17]
	if night == 0 || noon < 4*night || noon > 20*night {
		t.Errorf("%d lines at night, %d in the afternoon", night, noon)
	}
	a, b := traced(t, one.Bytes()), traced(t, day.Bytes())
	a.outcomes["sent"] += PerCopy
	for outcome, n := range a.outcomes {
		if b.outcomes[outcome] != copies*n {
			t.Errorf("%d rows are %s, want %d times %d", b.outcomes[outcome], outcome, copies, n)
		}
	}
	if b.incomplete != copies*a.incomplete {
		t.Errorf("%d rows are incomplete, want %d times %d", b.incomplete, copies, a.incomplete)
	}
	t.Logf("a copy takes %v and has %v, %d incomplete; at most %d mails wait", tpl.Span(), a.outcomes, a.incomplete, d.Most())
}
