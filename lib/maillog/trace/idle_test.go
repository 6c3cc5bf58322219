package trace_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// dump is all rows as text, sorted.
func (s rowSet) dump() string {
	all := make([]string, 0, len(s))
	for _, r := range s {
		all = append(all, short(r))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// difference shows the first rows in which two dumps differ.
func difference(got, want string) string {
	var b strings.Builder
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	fmt.Fprintf(&b, "%d rows, want %d\n", len(g), len(w))
	for n, l := range g {
		if _, ok := slices.BinarySearch(w, l); !ok && n < 2000 {
			fmt.Fprintf(&b, "+%s\n", l)
		}
	}
	for _, l := range w {
		if _, ok := slices.BinarySearch(g, l); !ok && b.Len() < 8000 {
			fmt.Fprintf(&b, "-%s\n", l)
		}
	}
	return b.String()
}

// idle tells the tracer twice a second that nothing has come, for d.
func (f *feeder) idle(d time.Duration) {
	for at := time.Duration(0); at <= d; at += 500 * time.Millisecond {
		f.tr.Idle(at)
	}
}

func (f *feeder) sent(qid string) {
	f.line("postfix/smtp[4]: %s: to=<u@example.com>, relay=a[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (250 ok)", qid)
	f.line("postfix/qmgr[3]: %s: removed", qid)
}

func TestRowsBecomeFinalWhenNothingComes(t *testing.T) {
	rows := rowSet{}
	f := newFeeder(trace.Options{}, rows)
	f.line("postfix/smtpd[1]: connect from mail.example.net[192.0.2.25]")
	f.begin("AAAAAAAAAA01")
	f.sent("AAAAAAAAAA01")
	f.line("postfix/smtpd[1]: disconnect from mail.example.net[192.0.2.25] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5")
	f.idle(30 * time.Second)
	if n := f.tr.Stats().Legs; n != 1 {
		t.Fatalf("%d legs are open after half a minute, want 1: late lines may take a while", n)
	}
	f.idle(time.Minute)
	if st := f.tr.Stats(); st.Legs != 0 || st.Sessions != 0 || len(rows) != 1 {
		t.Errorf("after a minute: %+v, %d rows", st, len(rows))
	}
}

// A silence of all logs is no reason to give up what must still come.
func TestSilenceEndsNothingThatMustStillCome(t *testing.T) {
	rows := rowSet{}
	f := newFeeder(trace.Options{}, rows)
	f.line("postfix/smtpd[5]: connect from mail.example.net[192.0.2.25]")
	f.begin("AAAAAAAAAA01") // under way
	f.begin("AAAAAAAAAA02") // the filter's next hop is to come
	f.line("postfix/smtp[4]: AAAAAAAAAA02: to=<u@example.com>, relay=127.0.0.1[127.0.0.1]:10024, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as BBBBBBBBBB01)")
	f.line("postfix/qmgr[3]: AAAAAAAAAA02: removed")
	f.line("amavis[6]: (00006-01) Blocked SPAM {DiscardedInbound,Quarantined}, [192.0.2.25] <a@example.net> -> <v@example.com>, quarantine: q1, Queue-ID: CCCCCCCCCC01, mail_id: x, Hits: 9, size: 1, 5 ms")
	for range 100 { // lines of an hour ago trickle in from somewhere, each after a silence
		f.idle(time.Minute)
		f.host = "behind"
		f.line("postfix/anvil[7]: statistics: max connection rate 1/60s for (smtp:192.0.2.1) at Nov 10 08:00:00")
		f.line("postfix/smtpd[8]: connect from unknown[192.0.2.9]")
		f.host = "mx1"
	}
	f.idle(20 * time.Hour)
	if st := f.tr.Stats(); st.Legs != 2 || st.Scans != 1 || st.Sessions != 3 {
		t.Fatalf("after a silence of a day: %+v, want 2 legs, 1 scan, 3 sessions", st)
	}
	f.now = f.now.Add(3 * time.Second)
	f.line("postfix/smtpd[1]: BBBBBBBBBB01: client=localhost[127.0.0.1]")
	f.line("postfix/cleanup[2]: BBBBBBBBBB01: message-id=<AAAAAAAAAA02@example.net>")
	f.line("postfix/qmgr[3]: BBBBBBBBBB01: from=<a@example.net>, size=1, nrcpt=1 (queue active)")
	f.sent("BBBBBBBBBB01")
	f.now = f.now.Add(35 * time.Second)
	f.line("postfix/smtpd[9]: connect from monitor.example.com[198.51.100.1]")
	f.tr.Sync()
	for _, r := range rows {
		if r.QIDIn == "AAAAAAAAAA02" && r.QIDOut == "BBBBBBBBBB01" && r.Outcome == flat.Sent {
			return
		}
	}
	t.Errorf("the mail through the filter is not whole:\n%s", rows.dump())
}

// The time that passed without lines must not pass again when lines come that
// tell of it: what waits a quarter of an hour waits that long.
func TestNoTimeCountsTwice(t *testing.T) {
	for _, c := range []struct {
		name       string
		wall, line time.Duration // between two lines
	}{
		{"live", 40 * time.Second, 40 * time.Second},
		{"late", 40 * time.Second, time.Second},
		{"catching up", 0, 30 * time.Second},
		{"log clock slow", 60 * time.Second, 50 * time.Second},
	} {
		f := newFeeder(trace.Options{}, rowSet{})
		f.begin("AAAAAAAAAA02")
		f.line("postfix/smtp[4]: AAAAAAAAAA02: to=<u@example.com>, relay=127.0.0.1[127.0.0.1]:10024, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as BBBBBBBBBB01)")
		f.line("postfix/qmgr[3]: AAAAAAAAAA02: removed")
		begun := f.now
		for f.tr.Stats().Legs > 0 && f.now.Sub(begun) < time.Hour {
			f.idle(c.wall)
			f.now = f.now.Add(c.line)
			f.line("postfix/smtpd[9]: connect from monitor.example.com[198.51.100.1]")
			f.line("postfix/smtpd[9]: disconnect from monitor.example.com[198.51.100.1] ehlo=1 quit=1 commands=2")
		}
		if d := f.now.Sub(begun); d < 15*time.Minute || d > 18*time.Minute {
			t.Errorf("%s: the other end of an edge was waited for %v of log time", c.name, d)
		}
	}
}

// A service that follows a log live gives the rows of a replay: nothing comes
// late, but with a delay that lines of one log share, and the log's clock may
// make a step.
func TestLiveIsReplay(t *testing.T) {
	for _, lab := range []string{"lab-a", "lab-b"} {
		lines := labLog(t, lab)
		for seed := range uint64(6) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			pieces := stretch(lines, rnd)
			replay, live := rowSet{}, rowSet{}
			a, b := trace.New(trace.Options{}, replay), trace.New(trace.Options{}, live)
			p := maillog.NewParser(maillog.Options{Location: time.UTC, Now: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)})
			var ev maillog.Event
			last := int64(0)
			for _, pc := range pieces {
				p.Parse(pc.line, &ev)
				ev.Time += pc.shift
				silence := time.Duration(pc.wall-last) * time.Microsecond
				for at := time.Duration(0); at < silence && at < 5*time.Minute; at += 500 * time.Millisecond {
					b.Idle(at)
					if rnd.IntN(50) == 0 {
						b.Sync()
					}
				}
				last = pc.wall
				a.Add(&ev)
				b.Add(&ev)
			}
			a.Sync()
			b.Sync()
			if got, want := live.dump(), replay.dump(); got != want {
				t.Fatalf("%s, seed %d: %s", lab, seed, difference(got, want))
			}
		}
	}
}

type arriving struct {
	line        []byte
	shift, wall int64 // of its time stamp; when it comes, microseconds
}

// stretch puts pauses into a log, and now and then an hour's step of its clock
// that the wall does not make. There are no pauses while the tracer does not
// yet believe such a step: it has no clock then.
func stretch(lines [][]byte, rnd *rand.Rand) (all []arriving) {
	p := maillog.NewParser(maillog.Options{Location: time.UTC, Now: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)})
	var ev maillog.Event
	shift, step, last, wall := int64(0), int64(0), int64(0), int64(0)
	for i, l := range lines {
		p.Parse(l, &ev)
		if i%700 == 699 {
			step += []int64{3700e6, -3700e6}[rnd.IntN(2)]
		}
		passed := max(0, ev.Time-last)
		switch {
		case i > 699 && i%700 < 200 || i%700 == 699:
			passed = min(passed, 100_000)
		case rnd.IntN(40) == 0:
			pause := rnd.Int64N(90e6)
			shift += pause
			passed += pause
		}
		last = max(last, ev.Time)
		wall += passed
		all = append(all, arriving{bytes.Clone(l), shift + step, wall + rnd.Int64N(2e6)})
	}
	for i := range all[1:] {
		all[i+1].wall = max(all[i+1].wall, all[i].wall)
	}
	return all
}
