package maillog

import (
	"testing"
	"time"
	"unsafe"
)

// FuzzParse feeds any bytes: no panic, every text inside the line or the
// parser's own memory, and the same line read twice is read the same way.
func FuzzParse(f *testing.F) {
	for i, l := range labLines(f) {
		if i%25 == 0 {
			f.Add(l)
		}
	}
	for _, s := range []string{
		"", "\x00", "<", "<22>", "<22>1 ", "1 2026-11-23T17:39:21Z h a 1 - [x y=\"\\\"]\"] m",
		"Feb 29 23:59:60 h postfix/smtpd[1]: connect from [", "Nov 23 17:39:21 h last message repeated 9999999999999 times",
		"Nov 23 17:39:21 h postfix/smtpd[1]: message repeated 2 times: [ NOQUEUE: reject: RCPT from x[1]: 5]",
		"Nov 23 17:39:21 h a[1]: (1-2) Passed CLEAN (((, <> -> <, Hits: -", "Nov 23 17:39:21 h a[1]: (1-2) ...", "Nov 23 17:39:21 h a[1]: (1-2) Blocked ...",
		"Nov 23 17:39:21 h p/smtp[1]: ABCDEF: to=<, relay=[]:, delay=1e99, delays=////, status=", "Nov 23 17:39:21 h p/smtp[1]: ABCDEF: to=<a>, relay=x, dsn=, status=sent (",
		"Nov 23 17:39:21 h p/cleanup[1]: ABCDEF: reject: header Subject: from from ; from=< to=<\">", "Nov 23 17:39:21 h dovecot: lmtp(: msgid=: ",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		p := NewParser(Options{Location: time.UTC, Now: time.Unix(1795455561, 0)})
		var a, b Event
		c := p.Parse(line, &a)
		if c < Noise {
			if s := p.Shape(line, &a); len(s) > maxShape {
				t.Errorf("shape of %d bytes", len(s))
			}
		}
		if c == Used && a.Kind == KindNone {
			t.Errorf("an event of no kind: %q", line)
		}
		for _, field := range [][]byte{a.Host, a.QID, a.Sender, a.Rcpt, a.Text, a.Relay, a.MsgID, a.Helo, a.Stage, a.Scan.Rcpts, a.Scan.QueuedAs} {
			if len(field) > len(line) && len(field) > len(p.last) {
				t.Errorf("a field longer than the line: %q", field)
			}
		}
		for list, n := a.Scan.Rcpts, 0; ; n++ {
			_, rest, ok := NextRcpt(list)
			if !ok {
				break
			}
			if n > len(line) {
				t.Fatal("a recipient list without an end")
			}
			list = rest
		}
		q := NewParser(Options{Location: time.UTC, Now: time.Unix(1795455561, 0)})
		if q.Parse(line, &b) != c || a.Kind != b.Kind || string(a.QID) != string(b.QID) || a.Time != b.Time {
			t.Errorf("read differently the second time: %q", line)
		}
	})
}

// The event is cleared for every line: it must not grow without being noticed.
func TestEventSize(t *testing.T) {
	if n := unsafe.Sizeof(Fields{}); n > 1400 {
		t.Errorf("Fields has %d bytes: clearing it costs as much as parsing", n)
	}
}
