package trace_test

import (
	"fmt"
	"time"
)

// chain is a mail that came in, was scanned and waits at the last hop: two
// queue files, two sessions and a verdict.
func (f *feeder) chain(i int) {
	in, out, am := fmt.Sprintf("4jYC%06dz1T", i), fmt.Sprintf("4kZD%06dz1T", i), fmt.Sprintf("%05d-%02d", 10000+i%7919, i%97)
	ip := fmt.Sprintf("192.0.%d.%d", i>>8&255, i&255)
	from, to, id := fmt.Sprintf("sender%d@customer%d.example.net", i, i%5000), fmt.Sprintf("recipient%d@example%d.com", i, i%300), fmt.Sprintf("20261110090000.%d@mail.customer%d.example.net", i, i%5000)
	at := f.now
	f.line("mx2/smtpd[%d]: connect from mail%d.example.net[%s]", 1000+i%97, i, ip)
	f.line("mx2/smtpd[%d]: Anonymous TLS connection established from mail%d.example.net[%s]: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)", 1000+i%97, i, ip)
	f.line("mx2/smtpd[%d]: %s: client=mail%d.example.net[%s]", 1000+i%97, in, i, ip)
	f.line("mx2/cleanup[7]: %s: message-id=<%s>", in, id)
	f.line("mx2/qmgr[3]: %s: from=<%s>, size=14369, nrcpt=1 (queue active)", in, from)
	f.line("mx2/smtpd[%d]: disconnect from mail%d.example.net[%s] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7", 1000+i%97, i, ip)
	f.now = at.Add(time.Second)
	f.line("out1/smtpd[%d]: connect from localhost[127.0.0.1]", 2000+i%89)
	f.line("out1/smtpd[%d]: %s: client=localhost[127.0.0.1], orig_queue_id=%s, orig_client=mail%d.example.net[%s]", 2000+i%89, out, in, i, ip)
	f.line("out1/cleanup[8]: %s: message-id=<%s>", out, id)
	f.line("out1/qmgr[4]: %s: from=<%s>, size=15916, nrcpt=1 (queue active)", out, from)
	f.line("out1/smtpd[%d]: disconnect from localhost[127.0.0.1] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5", 2000+i%89)
	f.line("amavis[%d]: (%s) Passed CLEAN {RelayedInbound}, [%s]:58587 <%s> -> <%s>, Queue-ID: %s, Message-ID: <%s>, mail_id: rWHsaIsbErkm, Hits: 1.399, size: 14369, queued_as: %s, 93 ms", 3000+i%83, am, ip, from, to, in, id, out)
	f.line("mx2/smtp[5]: %s: to=<%s>, relay=127.0.0.1[127.0.0.1]:10024, delay=1.9, delays=0/1.8/0/0.09, dsn=2.0.0, status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as %s)", in, to, out)
	f.line("mx2/qmgr[3]: %s: removed", in)
	f.deferred(i)
	f.now = at
}

// deferred is one more attempt of the mail of chain.
func (f *feeder) deferred(i int) {
	f.line("out1/smtp[6]: 4kZD%06dz1T: to=<recipient%d@example%d.com>, relay=mx.example%d.com[198.51.100.%d]:25, delay=12, delays=0.1/0/10/2, dsn=4.7.1, status=deferred (host mx.example%d.com[198.51.100.%d] said: 450 4.7.1 <recipient%d@example%d.com>: Recipient address rejected: Greylisting in action, please come back later (in reply to RCPT TO command))",
		i, i, i%300, i%300, i%200, i%300, i%200, i, i%300)
}

// chains opens n such mails, a hundred a second.
func (f *feeder) chains(n int) {
	for i := range n {
		if i%100 == 0 {
			f.now = f.now.Add(time.Second)
		}
		f.chain(i)
	}
	f.now = f.now.Add(time.Second)
}
