package copylog

import (
	"bufio"
	"fmt"
	"io"
	"time"
)

// waitingLines is a mail that came in, was scanned and waits at the last hop:
// two queue files, two sessions and a verdict. %[1]d is its number, %[2]d and
// %[3]d numbers from it below 5000 and 200, %[4]d tells those of one %[2]d apart;
// they make names, addresses and process ids.
var waitingLines = []string{
	"mx2/smtpd[1%[3]d]: connect from mail%[1]d.example.net[192.0.2.%[3]d]",
	"mx2/smtpd[1%[3]d]: Anonymous TLS connection established from mail%[1]d.example.net[192.0.2.%[3]d]: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)",
	"mx2/smtpd[1%[3]d]: 4jYC%06[1]dz1T: client=mail%[1]d.example.net[192.0.2.%[3]d]",
	"mx2/cleanup[7]: 4jYC%06[1]dz1T: message-id=<20261110090000.%[1]d@mail.customer%[2]d.example.net>",
	"mx2/qmgr[3]: 4jYC%06[1]dz1T: from=<sender%[1]d@customer%[2]d.example.net>, size=14369, nrcpt=1 (queue active)",
	"mx2/smtpd[1%[3]d]: disconnect from mail%[1]d.example.net[192.0.2.%[3]d] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7",
	"out1/smtpd[2%[3]d]: connect from localhost[127.0.0.1]",
	"out1/smtpd[2%[3]d]: 4kZD%06[1]dz1T: client=localhost[127.0.0.1], orig_queue_id=4jYC%06[1]dz1T, orig_client=mail%[1]d.example.net[192.0.2.%[3]d]",
	"out1/cleanup[8]: 4kZD%06[1]dz1T: message-id=<20261110090000.%[1]d@mail.customer%[2]d.example.net>",
	"out1/qmgr[4]: 4kZD%06[1]dz1T: from=<sender%[1]d@customer%[2]d.example.net>, size=15916, nrcpt=1 (queue active)",
	"out1/smtpd[2%[3]d]: disconnect from localhost[127.0.0.1] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5",
	"amavis[3%[3]d]: (1%04[2]d-%02[4]d) Passed CLEAN {RelayedInbound}, [192.0.2.%[3]d]:58587 <sender%[1]d@customer%[2]d.example.net> -> <recipient%[1]d@example%[3]d.com>, Queue-ID: 4jYC%06[1]dz1T, Message-ID: <20261110090000.%[1]d@mail.customer%[2]d.example.net>, mail_id: rWHsaIsbErkm, Hits: 1.399, size: 14369, queued_as: 4kZD%06[1]dz1T, 93 ms",
	"mx2/smtp[5]: 4jYC%06[1]dz1T: to=<recipient%[1]d@example%[3]d.com>, relay=127.0.0.1[127.0.0.1]:10024, delay=1.9, delays=0/1.8/0/0.09, dsn=2.0.0, status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 4kZD%06[1]dz1T)",
	"mx2/qmgr[3]: 4jYC%06[1]dz1T: removed",
	"out1/smtp[6]: 4kZD%06[1]dz1T: to=<recipient%[1]d@example%[3]d.com>, relay=mx.example%[3]d.com[198.51.100.%[3]d]:25, delay=12, delays=0.1/0/10/2, dsn=4.7.1, status=deferred (host mx.example%[3]d.com[198.51.100.%[3]d] said: 450 4.7.1 <recipient%[1]d@example%[3]d.com>: Recipient address rejected: Greylisting in action, please come back later (in reply to RCPT TO command))",
}

// gotThrough is what becomes of such a mail at last.
var gotThrough = []string{
	"out1/smtp[6]: 4kZD%06[1]dz1T: to=<recipient%[1]d@example%[3]d.com>, relay=mx.example%[3]d.com[198.51.100.%[3]d]:25, delay=7200, delays=7198/0/1/1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4bX7)",
	"out1/qmgr[4]: 4kZD%06[1]dz1T: removed",
}

// appendWaiting appends a line of the mail with a number.
func appendWaiting(buf []byte, at time.Time, line string, i int) []byte {
	buf = at.AppendFormat(buf, "2006-01-02T15:04:05.000000-07:00 mx1 ")
	return append(fmt.Appendf(buf, line, i, i%5000, i%200, i/5000), '\n')
}

// WaitingLines is how many lines each of WriteWaiting's mails has, and
// MailLines how many with what becomes of it.
var (
	WaitingLines = len(waitingLines)
	MailLines    = len(waitingLines) + len(gotThrough)
)

// WriteWaiting writes n such mails, a hundred a second from a time on.
func WriteWaiting(w io.Writer, n int, from time.Time) error {
	out := bufio.NewWriterSize(w, 1<<20)
	var buf []byte
	for i := range n {
		at := from.Add(time.Duration(i) * 10 * time.Millisecond)
		for _, l := range waitingLines {
			buf = appendWaiting(buf[:0], at, l, i)
			if _, err := out.Write(buf); err != nil {
				return err
			}
		}
	}
	return out.Flush()
}

// waitingMail is such a mail as a part of a Day.
type waitingMail struct {
	no, line   int
	begin, end time.Time
}

func (w *waitingMail) at() time.Time {
	if w.line < len(waitingLines) {
		return w.begin.Add(time.Duration(w.line) * 5 * time.Millisecond)
	}
	return w.end
}

func (w *waitingMail) append(buf []byte) []byte {
	if w.line < len(waitingLines) {
		return appendWaiting(buf, w.at(), waitingLines[w.line], w.no)
	}
	return appendWaiting(buf, w.end, gotThrough[w.line-len(waitingLines)], w.no)
}

func (w *waitingMail) next() bool {
	w.line++
	return w.line < MailLines
}
