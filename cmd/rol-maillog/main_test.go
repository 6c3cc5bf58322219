package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/tests/script"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rol-maillog": main})
}

// params runs scripts with the database that place gives each as maillog_db.
func params(place func(*testscript.Env) string) testscript.Params {
	return testscript.Params{
		UpdateScripts: os.Getenv("ROL_UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "Europe/Rome")
			env.Setenv("ROL_CONFIG", env.WorkDir+"/rol.cf")
			env.Setenv("DB", place(env))
			return os.WriteFile(env.WorkDir+"/rol.cf", []byte("maillog_db = "+env.Getenv("DB")+"\n"), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": script.Status, "maildb": maildb, "newer": newer, "lines": lines, "bytes": script.Bytes, "same": same, "write": write,
		},
	}
}

func TestScripts(t *testing.T) {
	p := params(func(*testscript.Env) string { return "sqlite:maillog.db" })
	p.Dir = "testdata/script"
	testscript.Run(t, p)
}

// where is the database that a script names: $DB, or a file.
func where(ts *testscript.TestScript, name string) string {
	if strings.HasPrefix(name, "mysql:") {
		return name
	}
	return ts.MkAbs(strings.TrimPrefix(name, "sqlite:"))
}

// lines N [FILE]: standard output, or a file, has N lines.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	file := "stdout"
	if len(args) == 2 {
		file = args[1]
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := strings.Count(ts.ReadFile(file), "\n"); neg || got != want {
		ts.Fatalf("%s has %d lines, want %d", file, got, want)
	}
}

// same COMMAND...: the program leaves the directory as it was.
func same(ts *testscript.TestScript, neg bool, args []string) {
	before, err := os.ReadDir(ts.MkAbs("."))
	ts.Check(err)
	_ = ts.Exec(args[0], args[1:]...)
	after, err := os.ReadDir(ts.MkAbs("."))
	ts.Check(err)
	for i := range max(len(before), len(after)) {
		if neg || i >= len(before) || i >= len(after) {
			ts.Fatalf("there are %d files, were %d", len(after), len(before))
		}
		a, err := before[i].Info()
		ts.Check(err)
		b, err := after[i].Info()
		ts.Check(err)
		if a.Name() != b.Name() || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) {
			ts.Fatalf("%s is now %s", a.Name(), b.Name())
		}
	}
}

// newer FILE: a database as a later release may leave it.
func newer(ts *testscript.TestScript, _ bool, args []string) {
	maildb(ts, false, args)
	ts.Check(storetest.Newer(ts.MkAbs(args[0])))
}

// write FILE: mails come slowly and are delivered.
func write(ts *testscript.TestScript, _ bool, args []string) {
	db, err := store.Open(where(ts, args[0]), store.ReadWrite)
	ts.Check(err)
	for n := range uint64(3) {
		for lines, outcome := range []string{flat.Deferred, flat.Sent} {
			b := &store.Batch{}
			for i, domain := range []string{"a.example", "b.example"} {
				b.Rows = append(b.Rows, mail(at(15, 0), 2*n+uint64(i), func(r *flat.Row) {
					r.QIDIn, r.Sender, r.Rcpt, r.Outcome, r.Lines = "4gLATEz", "x@stranger.example", "late@"+domain, outcome, int64(lines)
				}))
			}
			ts.Check(db.Commit(context.Background(), b))
			time.Sleep(400 * time.Millisecond) // longer than until the next look
		}
	}
	ts.Check(db.Close())
}

// maildb FILE [N]: a database with the mails below, or with N made-up rows.
func maildb(ts *testscript.TestScript, _ bool, args []string) {
	db, err := store.Open(where(ts, args[0]), store.ReadWrite)
	ts.Check(err)
	rows := mails()
	if len(args) > 1 {
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		rows = storetest.New(1, at(9, 0), 1000).Rows(n)
	}
	ts.Check(db.Commit(context.Background(), &store.Batch{Rows: rows}))
	ts.Check(db.Finish(context.Background()))
	ts.Check(db.Close())
}

// at is a time of 2026-11-23, UTC, in Unix milliseconds.
func at(hour, minute int) int64 {
	return time.Date(2026, 11, 23, hour, minute, 21, 957_000_000, time.UTC).UnixMilli()
}

func mail(ms int64, n uint64, set func(*flat.Row)) *flat.Row {
	r := &flat.Row{}
	r.Clear()
	r.ID, r.TS, r.TSFinal, r.Lines, r.Complete = storetest.ID(ms, n<<56), ms, ms+1500, 9, true
	r.Kind, r.Dir, r.Outcome = flat.KindMail, flat.DirIn, flat.Sent
	r.HostIn, r.InstanceIn = "mx1", "postfix-in"
	set(r)
	r.SenderDomain, r.RcptDomain = flat.Domain(r.Sender), flat.Domain(r.Rcpt)
	return r
}

// mails are a handful of mails of two tenants, a.example and b.example.
func mails() []*flat.Row {
	shared := func(r *flat.Row) {
		r.QIDIn, r.Sender, r.MsgID, r.Subject = "4gSHARED1z", "news@stranger.example", "shared@stranger.example", "News for you"
		r.ClientIP, r.ClientName, r.ClientPort, r.Helo, r.Proto = "192.0.2.7", "mail.stranger.example", "40123", "mail.stranger.example", "ESMTP"
		r.TLS, r.Size, r.NRcpt = "TLSv1.3 TLS_AES_256_GCM_SHA384", 12345, 2
		r.HostFilter, r.Verdict, r.Score, r.ScanMS, r.MailID = "mf1", "CLEAN", -1.9, 312, "aBcD-1234"
		r.HostOut, r.QIDOut, r.Attempts, r.TotalMS = "out1", "4hOUT01z", 1, 1500
		r.Delay, r.DelayBefore, r.DelayQueue, r.DelayConn, r.DelayTx = 0.62, 0.05, 0.01, 0.2, 0.36
		r.SMTPCode, r.DSN, r.Evidence = 250, "2.0.0", "orig_queue_id,amavis"
	}
	bounced := mail(at(10, 5), 3, func(r *flat.Row) {
		r.QIDIn, r.Sender, r.Rcpt, r.MsgID, r.Dir = "4gBOUNCEz", "anna@a.example", "nobody@far.example", "b1@a.example", flat.DirOut
		r.ClientIP, r.ClientName, r.SASLUser = "2001:db8::5", "unknown", "anna"
		r.Outcome, r.SMTPCode, r.DSN, r.Relay, r.RelayIP = flat.Bounced, 550, "5.1.1", "mx.far.example[203.0.113.9]:25", "203.0.113.9"
		r.Reason = "host mx.far.example[203.0.113.9] said: 550 5.1.1 <nobody@far.example>: User unknown (in reply to RCPT TO command)"
	})
	return []*flat.Row{
		mail(at(9, 0), 1, func(r *flat.Row) {
			shared(r)
			r.Rcpt, r.OrigTo = "anna@a.example", "info@b.example"
			r.Relay, r.Reason, r.RemoteQID = "store.a.example[198.51.100.1]:25", "250 2.0.0 Ok: queued as 99A", "99A"
		}),
		mail(at(9, 0), 2, func(r *flat.Row) {
			shared(r)
			r.Rcpt, r.Relay, r.Reason, r.RemoteQID = "Bob@b.example", "store.b.example[198.51.100.2]:25", "250 2.0.0 Ok: queued as 77B", "77B"
		}),
		bounced,
		mail(at(10, 6), 4, func(r *flat.Row) {
			r.QIDIn, r.Rcpt, r.ParentID, r.Dir = "4gNOTICEz", "anna@a.example", bounced.ID, flat.DirLocal
		}),
		mail(at(11, 0), 5, func(r *flat.Row) {
			r.Kind, r.Outcome, r.Stage, r.Sender, r.Rcpt = flat.KindReject, flat.Rejected, "RCPT", "x@evil.example", "anna@a.example"
			r.ClientIP, r.ClientName, r.Helo, r.Proto = "203.0.113.66", "unknown", "\x1b]0;pwned\x07, status=sent (", "SMTP"
			r.SMTPCode, r.DSN, r.Verdict = 554, "5.7.1", ""
			r.Reason = "Service unavailable; Client host [203.0.113.66] blocked using zen.example"
		}),
		mail(at(11, 1), 6, func(r *flat.Row) { // a forged sender
			r.QIDIn, r.Sender, r.Rcpt, r.Subject = "4gFORGEDz", "anna@a.example", "bob@b.example", "=cmd|' /C calc'!A0"
			r.Outcome, r.Verdict, r.Score, r.Quarantine, r.HostFilter = flat.Quarantined, "SPAM", 17.5, "spam-1", "mf1"
			r.MsgID = "forged@x"
		}),
		mail(at(12, 0), 7, func(r *flat.Row) {
			r.QIDIn, r.Sender, r.Rcpt = "4gOPENz", "li@stranger.example", "\x1b日本語@b.example"
			r.Outcome, r.TSFinal, r.Complete, r.Evidence = flat.Unknown, 0, false, "orig_queue_id; missing: client,removed"
		}),
		mail(at(13, 0), 8, func(r *flat.Row) {
			r.Kind, r.Outcome, r.Stage, r.ClientIP, r.ClientName = flat.KindAbort, flat.Aborted, "DATA", "192.0.2.99", "scan.example"
			r.Reason = "lost connection after DATA (14 bytes) from scan.example[192.0.2.99]"
		}),
	}
}
