package trace_test

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// Half of every case went through the program as it was when it saved version
// 1 of the state; this one goes on.
func TestStateOfVersion1(t *testing.T) {
	f, err := os.Open(filepath.Join("testdata", "state-v1.txt.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(b), "case ")[1:]
	if len(blocks) < 200 {
		t.Fatalf("%d cases", len(blocks))
	}
	for _, block := range blocks {
		head, values, _ := strings.Cut(block, "\n")
		var name string
		var at int
		if _, err := fmt.Sscan(head, &name, &at); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			c := readCase(t, filepath.Join("testdata", "cases", name+".txt"))
			state := table{}
			for l := range strings.Lines(values) {
				k, v, _ := strings.Cut(strings.TrimSpace(l), " ")
				key, err := hex.DecodeString(k)
				data, err2 := hex.DecodeString(v)
				if err != nil || err2 != nil {
					t.Fatal(err, err2)
				}
				state.save(key, data)
			}
			c.goOn(t, state, at)
		})
	}
}

// goOn reads the lines of a case before at, and those behind it from a state.
func (c *hardCase) goOn(t *testing.T, state table, at int) {
	rows := keeper{}
	p := maillog.NewParser(c.parse)
	var ev maillog.Event
	add := func(tr *trace.Tracer, lines [][]byte) {
		for _, l := range lines {
			p.Parse(l, &ev)
			tr.Add(&ev)
		}
		tr.Sync()
	}
	add(trace.New(c.trace, rows), c.lines[:at])
	tr := trace.New(c.trace, rows)
	state.restore(t, tr)
	tr.Sync()
	again := table{}
	tr.Changes(again.save)
	for k, v := range state { // what has not changed is still as it was
		if again[k] == nil {
			again[k] = v
		}
	}
	tr = trace.New(c.trace, rows)
	again.restore(t, tr)
	add(tr, c.lines[at:])
	if wrong := tr.Check(); wrong != "" {
		t.Error(wrong)
	}
	c.check(t, rows, nil)
}

func TestStateThatCannotBeRead(t *testing.T) {
	f := newFeeder(trace.Options{}, rowSet{})
	f.begin("AAAAAAAAAA01")
	f.chains(1)
	state := table{}
	f.tr.RestNow()
	f.tr.Changes(state.save)
	refused := func(what string, key, data []byte, says string) {
		t.Helper()
		err := trace.New(trace.Options{}, rowSet{}).Restore(key, data)
		if !errors.Is(err, trace.ErrState) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for k, v := range state {
		key := []byte(k)
		newer := bytes.Clone(v)
		newer[0] = 9
		refused("a newer version", key, newer, "a newer version of this program")
		refused("half of "+k[:1], key, v[:len(v)/2], "delete the saved state")
		refused("no key", key[:4], v, "damaged")
	}
	refused("an unknown kind", []byte("X12345678"), []byte{2, 0}, "damaged")
	tr := trace.New(trace.Options{}, rowSet{})
	delete(state, "M\x00\x00\x00\x00\x00\x00\x00\x00")
	state.restore(t, tr)
	tr.Sync()
	if err := tr.Err(); !errors.Is(err, trace.ErrState) || !strings.Contains(err.Error(), "M is missing") {
		t.Errorf("without the value M: %v", err)
	}
	n := 0
	tr.Changes(func(key, data []byte) { n++ })
	if n > 0 {
		t.Errorf("%d values saved after an error", n)
	}
}

// restart saves, kills and goes on.
func (f *feeder) restart(t *testing.T, state table, sink trace.Sink) {
	t.Helper()
	f.tr.Sync()
	f.tr.Changes(state.save)
	f.tr = trace.New(trace.Options{}, sink)
	state.restore(t, f.tr)
}

// A late line of a mail that was done before a restart is no mail of its own.
func TestLateLineAfterRestart(t *testing.T) {
	rows, state := rowSet{}, table{}
	f := newFeeder(trace.Options{}, rows)
	f.begin("AAAAAAAAAA01")
	f.line("postfix/smtp[4]: AAAAAAAAAA01: to=<u@example.com>, relay=a[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=5.0.0, status=bounced (no)")
	f.line("postfix/qmgr[3]: AAAAAAAAAA01: removed")
	done := f.now
	f.wait(2 * time.Minute)
	before := rows.dump()
	for range 3 { // also by one that has it from the one before
		f.restart(t, state, rows)
		f.wait(time.Minute)
	}
	late := f.now
	f.now = done
	f.line("postfix/smtp[4]: AAAAAAAAAA01: to=<v@example.com>, relay=a[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (250 ok)")
	f.line("postfix/cleanup[2]: AAAAAAAAAA09: message-id=<AAAAAAAAAA09@mx1>")
	f.line("postfix/bounce[8]: AAAAAAAAAA01: sender non-delivery notification: AAAAAAAAAA09")
	f.now = late
	f.line("postfix/qmgr[3]: AAAAAAAAAA09: from=<>, size=1, nrcpt=1 (queue active)")
	f.sent("AAAAAAAAAA09")
	f.tr.Sync()
	if n := f.tr.Stats().Late; n != 2 {
		t.Errorf("%d late lines, want 2", n)
	}
	var parent flat.ID
	for id, r := range rows {
		if r.QIDIn == "AAAAAAAAAA01" {
			parent = id
		}
	}
	for id, r := range rows {
		if r.QIDIn == "AAAAAAAAAA09" {
			if r.ParentID != parent {
				t.Errorf("the bounce's parent is %v, want %v", r.ParentID, parent)
			}
			delete(rows, id)
		}
	}
	if after := rows.dump(); after != before {
		t.Error(difference(after, before))
	}
}

// What is remembered of mails that are done stays small, however long the
// service runs and however often it saves.
func TestTombsAreBounded(t *testing.T) {
	rows, state := &counted{}, table{}
	f := newFeeder(trace.Options{}, rows)
	most, bytesMost, written := 0, 0, 0
	save := func(key, data []byte) {
		written += len(data)
		state.save(key, data)
	}
	n := 0
	for range 3600 * 2 {
		f.now = f.now.Add(500 * time.Millisecond)
		for range 5 {
			n++
			q := fmt.Sprintf("%010X", n+1<<24)
			f.begin(q)
			f.sent(q)
		}
		f.tr.Sync()
		f.tr.Changes(save)
		pieces, size := 0, 0
		for k, v := range state {
			if k[0] == 'T' {
				pieces, size = pieces+1, size+len(v)
			}
		}
		most, bytesMost = max(most, pieces), max(bytesMost, size)
	}
	if most > 400 || bytesMost > 5*10*400*40 {
		t.Errorf("%d values of %d bytes", most, bytesMost)
	}
	if per := written / n; per > 6000 {
		t.Errorf("%d bytes of state written for each mail", per)
	}
	f.wait(10 * time.Minute)
	f.tr.Changes(save)
	f.wait(10 * time.Minute)
	f.tr.Changes(save)
	for k := range state {
		if k[0] == 'T' {
			t.Fatal("mails done long ago are still remembered")
		}
	}
}

// A refusal by a filter that has no verdict yet gets it after a restart, and so
// does the client of a mail that came through a before-queue filter.
func TestRefusalAndFrontWaitOverARestart(t *testing.T) {
	for _, restart := range []bool{false, true} {
		rows, state := rowSet{}, table{}
		f := newFeeder(trace.Options{}, rows)
		f.line("postfix/smtpd[7]: connect from mail.example.net[192.0.2.25]")
		f.line("postfix/smtpd[7]: NOQUEUE: client=mail.example.net[192.0.2.25]")
		f.line("postfix/smtpd[7]: proxy-accept: END-OF-MESSAGE: 250 2.0.0 Ok: queued as DDDDDDDDDD01; from=<a@example.net> to=<w@example.com> proto=ESMTP helo=<x>")
		f.line("postfix/smtpd[7]: proxy-accept: END-OF-MESSAGE: 250 2.0.0 Ok: queued as DDDDDDDDDD02; from=<a@example.net> to=<x@example.com> proto=ESMTP helo=<x>")
		f.line("postfix/smtpd[7]: proxy-reject: END-OF-MESSAGE: 554 5.7.0 Reject, id=00006-01 - spam; from=<a@example.net> to=<v@example.com> proto=ESMTP helo=<x>")
		f.line("postfix/smtpd[7]: disconnect from mail.example.net[192.0.2.25] ehlo=1 mail=3 rcpt=3 data=2/3 quit=1 commands=9/10")
		f.now = f.now.Add(20 * time.Second)
		f.line("postfix/smtpd[9]: connect from monitor.example.com[198.51.100.1]")
		if restart {
			f.restart(t, state, rows)
			f.restart(t, state, rows)
		}
		f.line("amavis[6]: (00006-01) Blocked SPAM {RejectedInbound,Quarantined}, [192.0.2.25] <a@example.net> -> <v@example.com>, quarantine: q1, mail_id: x, Hits: 9, size: 1, 5 ms")
		for _, q := range []string{"DDDDDDDDDD02", "DDDDDDDDDD01"} {
			f.line("postfix/smtpd[1]: %s: client=localhost[127.0.0.1]", q)
			f.line("postfix/cleanup[2]: %s: message-id=<%s@example.net>", q, q)
			f.line("postfix/qmgr[3]: %s: from=<a@example.net>, size=1, nrcpt=1 (queue active)", q)
			f.sent(q)
		}
		f.tr.Sync()
		clients, verdict := 0, ""
		for _, r := range rows {
			if r.Kind == flat.KindMail && r.ClientIP == "192.0.2.25" {
				clients++
			}
			if r.Kind == flat.KindReject {
				verdict += r.Verdict
			}
		}
		if clients != 2 || verdict != "SPAM" {
			t.Errorf("restart %v: %d mails have their client, the refusal's verdict is %q\n%s", restart, clients, verdict, rows.dump())
		}
		f.wait(time.Hour)
		f.restart(t, state, rows)
		f.tr.Changes(state.save)
		for k := range state {
			if k[0] == 'R' || k[0] == 'F' {
				t.Errorf("%q is still in the state", k)
			}
		}
	}
}
