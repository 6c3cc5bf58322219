package trace_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// fullShelf has no room: everything stays in memory.
type fullShelf struct{}

func (fullShelf) Put([]byte) (int64, error)         { return 0, errors.New("no space left on device") }
func (fullShelf) Get(int64, []byte) ([]byte, error) { panic("nothing was put there") }
func (fullShelf) Drop(int64)                        { panic("nothing was put there") }

// TestAsideChangesNothing puts everything aside at once, kills the tracer now
// and then, and compares with one that has everything in memory: the rows are
// the same, whatever order the lines came in, and which were lost.
func TestAsideChangesNothing(t *testing.T) {
	total, seeds := 0, 8
	if s := os.Getenv("SEEDS"); s != "" {
		seeds, _ = strconv.Atoi(s)
	}
	for _, lab := range []string{"lab-a", "lab-b"} {
		for seed := range uint64(seeds) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			lines := labLog(t, lab)
			pauses := seed%2 == 0
			switch seed % 4 {
			case 1:
				lines = disturb(lines, seed, 5*time.Second, 0, false)
			case 2:
				lines = disturb(lines, seed, 0, 0.05, false)
			case 3:
				lines = disturb(lines, seed, 5*time.Second, 0.1, true)
			}
			near, far := rowSet{}, rowSet{}
			a, b := trace.New(trace.Options{Shelf: fullShelf{}}, near), trace.New(trace.Options{}, far)
			state := table{}
			p := maillog.NewParser(maillog.Options{Location: time.UTC, Now: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)})
			var ev maillog.Event
			shift := int64(0)
			for i, l := range lines {
				p.Parse(l, &ev)
				if pauses && rnd.IntN(60) == 0 {
					shift += rnd.Int64N([]int64{30e6, 3000e6}[rnd.IntN(2)])
				}
				ev.Time += shift
				a.Add(&ev)
				b.Add(&ev)
				if rnd.IntN(3) > 0 { // what is put aside has its rows put, which may matter for what it is a parent of
					a.Sync()
					b.Sync()
					b.RestNow()
				}
				if b.Stats().Aside > total {
					total = b.Stats().Aside
				}
				if i%16 == 0 {
					if wrong := b.Check(); wrong != "" {
						t.Fatalf("%s, seed %d, line %d: %s", lab, seed, i, wrong)
					}
				}
				if rnd.IntN(40) != 0 {
					continue
				}
				b.Changes(state.save)
				if seed%3 == 0 && rnd.IntN(4) == 0 {
					b = trace.New(trace.Options{}, far)
					state.restore(t, b)
				}
			}
			a.Sync()
			b.Sync()
			if err := b.Err(); err != nil {
				t.Fatal(err)
			}
			if got, want := far.dump(), near.dump(); got != want {
				t.Fatalf("%s, seed %d: %s", lab, seed, difference(got, want))
			}
			if st, far := a.Stats(), b.Stats(); st.Legs != far.Legs || st.Scans != far.Scans {
				t.Errorf("%s, seed %d: open %+v, with all in memory %+v", lab, seed, far, st)
			}
		}
	}
	if total < 20 {
		t.Errorf("at most %d mails were aside: the test shows nothing", total)
	}
}

// waits is a mail that came in and was not delivered.
func (f *feeder) waits(q string, i int) {
	f.line("postfix/smtpd[1]: connect from mail.example.net[192.0.2.25]")
	f.begin(q)
	f.line("postfix/smtpd[1]: disconnect from mail.example.net[192.0.2.25] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5")
	f.line("postfix/smtp[4]: %s: to=<u%d@example.com>, relay=a[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=4.0.0, status=deferred (x)", q, i)
}

// What is put aside keeps to the bounds: too many, and the oldest go first;
// too old, and all go; each becomes a row that says it is incomplete.
func TestAsideHasBounds(t *testing.T) {
	rows := rowSet{}
	f := newFeeder(trace.Options{MaxLegs: 100, MaxActive: 10}, rows)
	for i := range 150 {
		f.now = f.now.Add(time.Minute)
		q := fmt.Sprintf("%010X", i+1<<24)
		f.waits(q, i)
		if st := f.tr.Stats(); st.Legs > 100 || st.Legs-st.AsideLegs > 12 {
			t.Fatalf("after %d mails: %+v", i+1, st)
		}
	}
	st := f.tr.Stats()
	if st.Aside < 88 || st.Evicted.Mails != 50 || st.Legs != 100 {
		t.Errorf("%+v", st)
	}
	f.tr.Sync()
	final := 0
	for _, r := range rows {
		var i int
		if _, err := fmt.Sscanf(r.Rcpt, "u%d@", &i); err != nil {
			t.Fatal(err)
		}
		if (r.TSFinal != 0) != (i < 50) || r.Outcome != flat.Deferred || (r.TSFinal != 0 && r.Complete) {
			t.Errorf("mail %d: outcome %s, complete %v, final %d", i, r.Outcome, r.Complete, r.TSFinal)
		}
		if r.TSFinal != 0 {
			final++
		}
	}
	if len(rows) != 150 || final != 50 {
		t.Errorf("%d rows, %d of them final", len(rows), final)
	}
	if st := f.tr.Stats(); st.Outcomes[slices.Index(flat.Outcomes, flat.Deferred)] != st.Rows || st.Rows < 150 {
		t.Errorf("rows by outcome: %+v", st)
	}
	if us := f.tr.Oldest(); us != f.now.Add(-99*time.Minute).UnixMicro() {
		t.Errorf("the oldest mail is of %v", time.UnixMicro(us).UTC())
	}
	f.wait(5 * 24 * time.Hour)
	if st := f.tr.Stats(); st.Legs != 100 || st.Expired.Mails != 0 {
		t.Errorf("after five days: %+v", st)
	}
	f.wait(26 * time.Hour)
	if st := f.tr.Stats(); st.Legs != 0 || st.Aside != 0 || st.Expired.Mails != 100 || f.tr.Oldest() != 0 {
		t.Errorf("after six days: %+v", st)
	}
	for _, r := range rows {
		if r.TSFinal == 0 || r.Complete {
			t.Errorf("a mail that nobody has heard of for six days: complete %v, final %d", r.Complete, r.TSFinal)
		}
	}
}

// badShelf is a shelf whose disk is full or broken now and then.
type badShelf struct {
	trace.Shelf
	full, broken bool
}

func (b *badShelf) Put(data []byte) (int64, error) {
	if b.full {
		return 0, errors.New("no space left on device")
	}
	return b.Shelf.Put(data)
}

func (b *badShelf) Get(at int64, buf []byte) ([]byte, error) {
	if b.broken {
		return nil, errors.New("input/output error")
	}
	return b.Shelf.Get(at, buf)
}

func TestShelfWithoutRoom(t *testing.T) {
	rows, shelf := rowSet{}, &badShelf{Shelf: trace.NewMemShelf()}
	f := newFeeder(trace.Options{Shelf: shelf, MaxAtHand: 40}, rows)
	open := func(from, to int) {
		for i := from; i < to; i++ {
			q := fmt.Sprintf("%010X", i+1<<24)
			f.waits(q, i)
		}
		f.wait(15 * time.Minute)
	}
	open(0, 20)
	if st := f.tr.Stats(); st.Aside != 20 || st.ShelfErr != nil {
		t.Fatalf("%+v", st)
	}
	shelf.full = true
	open(20, 40)
	if st := f.tr.Stats(); st.Aside != 20 || st.Legs != 40 || st.ShelfErrors == 0 || st.ShelfErr == nil {
		t.Fatalf("with the disk full: %+v", st)
	}
	f.oneEvent(3) // takes one back, and there is no room for it any more
	f.wait(15 * time.Minute)
	if st := f.tr.Stats(); st.Aside != 19 || st.Legs != 40 {
		t.Fatalf("with one taken back: %+v", st)
	}
	open(40, 70) // more than may be at hand: the oldest of these go
	if st := f.tr.Stats(); st.Aside != 19 || st.Legs-st.AsideLegs != 40 || st.Evicted.Mails != 11 {
		t.Fatalf("with too many: %+v", st)
	}
	shelf.full = false
	f.wait(2 * time.Minute)
	if st := f.tr.Stats(); st.Aside != 59 || st.ShelfErr != nil {
		t.Fatalf("with room again: %+v", st)
	}
	f.tr.Sync()
	if len(rows) != 71 { // the line that took one back named another recipient
		t.Errorf("%d rows, want 71", len(rows))
	}
}

// What cannot be read back is in the saved state: the tracer says so and does
// nothing that could be committed.
func TestShelfThatCannotBeRead(t *testing.T) {
	rows, shelf, state := rowSet{}, &badShelf{Shelf: trace.NewMemShelf()}, table{}
	f := newFeeder(trace.Options{Shelf: shelf}, rows)
	f.chains(10)
	f.wait(15 * time.Minute)
	f.tr.Sync()
	f.tr.Changes(state.save)
	before, events := rows.dump(), f.tr.Stats().Events
	shelf.broken = true
	f.deferred(3)
	if err := f.tr.Err(); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Fatalf("error %v", err)
	}
	f.chains(5)
	f.tr.Idle(time.Minute)
	f.tr.Sync()
	f.tr.Changes(func(key, data []byte) { t.Errorf("%q is saved", key) })
	if rows.dump() != before || f.tr.Stats().Events != events+1 {
		t.Error("it goes on after the error")
	}
	f.tr = trace.New(trace.Options{}, rows)
	state.restore(t, f.tr)
	f.deferred(3)
	f.tr.Sync()
	for _, r := range rows {
		if r.Rcpt == "recipient3@example3.com" && r.Attempts == 2 {
			return
		}
	}
	t.Error("the mail's next attempt is missing after the restart")
}
