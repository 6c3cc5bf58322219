package logpipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// lab is a log of a real Postfix, Amavis, Postfix chain.
func lab(tb testing.TB) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "tests", "lab", "testdata", "lab-a.log"))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func options() Options {
	return Options{Parse: maillog.Options{
		Location: time.UTC, Now: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC),
	}}
}

// source is a log held in memory.
func source(tb testing.TB, content []byte) *logsource.Source {
	tb.Helper()
	s, err := logsource.Open("-", bytes.NewReader(content))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// replayAll reads logs into db and expects no error.
func replayAll(tb testing.TB, opt Options, db Store, logs ...[]byte) *Summary {
	tb.Helper()
	var sources []*logsource.Source
	for _, l := range logs {
		sources = append(sources, source(tb, l))
	}
	sum, err := Replay(tb.Context(), opt, sources, db)
	if err != nil {
		tb.Fatal(err)
	}
	if sum.Lines != sum.Used+sum.Noise+sum.Unparsed {
		tb.Errorf("%d lines are not %d used + %d noise + %d unparsed", sum.Lines, sum.Used, sum.Noise, sum.Unparsed)
	}
	return sum
}

// undisturbed is what one run over a log leaves.
func undisturbed(tb testing.TB, log []byte) string {
	tb.Helper()
	db := newMemory()
	replayAll(tb, options(), db, log)
	return db.dump()
}

func TestReplay(t *testing.T) {
	log := lab(t)
	db := newMemory()
	sum := replayAll(t, options(), db, log)
	if n := int64(bytes.Count(log, []byte("\n"))); sum.Lines != n {
		t.Errorf("%d lines, want %d", sum.Lines, n)
	}
	if len(db.rows) < 400 || sum.Rows < int64(len(db.rows)) {
		t.Errorf("%d rows in the store, summary says %d", len(db.rows), sum.Rows)
	}
	if db.finishes != 1 || len(db.positions) != 1 {
		t.Errorf("finished %d times, %d positions", db.finishes, len(db.positions))
	}
	dry := replayAll(t, options(), nil, log)
	dry.Seconds, dry.LinesPerSecond = sum.Seconds, sum.LinesPerSecond
	if fmt.Sprint(dry) != fmt.Sprint(sum) {
		t.Errorf("dry run says %v\nand the other %v", dry, sum)
	}

	before, changed := db.dump(), db.changed
	again := replayAll(t, options(), db, log)
	if again.Lines != 0 || again.SkippedBytes != int64(len(log)) {
		t.Errorf("second run read %d lines and skipped %d bytes", again.Lines, again.SkippedBytes)
	}
	if db.changed != changed || db.dump() != before {
		t.Errorf("second run changed %d rows", db.changed-changed)
	}
}

func TestAgainChangesNothing(t *testing.T) {
	log := lab(t)
	db := newMemory()
	replayAll(t, options(), db, log)
	before, state, positions := db.dump(), fmt.Sprint(db.state), fmt.Sprint(db.positions)
	opt := options()
	opt.Again = true
	if sum := replayAll(t, opt, db, log); sum.Lines == 0 || sum.SkippedBytes != 0 {
		t.Errorf("%d lines read, %d bytes skipped", sum.Lines, sum.SkippedBytes)
	}
	if got := db.dump(); got != before {
		t.Error(difference(got, before))
	}
	if fmt.Sprint(db.state) != state || fmt.Sprint(db.positions) != positions {
		t.Error("state or positions have changed")
	}
}

// A log that grows between runs gives the rows of one run over all of it,
// wherever the end was, also within a line.
func TestGrowingLog(t *testing.T) {
	log := lab(t)
	want := undisturbed(t, log)
	for _, cuts := range [][]int{
		{len(log) / 2},
		{100, 5000, 5050},
		{len(log) - 1},
		{len(log) / 7, len(log) * 2 / 7, len(log) * 3 / 7, len(log) * 4 / 7, len(log) * 5 / 7, len(log) * 6 / 7},
	} {
		db := newMemory()
		for _, n := range cuts {
			replayAll(t, options(), db, log[:n])
		}
		replayAll(t, options(), db, log)
		if got := db.dump(); got != want {
			t.Errorf("cut at %v: %s", cuts, difference(got, want))
		}
	}
}

// Small batches commit open state again and again.
func TestBatchSizeDoesNotMatter(t *testing.T) {
	log := lab(t)
	want := undisturbed(t, log)
	for _, n := range []int{1, 10, 100} {
		db, opt := newMemory(), options()
		opt.CommitRows = n
		replayAll(t, opt, db, log)
		if got := db.dump(); got != want {
			t.Errorf("batches of %d: %s", n, difference(got, want))
		}
		if db.commits < 4 {
			t.Errorf("batches of %d rows: %d commits for %d rows", n, db.commits, len(db.rows))
		}
	}
}

// byServer is a log split into one for each server.
func byServer(tb testing.TB, log []byte) (logs [][]byte) {
	tb.Helper()
	byIdent := map[string][]byte{}
	for l := range bytes.Lines(log) {
		ident, _, _ := bytes.Cut(bytes.Fields(l)[2], []byte("/"))
		ident, _, _ = bytes.Cut(ident, []byte("["))
		byIdent[string(ident)] = append(byIdent[string(ident)], l...)
	}
	if len(byIdent) < 3 {
		tb.Fatalf("%d servers", len(byIdent))
	}
	for _, l := range byIdent {
		logs = append(logs, l)
	}
	return logs
}

// Servers that log to files of their own give the rows of the common log.
func TestLogsOfSeveralServers(t *testing.T) {
	log := lab(t)
	db := newMemory()
	replayAll(t, options(), db, byServer(t, log)...)
	if got, want := db.dump(), undisturbed(t, log); got != want {
		t.Error(difference(got, want))
	}
}

// Whatever commit fails, nothing of it is kept, and the next run completes
// what was begun.
func TestStoreFailures(t *testing.T) {
	log := lab(t)
	want := undisturbed(t, log)
	full := sysexits.Errorf(sysexits.IO, "maillog.db: no space left on device")
	for n := 1; ; n++ {
		db, opt := newMemory(), options()
		opt.CommitRows = 20
		db.failAt, db.fail = n, full
		sum, err := Replay(t.Context(), opt, []*logsource.Source{source(t, log)}, db)
		if err == nil {
			if n < 10 {
				t.Errorf("only %d commits", n-1)
			}
			break
		}
		if !errors.Is(err, full) || sum != nil || db.finishes != 0 || db.commits != n {
			t.Fatalf("commit %d: error %v, summary %v, %d commits", n, err, sum, db.commits)
		}
		db.failAt = 0
		replayAll(t, opt, db, log)
		if got := db.dump(); got != want {
			t.Fatalf("commit %d failed, then: %s", n, difference(got, want))
		}
	}
}

func TestInterrupted(t *testing.T) {
	log := lab(t)
	want := undisturbed(t, log)
	for name, logs := range map[string][][]byte{"one log": {log}, "a log a server": byServer(t, log)} {
		for _, at := range []int{1, 3, 9} {
			ctx, cancel := context.WithCancelCause(t.Context())
			stop := errors.New("interrupted by signal")
			db, opt := newMemory(), options()
			opt.CommitRows = 20
			db.committed = func(n int) {
				if n == at {
					cancel(stop)
				}
			}
			var sources []*logsource.Source
			for _, l := range logs {
				sources = append(sources, source(t, l))
			}
			if _, err := Replay(ctx, opt, sources, db); !errors.Is(err, stop) {
				t.Fatalf("%s: error %v", name, err)
			}
			db.committed = nil
			replayAll(t, opt, db, logs...)
			if got := db.dump(); got != want {
				t.Errorf("%s, interrupted at commit %d: %s", name, at, difference(got, want))
			}
		}
	}
}

// A standard input that says nothing more does not keep a run from ending.
func TestInterruptedWhileReading(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = w.Write(lab(t)) }()
	s, err := logsource.Open("-", r)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Replay(ctx, options(), []*logsource.Source{s}, newMemory()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// A last line without newline is used, and read again by the next run.
func TestLastLineWithoutNewline(t *testing.T) {
	log := lab(t)
	bare := bytes.TrimSuffix(log, []byte("\n"))
	want := undisturbed(t, log)
	db := newMemory()
	if sum := replayAll(t, options(), db, bare); sum.Lines != int64(bytes.Count(log, []byte("\n"))) {
		t.Errorf("%d lines", sum.Lines)
	}
	if got := db.dump(); got != want {
		t.Errorf("without newline: %s", difference(got, want))
	}
	for _, l := range [][]byte{bare, log} {
		if sum := replayAll(t, options(), db, l); sum.Lines != 1 {
			t.Errorf("%d lines in the next run, want the last one", sum.Lines)
		}
		if got := db.dump(); got != want {
			t.Errorf("then: %s", difference(got, want))
		}
	}
}

func TestNotALog(t *testing.T) {
	jpeg := append([]byte("\xff\xd8\xff\xe0\x00\x10JFIF"), bytes.Repeat([]byte("\x00\xffa\n\x80"), 500)...)
	for _, c := range []struct {
		logs [][]byte
		says string
		logN int
	}{
		{[][]byte{jpeg}, "standard input: JPEG image, not a mail log: 0 of 501 lines recognised", 0},
		{[][]byte{[]byte("root:x:0:0\n")}, "standard input: not a mail log: 0 of 1 lines recognised", 0},
		{[][]byte{jpeg, lab(t)}, "standard input: JPEG image, not a mail log: 0 of 501 lines recognised", 1},
		{[][]byte{{}}, "", 1},
		{[][]byte{append([]byte("x\ny\n"), lab(t)...)}, "", 1},
	} {
		var sources []*logsource.Source
		for _, l := range c.logs {
			sources = append(sources, source(t, l))
		}
		db := newMemory()
		sum, err := Replay(t.Context(), options(), sources, db)
		if sum == nil || sum.Logs != c.logN {
			t.Errorf("%q: summary %v", c.says, sum)
		}
		if c.says == "" && err != nil || c.says != "" && (err == nil || err.Error() != c.says || sysexits.Status(err) != sysexits.Data) {
			t.Errorf("error %v, want %s", err, c.says)
		}
		if len(db.positions) > c.logN {
			t.Errorf("%q: %d positions", c.says, len(db.positions))
		}
	}
}

func TestAPanicIsABug(t *testing.T) {
	s := source(t, lab(t))
	opt := options()
	r := &replay{opt: opt}
	if err := r.begin(t.Context(), []*logsource.Source{s}, nil); err != nil {
		t.Fatal(err)
	}
	r.tracer = nil
	if err := r.guarded(t.Context()); sysexits.Status(err) != sysexits.Bug || !strings.Contains(err.Error(), "report it") {
		t.Errorf("error %v", err)
	}
}

func TestShapesAreBounded(t *testing.T) {
	c := newCounters()
	long := bytes.Repeat([]byte("\xff"), 10000)
	for i := range 3 * maxShapes {
		c.addUnparsed(fmt.Sprint("shape ", i), long, true)
		c.addNoise(fmt.Append(nil, "program ", i))
	}
	if len(c.shapes) != maxShapes+1 || len(c.noises) != maxPrograms+1 {
		t.Errorf("%d shapes, %d programs", len(c.shapes), len(c.noises))
	}
	all := c.sorted()
	if all[0].Shape != otherShape || all[0].Count != 2*maxShapes || len(all[0].Sample) > 3*maxSample {
		t.Errorf("first is %.100v", all[0])
	}
	if c.lines() != 6*maxShapes || c.foreign != 3*maxShapes {
		t.Errorf("%d lines, %d foreign", c.lines(), c.foreign)
	}
}

func TestSummaryText(t *testing.T) {
	s := Summary{Lines: 4903, Used: 4700, Noise: 203, Rows: 556, Seconds: 0.1, LinesPerSecond: 49000}
	want := "4903 lines, 4700 used, 203 noise, 0 unparsed, 556 rows, 0.1 s, 49000 lines/s"
	if got := s.Text(); got != want {
		t.Errorf("%s", got)
	}
	s.Unparsed, s.Foreign, s.SkippedBytes = 5, 2, 77
	if got := s.Text(); !strings.Contains(got, "5 unparsed (2 no syslog lines)") || !strings.HasSuffix(got, ", 77 bytes read before") {
		t.Errorf("%s", got)
	}
}
