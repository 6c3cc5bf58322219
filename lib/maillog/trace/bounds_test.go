package trace_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// feeder writes lines of one host at a time of its own.
type feeder struct {
	tr   *trace.Tracer
	p    *maillog.Parser
	now  time.Time
	host string
}

func newFeeder(opt trace.Options, sink trace.Sink) *feeder {
	return &feeder{
		tr: trace.New(opt, sink), p: maillog.NewParser(maillog.Options{Location: time.UTC}),
		now: time.Date(2026, 11, 10, 9, 0, 0, 0, time.UTC), host: "mx1",
	}
}

func (f *feeder) line(format string, args ...any) {
	var ev maillog.Event
	f.p.Parse([]byte(f.now.Format("2006-01-02T15:04:05.000000-07:00")+" "+f.host+" "+fmt.Sprintf(format, args...)), &ev)
	f.tr.Add(&ev)
}

// wait lets log time pass, with a line a minute that means nothing.
func (f *feeder) wait(d time.Duration) {
	for end := f.now.Add(d); f.now.Before(end); {
		f.now = f.now.Add(time.Minute)
		f.line("postfix/smtpd[9]: connect from monitor.example.com[198.51.100.1]")
		f.line("postfix/smtpd[9]: disconnect from monitor.example.com[198.51.100.1] ehlo=1 quit=1 commands=2")
	}
}

func (f *feeder) begin(qid string) {
	f.line("postfix/smtpd[1]: %s: client=mail.example.net[192.0.2.25]", qid)
	f.line("postfix/cleanup[2]: %s: message-id=<%s@example.net>", qid, qid)
	f.line("postfix/qmgr[3]: %s: from=<a@example.net>, size=1, nrcpt=1 (queue active)", qid)
}

func TestEvictedMailsBecomeIncompleteRows(t *testing.T) {
	rows := rowSet{}
	f := newFeeder(trace.Options{MaxLegs: 100}, rows)
	for i := range 1000 {
		f.begin(fmt.Sprintf("%010X", i+1<<24))
		if n := f.tr.Stats().Legs; n > 100 {
			t.Fatalf("%d legs are open, the bound is 100", n)
		}
	}
	if n := f.tr.Stats().Evicted.Mails; n != 900 {
		t.Errorf("%d evicted, want 900", n)
	}
	if len(rows) != 900 {
		t.Errorf("%d rows, want 900", len(rows))
	}
	for _, r := range rows {
		if r.Complete || r.Outcome != flat.Unknown || r.ClientIP != "192.0.2.25" || r.TSFinal == 0 {
			t.Fatalf("an evicted mail: %+v", r)
		}
	}
}

func TestNothingStaysForEver(t *testing.T) {
	rows := rowSet{}
	f := newFeeder(trace.Options{}, rows)
	f.line("postfix/smtpd[5]: connect from mail.example.net[192.0.2.25]") // never ends
	f.begin("AAAAAAAAAA01")                                               // never delivered
	f.begin("AAAAAAAAAA02")                                               // the filter's next hop is never seen
	f.line("postfix/smtp[4]: AAAAAAAAAA02: to=<u@example.com>, relay=127.0.0.1[127.0.0.1]:10024, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as BBBBBBBBBB01)")
	f.line("postfix/qmgr[3]: AAAAAAAAAA02: removed")
	f.line("amavis[6]: (00006-01) Blocked SPAM {DiscardedInbound,Quarantined}, [192.0.2.25] <a@example.net> -> <v@example.com>, quarantine: q1, Queue-ID: CCCCCCCCCC01, mail_id: x, Hits: 9, size: 1, 5 ms")
	f.line("amavis[6]: (00006-02) Passed CLEAN ...") // the rest of it never comes
	f.line("postfix/smtpd[7]: NOQUEUE: client=mail.example.net[192.0.2.25]")
	f.line("postfix/smtpd[7]: proxy-accept: END-OF-MESSAGE: 250 2.0.0 Ok: queued as DDDDDDDDDD01; from=<a@example.net> to=<w@example.com> proto=ESMTP helo=<x>")
	f.line("dovecot: lmtp(u@example.com)<1><sessionABCDEF>: msgid=<z@example.net>: saved mail to INBOX")
	f.line("postfix/smtp[4]: EEEEEEEEEE01: to=<x@example.com>, relay=a[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=4.0.0, status=deferred (x)")
	f.line("postfix/bounce[8]: EEEEEEEEEE01: sender delay notification: EEEEEEEEEE02")
	f.wait(7 * 24 * time.Hour)
	st := f.tr.Stats()
	if st.Legs != 0 || st.Scans != 0 || st.Waiting != 0 || st.Sessions > 1 {
		t.Errorf("after a week there is still open: %+v", st)
	}
	want := map[string]string{"u@example.com": flat.Unknown, "v@example.com": flat.Quarantined, "x@example.com": flat.Deferred}
	for _, r := range rows {
		if o, ok := want[r.Rcpt]; ok {
			if r.Outcome != o || r.Complete || r.TSFinal == 0 {
				t.Errorf("%s: outcome %s complete %v final %d, want %s, incomplete and final", r.Rcpt, r.Outcome, r.Complete, r.TSFinal, o)
			}
			delete(want, r.Rcpt)
		}
	}
	for rcpt := range want {
		t.Errorf("no row for %s", rcpt)
	}
}

// One host's clock that is a year ahead must not end the others' mails, and a
// file that goes on a week later must.
func TestClockOfOneHostDoesNotRunTheTimers(t *testing.T) {
	rows := rowSet{}
	f := newFeeder(trace.Options{}, rows)
	f.begin("AAAAAAAAAA01")
	real := f.now
	f.now, f.host = real.AddDate(1, 0, 0), "wild"
	f.line("postfix/smtpd[1]: connect from mail.example.net[192.0.2.26]")
	f.now, f.host = real.Add(time.Second), "mx1"
	f.line("postfix/smtp[4]: AAAAAAAAAA01: to=<u@example.com>, relay=a[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (250 ok)")
	f.line("postfix/qmgr[3]: AAAAAAAAAA01: removed")
	f.tr.Sync()
	if len(rows) != 1 {
		t.Fatalf("%d rows, want 1", len(rows))
	}
	for _, r := range rows {
		if r.Outcome != flat.Sent || !r.Complete {
			t.Errorf("outcome %s, complete %v: the wild clock ended the mail early", r.Outcome, r.Complete)
		}
	}
	f.begin("AAAAAAAAAA03")
	f.now = f.now.AddDate(0, 0, 8)
	f.wait(2 * time.Hour)
	if st := f.tr.Stats(); st.Legs != 0 {
		t.Errorf("%d legs are open after a gap of eight days", st.Legs)
	}
}

func TestManyRejectsInOneSessionAreCounted(t *testing.T) {
	rows := rowSet{}
	f := newFeeder(trace.Options{MaxRejects: 10}, rows)
	f.line("postfix/smtpd[1]: connect from mail.example.net[192.0.2.25]")
	for i := range 50 {
		f.now = f.now.Add(time.Millisecond)
		f.line("postfix/smtpd[1]: NOQUEUE: reject: RCPT from mail.example.net[192.0.2.25]: 550 5.1.1 <u%d@example.com>: no; from=<a@example.net> to=<u%d@example.com> proto=ESMTP helo=<x>", i, i)
	}
	f.line("postfix/smtpd[1]: disconnect from mail.example.net[192.0.2.25] ehlo=1 mail=1 rcpt=0/50 quit=1 commands=3/53")
	f.tr.Sync()
	if len(rows) != 11 {
		t.Fatalf("%d rows, want 10 and one that counts the rest", len(rows))
	}
	for _, r := range rows {
		if r.Rcpt == "" && (r.Attempts != 40 || r.Complete) {
			t.Errorf("the row that counts: attempts %d complete %v, want 40 and incomplete", r.Attempts, r.Complete)
		}
	}
}

// Sessions that are over but that mails still need do not count against
// MaxSessions: making room must not search among them for ever, nor drop the
// live session of the process that had them.
func TestEvictionPassesOverSessionsThatMailsKeep(t *testing.T) {
	rows := rowSet{}
	f := newFeeder(trace.Options{MaxSessions: 2}, rows)
	f.line("postfix/smtpd[1]: connect from a.example.net[192.0.2.1]")
	f.line("postfix/smtpd[1]: 4000000001: client=a.example.net[192.0.2.1]")
	f.line("postfix/smtpd[1]: connect from b.example.net[192.0.2.2]") // the disconnect was lost
	for pid := 2; pid < 20; pid++ {
		f.line("postfix/smtpd[%d]: connect from c.example.net[192.0.2.3]", pid)
		if n := f.tr.Stats().Sessions; n > 2 {
			t.Fatalf("%d sessions are open, the bound is 2", n)
		}
		if pid == 2 { // the two newest are live: this is one of them
			f.line("postfix/smtpd[1]: lost connection after RCPT from b.example.net[192.0.2.2]")
			f.line("postfix/smtpd[1]: disconnect from b.example.net[192.0.2.2] ehlo=1 mail=1 rcpt=1 commands=3")
		}
	}
	f.tr.Sync()
	for _, r := range rows {
		if r.ClientIP == "192.0.2.2" && r.Kind == flat.KindAbort {
			return
		}
	}
	t.Error("the session of 192.0.2.2, which broke off, has no row")
}
