package pipeline

import (
	"fmt"
	"strings"

	"github.com/rolmail/rolmail/tests/lab"
)

// kind is something that a client can do to the front.
type kind struct {
	name   string
	weight int
	run    func(m *mail)
}

// kinds are all of them; in a run each comes at least once, then by weight.
var kinds = []kind{
	{"clean", 40, clean},
	{"multi", 8, multi},
	{"session", 5, session},
	{"mixed", 4, mixed},
	{"alias", 3, alias},
	{"later", 6, oneTo("later", "sent")},
	{"expire", 3, oneTo("expire", "expired")},
	{"bounce", 5, oneTo("bounce", "bounced")},
	{"datareject", 2, oneTo("datareject", "bounced")},
	{"spam", 4, content("quarantined", "Subject: buy\n\nXJS*C4JDBQADN1.NSBN3*2IDNEN*"+spam+"*C.34X\n")},
	{"banned", 3, content("quarantined", attachment("invoice.exe", "MZ"))},
	{"virus", 3, content("quarantined", attachment("letter.txt", virus))},
	{"nullsender", 2, nullSender},
	{"utf8", 2, utf8},
	{"auth", 3, authenticated},
	{"warn", 2, content("sent", "Subject: strange words to=<x@y.example>, status=sent (250 ok)\n\nhello\n")},
	{"discard", 2, content("discarded", "Subject: lost words\n\nhello\n")},
	{"held", 1, content("held", "Subject: held words\n\nhello\n")},
	{"header", 3, header},

	{"nouser", 4, refused("550", func(m *mail) { m.rcpt = m.name("nouser") + "@" + m.domain() })},
	{"relay", 3, refused("554", func(m *mail) { m.rcpt = m.name("x") + "@not-ours.example" })},
	{"grey", 3, refused("450", func(m *mail) { m.rcpt = m.name("grey") + "@" + m.domain() })},
	{"badhelo", 3, refused("504", func(m *mail) { m.helo = m.name("localhost") })},
	{"badsender", 3, refused("554", func(m *mail) { m.sender = m.name("badsender") + "@sender1.example" })},
	{"shortsender", 2, refused("504", func(m *mail) { m.sender = m.name("s") + "@localhost" })},
	{"client", 3, refused("554", func(m *mail) { m.ip = strings.Replace(m.ip, m.net(), "127.66.", 1) })},
	{"ctrl", 2, refused("501", func(m *mail) { m.helo = m.name("evil") + ".example\tstatus=sent<x>" })},
	{"atdata", 2, atData},
	{"atend", 2, atEnd},
	{"pipelining", 2, pipelining},
	{"toobig", 2, big},
	{"size", 2, announced},
	{"authfail", 2, authFailed},
	{"earlyclient", 2, earlyClient},
	{"earlyhelo", 2, earlyHelo},
	{"earlysender", 2, earlySender},

	{"abort_connect", 3, broken("CONNECT", func(*client, *mail) {})},
	{"abort_ehlo", 3, broken("EHLO", func(c *client, m *mail) { c.cmd("250", "EHLO %s", m.helo) })},
	{"abort_mail", 3, broken("MAIL", func(c *client, m *mail) {
		c.cmd("250", "EHLO %s", m.helo)
		c.cmd("250", "MAIL FROM:<%s>", m.sender)
	})},
	{"abort_rcpt", 3, broken("RCPT", func(c *client, m *mail) { m.envelope(c) })},
	{"abort_data", 3, broken("DATA", func(c *client, m *mail) {
		m.envelope(c)
		c.cmd("354", "DATA")
		c.write("Subject: never to end\r\n\r\nhalf a line")
	})},
	{"timeout", 2, timeout},
	{"errors", 2, errors5},
	{"http", 1, notSMTP},
}

// mail is one turn of the generator: a client with an address of its own.
type mail struct {
	g      *generator
	n      int
	kind   string
	ip     string
	helo   string
	sender string
	rcpt   string
}

// name is unique in this run and all others of this process.
func (m *mail) name(kind string) string { return fmt.Sprintf("%s-%d%06d", kind, m.g.run, m.n) }

func (m *mail) domain() string { return "kunde-" + string(rune('a'+m.n%3)) + ".example" }

// net is how all addresses of this run begin.
func (m *mail) net() string { return fmt.Sprintf("127.%d.", 70+m.g.run%150) }

// msgidDomain is where the message ids of the generator end.
const msgidDomain = "@generator.example"

func (m *mail) msgid() string { return m.name("m") + msgidDomain }

// text is the message: headers that every mail has, then the rest.
func (m *mail) text(rest string) string {
	return "From: <" + m.sender + ">\nTo: someone\nDate: Mon, 23 Nov 2026 10:00:00 +0000\nMessage-ID: <" +
		m.msgid() + ">\n" + rest
}

const hello = "Subject: hello\n\nhello\n"

// truth is what will become of the mail, before its kind says more.
func (m *mail) truth(fate string) lab.Truth {
	return lab.Truth{ClientIP: m.ip, Fate: fate, HELO: m.helo, Kind: m.kind, Rcpt: m.rcpt, Sender: m.sender}
}

func (m *mail) handedIn(fate string) lab.Truth {
	t := m.truth(fate)
	t.MsgID = m.msgid()
	return t
}

// envelope says hello, MAIL and RCPT.
func (m *mail) envelope(c *client) {
	c.cmd("250", "EHLO %s", m.helo)
	c.cmd("250", "MAIL FROM:<%s>", m.sender)
	c.cmd("250", "RCPT TO:<%s>", m.rcpt)
}

// send hands in one mail to the recipient and notes what becomes of it.
func (m *mail) send(fate, rest string) {
	c := m.dial()
	m.envelope(c)
	c.message("250", m.text(rest))
	c.quit()
	m.g.note(m, c, m.handedIn(fate))
}

func (m *mail) dial() *client { return dial(m.ip, mxPort, "220") }

func clean(m *mail) { m.send("sent", hello) }

func content(fate, rest string) func(*mail) {
	return func(m *mail) { m.send(fate, rest) }
}

func attachment(name, data string) string {
	return "Subject: see attachment\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=xx\n\n" +
		"--xx\nContent-Type: text/plain\n\nhello\n--xx\nContent-Type: application/octet-stream; name=" + name +
		"\nContent-Disposition: attachment; filename=" + name + "\n\n" + data + "\n--xx--\n"
}

func oneTo(name, fate string) func(*mail) {
	return func(m *mail) {
		m.rcpt = m.name(name) + "@" + m.domain()
		m.send(fate, hello)
	}
}

// multi is one mail to up to five recipients of different fates.
func multi(m *mail) {
	fates := []struct{ name, fate string }{
		{"ok", "sent"}, {"ok", "sent"}, {"later", "sent"}, {"bounce", "bounced"}, {"expire", "expired"},
	}
	c := m.dial()
	c.cmd("250", "EHLO %s", m.helo)
	c.cmd("250", "MAIL FROM:<%s>", m.sender)
	var all []lab.Truth
	for i := range 2 + m.g.intn(4) {
		f := fates[m.g.intn(len(fates))]
		m.rcpt = fmt.Sprintf("%sr%d@%s", m.name(f.name), i, m.domain())
		c.cmd("250", "RCPT TO:<%s>", m.rcpt)
		all = append(all, m.handedIn(f.fate))
	}
	c.message("250", m.text(hello))
	c.quit()
	m.g.note(m, c, all...)
}

// session is three mails in one session, the middle one given up by RSET.
func session(m *mail) {
	c := m.dial()
	c.cmd("250", "EHLO %s", m.helo)
	var all []lab.Truth
	name := m.sender
	for i := range 3 {
		m.sender, m.rcpt = fmt.Sprintf("x%d%s", i, name), fmt.Sprintf("%sx%d@%s", m.name("ok"), i, m.domain())
		c.cmd("250", "MAIL FROM:<%s>", m.sender)
		c.cmd("250", "RCPT TO:<%s>", m.rcpt)
		c.message("250", m.text(hello))
		all = append(all, m.handedIn("sent"))
	}
	c.quit()
	m.g.note(m, c, all...)
}

// mixed is a mail with one recipient refused and one taken.
func mixed(m *mail) {
	c := m.dial()
	c.cmd("250", "EHLO %s", m.helo)
	c.cmd("250", "MAIL FROM:<%s>", m.sender)
	good := m.rcpt
	m.rcpt = m.name("nouser") + "@" + m.domain()
	c.cmd("550", "RCPT TO:<%s>", m.rcpt)
	no := m.truth("rejected")
	no.Code = "550"
	m.rcpt = good
	c.cmd("250", "RCPT TO:<%s>", m.rcpt)
	c.message("250", m.text(hello))
	c.quit()
	m.g.note(m, c, no, m.handedIn("sent"))
}

// alias is a mail to an address that stands for two.
func alias(m *mail) {
	m.rcpt = m.name("team") + "@kunde-a.example"
	c := m.dial()
	m.envelope(c)
	c.message("250", m.text(hello))
	c.quit()
	one, two := m.handedIn("sent"), m.handedIn("sent")
	one.OrigTo, two.OrigTo = m.rcpt, m.rcpt
	one.Rcpt, two.Rcpt = m.name("ok")+"t1@kunde-a.example", m.name("ok")+"t2@kunde-b.example"
	m.g.note(m, c, one, two)
}

func nullSender(m *mail) {
	m.sender = ""
	m.send("sent", hello)
}

func utf8(m *mail) {
	m.sender = m.name("jürgen") + "@bürgerhaus.example"
	c := m.dial()
	c.cmd("250", "EHLO %s", m.helo)
	c.cmd("250", "MAIL FROM:<%s> SMTPUTF8", m.sender)
	c.cmd("250", "RCPT TO:<%s>", m.rcpt)
	c.message("250", m.text(hello))
	c.quit()
	m.g.note(m, c, m.handedIn("sent"))
}

// authenticated is a user's mail to the world.
func authenticated(m *mail) {
	m.sender, m.rcpt = m.name("user")+"@kunde-a.example", m.name("ok")+"@world.example"
	c := m.dial()
	c.cmd("250", "EHLO %s", m.helo)
	c.login("235", m.sender, password)
	c.cmd("250", "MAIL FROM:<%s>", m.sender)
	c.cmd("250", "RCPT TO:<%s>", m.rcpt)
	c.message("250", m.text(hello))
	c.quit()
	t := m.handedIn("sent")
	t.SASLUser, t.Direction = m.sender, "out"
	m.g.note(m, c, t)
}
