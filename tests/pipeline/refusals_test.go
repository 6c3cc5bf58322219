package pipeline

import (
	"fmt"
	"strings"
)

// refused is a recipient refused with a code, because of what change changes.
func refused(code string, change func(*mail)) func(*mail) {
	return func(m *mail) {
		change(m)
		c := m.dial()
		c.cmd("250", "EHLO %s", m.helo)
		c.cmd("250", "MAIL FROM:<%s>", m.sender)
		c.cmd(code, "RCPT TO:<%s>", m.rcpt)
		c.quit()
		t := m.truth("rejected")
		t.Code, t.Stage = code, "RCPT"
		m.g.note(m, c, t)
	}
}

// header is refused for what stands in a header.
func header(m *mail) {
	c := m.dial()
	m.envelope(c)
	c.message("550", m.text("Subject: forbidden words\n\nhello\n"))
	c.quit()
	t := m.handedIn("rejected")
	t.Stage = "header"
	m.g.note(m, c, t)
}

func atData(m *mail) {
	m.sender = m.name("atdata") + "@sender1.example"
	c := m.dial()
	m.envelope(c)
	c.cmd("554", "DATA")
	c.quit()
	t := m.truth("rejected")
	t.Code, t.Stage = "554", "DATA"
	m.g.note(m, c, t)
}

func atEnd(m *mail) {
	m.sender = m.name("atend") + "@sender1.example"
	c := m.dial()
	m.envelope(c)
	c.message("554", m.text(hello))
	c.quit()
	t := m.truth("rejected")
	t.Code, t.Stage = "554", "END-OF-MESSAGE"
	m.g.note(m, c, t)
}

// pipelining sends ahead of the replies without having asked whether it may.
func pipelining(m *mail) {
	c := m.dial()
	c.cmd("250", "HELO %s", m.helo)
	c.write(fmt.Sprintf("MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n", m.sender, m.rcpt))
	c.expect("250")
	c.expect("250")
	c.expect("503")
	c.quit()
	t := m.truth("rejected")
	t.Code, t.Stage = "503", "DATA"
	m.g.note(m, c, t)
}

// noNames notes what the log knows by client address only.
func (m *mail) noNames(c *client, fate, code, stage string) {
	t := m.truth(fate)
	t.Sender, t.Rcpt, t.Code, t.Stage, t.Blind = "", "", code, stage, true
	m.g.note(m, c, t)
}

// big grows beyond the limit without having said so.
func big(m *mail) {
	c := m.dial()
	m.envelope(c)
	c.message("552", m.text("Subject: big\n\n"+strings.Repeat("a line of a very long letter\n", 2*tooBig/29)))
	c.quit()
	m.noNames(c, "rejected", "", "")
}

// announced says its size.
func announced(m *mail) {
	c := m.dial()
	c.cmd("250", "EHLO %s", m.helo)
	c.cmd("552", "MAIL FROM:<%s> SIZE=%d", m.sender, 100*tooBig)
	c.quit()
	m.noNames(c, "rejected", "552", "MAIL")
}

func authFailed(m *mail) {
	c := m.dial()
	c.cmd("250", "EHLO %s", m.helo)
	c.login("535", m.sender, "wrong")
	c.quit()
	m.noNames(c, "rejected", "", "AUTH")
}

func earlyClient(m *mail) {
	m.ip = strings.Replace(m.ip, m.net(), "127.66.", 1)
	c := dial(m.ip, earlyPort, "554")
	c.quit()
	m.noNames(c, "rejected", "554", "CONNECT")
}

func earlyHelo(m *mail) {
	m.helo = m.name("localhost")
	c := dial(m.ip, earlyPort, "220")
	c.cmd("504", "EHLO %s", m.helo)
	c.quit()
	m.noNames(c, "rejected", "504", "EHLO")
}

func earlySender(m *mail) {
	m.sender, m.rcpt = m.name("badsender")+"@sender1.example", ""
	c := dial(m.ip, earlyPort, "220")
	c.cmd("250", "EHLO %s", m.helo)
	c.cmd("554", "MAIL FROM:<%s>", m.sender)
	c.quit()
	t := m.truth("rejected")
	t.Code, t.Stage = "554", "MAIL"
	m.g.note(m, c, t)
}

// broken is a session that the client breaks off after a stage.
func broken(stage string, script func(*client, *mail)) func(*mail) {
	return func(m *mail) {
		c := m.dial()
		script(c, m)
		c.drop()
		m.noNames(c, "aborted", "", stage)
	}
}

// timeout says nothing after RCPT until the server hangs up.
func timeout(m *mail) {
	c := m.dial()
	m.envelope(c)
	c.expect("421")
	c.gone()
	m.noNames(c, "aborted", "", "RCPT")
}

// errors5 talks nonsense until the server hangs up.
func errors5(m *mail) {
	c := m.dial()
	c.cmd("250", "EHLO %s", m.helo)
	c.cmd("250", "MAIL FROM:<%s>", m.sender)
	for range 4 {
		c.cmd("500", "NONSENSE")
	}
	c.write("NONSENSE\r\n")
	c.gone()
	m.noNames(c, "aborted", "", "")
}

// notSMTP is another protocol.
func notSMTP(m *mail) {
	c := m.dial()
	c.write("GET / HTTP/1.1\r\n")
	c.gone()
	m.noNames(c, "aborted", "", "")
}
