package maillog

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
	"time"
)

// Parser reads lines of one source. It remembers what the reading of
// year-less time stamps and of repeat counters needs, and which idents have
// shown to be Postfix; all of it is bounded. It is not safe for concurrent use.
type Parser struct {
	clock clock

	// last is the last message that a repeat counter would multiply.
	last     []byte
	lastHost []byte
	lastTag  []byte
	lastPID  int64
	lastOK   bool

	tags    [128]tagParts // idents seen lately
	sources [512]source   // "host ident[pid]" seen lately

	// bare holds idents without a path that logged as Postfix does: syslog
	// daemons that cut the ident at the slash leave us only those.
	bare map[string]struct{}
}

// maxBare bounds Parser.bare.
const maxBare = 256

// NewParser returns a parser for one source.
func NewParser(opt Options) *Parser {
	if opt.Location == nil {
		opt.Location = time.Local
	}
	if opt.Now.IsZero() {
		opt.Now = time.Now()
	}
	return &Parser{clock: clock{opt: opt}, bare: map[string]struct{}{}}
}

// Parse reads one line, without its newline, into ev.
func (p *Parser) Parse(line []byte, ev *Event) Class {
	ev.reset()
	n := len(line)
	for n > 0 && (line[n-1] == '\n' || line[n-1] == '\r') {
		n--
	}
	line = line[:n]
	msg, ok := p.header(line, ev)
	if !ok {
		ev.Class = Foreign
		return Foreign
	}
	ev.Msg = msg
	ev.Class = p.message(ev, msg)
	p.keepForRepeat(ev)
	return ev.Class
}

// header reads everything up to the message.
func (p *Parser) header(line []byte, ev *Event) (msg []byte, ok bool) {
	b, versioned := pri(line)
	us, coarse, n := p.clock.stamp(b)
	if n == 0 || n >= len(b) || b[n] != ' ' {
		return nil, false
	}
	ev.Time, ev.Coarse = us, coarse
	b = b[n+1:]
	if versioned {
		return p.hostAndTag(b, ev, true)
	}
	msg, at, n := p.knownSource(b, ev)
	if msg != nil {
		return msg, true
	}
	msg, ok = p.hostAndTag(b, ev, false)
	if ok && at != nil {
		at.keep(b, n, msg, ev)
	}
	return msg, ok
}

// hostAndTag reads the header behind the time stamp.
func (p *Parser) hostAndTag(b []byte, ev *Event, versioned bool) (msg []byte, ok bool) {
	b = skipBlanks(b)
	ev.Host, b = word(b)
	if len(ev.Host) > 2 && ev.Host[0] == '<' && ev.Host[len(ev.Host)-1] == '>' { // syslogd -v of FreeBSD
		ev.Host, b = word(b)
	}
	if len(ev.Host) == 0 {
		return nil, false
	}
	if versioned {
		return p.header5424(b, ev)
	}
	return p.headerTag(b, ev)
}

// source is what the header says of "host ident[pid]", which some hundred
// processes repeat on every line.
type source struct {
	text                            [54]byte
	n                               uint8
	daemon                          Daemon
	host, tag, tagEnd, prog, in, to uint8 // Host is text[:host], Tag text[tag:tagEnd] ...
	pid                             int64
	id                              uint64
}

// sourceIDs numbers sources over all parsers.
var sourceIDs atomic.Uint64

// knownSource fills in a header that was read before. The text ends at the
// first colon; where that is not the end of an ident, as in an IPv6 host name,
// it is not kept either.
func (p *Parser) knownSource(b []byte, ev *Event) (msg []byte, at *source, n int) {
	n = bytes.IndexByte(b[:min(len(b), len(source{}.text)+1)], ':')
	if n < 9 || n+2 >= len(b) || b[n+1] != ' ' || b[n+2] == ' ' || b[n+2] == '[' {
		return nil, nil, 0
	}
	h := binary.LittleEndian.Uint64(b[n-8:])*0x9E3779B97F4A7C15 ^ binary.LittleEndian.Uint64(b)*0xD6E8FEB86659FD93
	at = &p.sources[(h^uint64(n)<<40)>>55]
	if int(at.n) != n || string(at.text[:n]) != string(b[:n]) {
		return nil, at, n
	}
	ev.Host, ev.Tag = b[:at.host], b[at.tag:at.tagEnd]
	ev.Program, ev.Instance = b[at.prog:at.tagEnd], b[at.in:at.to]
	ev.Daemon, ev.PID, ev.Source = at.daemon, at.pid, at.id
	return b[n+2:], at, n
}

// keep remembers the header that b begins with, if msg follows it directly.
func (at *source) keep(b []byte, n int, msg []byte, ev *Event) {
	off := func(sub []byte) int { return cap(b) - cap(sub) }
	if len(b)-len(msg) != n+2 || len(ev.Tag) < 2 || off(ev.Tag)+len(ev.Tag) > n {
		return
	}
	at.n = uint8(copy(at.text[:], b[:n]))
	at.host, at.tag, at.tagEnd = uint8(len(ev.Host)), uint8(off(ev.Tag)), uint8(off(ev.Tag)+len(ev.Tag))
	at.prog, at.in = uint8(off(ev.Program)), uint8(off(ev.Instance))
	at.to = at.in + uint8(len(ev.Instance))
	at.daemon, at.pid = ev.Daemon, ev.PID
	at.id = sourceIDs.Add(1)
}

// pri skips "<22>" and the version that RFC 5424 section 6.2.2 puts behind it
// (rsyslog writes files in that format without the priority).
func pri(b []byte) (rest []byte, versioned bool) {
	if len(b) > 2 && b[0] == '<' {
		i := 1
		for i < len(b) && i < 5 && digit(b[i]) {
			i++
		}
		if i < len(b) && b[i] == '>' && i > 1 {
			b = b[i+1:]
		}
	}
	if len(b) > 2 && b[0] == '1' && b[1] == ' ' && (digit(b[2]) || b[2] == '-') {
		return b[2:], true
	}
	return b, false
}

// word splits at the first blank.
func word(b []byte) (w, rest []byte) {
	i := bytes.IndexByte(b, ' ')
	if i < 0 {
		return b, nil
	}
	return b[:i], b[i+1:]
}

// header5424 reads APP-NAME PROCID MSGID STRUCTURED-DATA of RFC 5424.
func (p *Parser) header5424(b []byte, ev *Event) (msg []byte, ok bool) {
	ev.Tag, b = word(b)
	var pid []byte
	pid, b = word(b)
	_, b = word(b)
	if len(ev.Tag) == 0 || b == nil {
		return nil, false
	}
	ev.PID = number(pid)
	switch {
	case len(b) > 0 && b[0] == '-':
		b = b[1:]
	case len(b) > 0 && b[0] == '[':
		i := 1
		for ; i < len(b); i++ {
			if b[i] == '\\' {
				i++
			} else if b[i] == ']' && (i+1 == len(b) || b[i+1] == ' ') {
				break
			}
		}
		if i >= len(b) {
			return nil, false
		}
		b = b[i+1:]
	}
	b = skipBlanks(b)
	if len(b) >= 3 && b[0] == 0xEF && b[1] == 0xBB && b[2] == 0xBF {
		b = b[3:]
	}
	p.ident(ev)
	return b, true
}

// headerTag reads "postfix/smtpd[123]: message", also without the colon (as
// rsyslog prints what it received as RFC 5424), without the pid, with the
// "[ID 197553 mail.info]" of Solaris, and messages without a tag.
func (p *Parser) headerTag(b []byte, ev *Event) (msg []byte, ok bool) {
	if has(b, "last message repeated ") {
		return b, true
	}
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '[':
			j := i + 1
			for j < len(b) && digit(b[j]) {
				j++
			}
			if j == i+1 || j >= len(b) || b[j] != ']' {
				continue
			}
			ev.Tag, ev.PID = b[:i], number(b[i+1:j])
			b = b[j+1:]
			if len(b) > 0 && b[0] == ':' {
				b = b[1:]
			}
			return p.afterTag(b, ev)
		case ':':
			if i+1 == len(b) || b[i+1] == ' ' {
				ev.Tag = b[:i]
				return p.afterTag(b[i+1:], ev)
			}
		case ' ':
			if i == 0 {
				return nil, false
			}
			ev.Tag = b[:i]
			return p.afterTag(b[i+1:], ev)
		}
	}
	ev.Tag = b
	return p.afterTag(nil, ev)
}

func (p *Parser) afterTag(b []byte, ev *Event) ([]byte, bool) {
	b = skipBlanks(b)
	if len(b) > 4 && b[0] == '[' && b[1] == 'I' && b[2] == 'D' && b[3] == ' ' {
		if i := bytes.Index(b, []byte("] ")); i > 0 && i < 64 {
			b = b[i+2:]
		}
	}
	p.ident(ev)
	return b, true
}

// tagParts is what ident made of a tag.
type tagParts struct {
	tag                 [46]byte
	n                   uint8
	daemon              Daemon
	inst, prog, progEnd uint8 // instance is tag[inst:...], program tag[prog:]
}

// ident splits the tag, as a rule with what it made of it the last time.
func (p *Parser) ident(ev *Event) {
	t := ev.Tag
	n := len(t)
	if n < 2 || n > len(tagParts{}.tag) {
		ident(ev)
		return
	}
	c := &p.tags[(n*37+int(t[0])*11+int(t[1])*5+int(t[n-1])*3+int(t[n/2])*7+int(t[n-2]))&127]
	if int(c.n) == n && string(c.tag[:n]) == string(t) {
		ev.Program, ev.Instance, ev.Daemon = t[c.prog:], t[c.inst:c.progEnd], c.daemon
		return
	}
	ident(ev)
	c.n, c.daemon = uint8(copy(c.tag[:], t)), ev.Daemon
	c.prog = uint8(n - len(ev.Program))
	c.inst, c.progEnd = 0, uint8(len(ev.Instance))
	if t[0] == '/' { // the instance is the program
		c.inst, c.progEnd = c.prog, uint8(n)
	}
}

// ident splits the tag into instance and program. The daemon is the last path
// element and the instance the first, whatever they are called: idents are
// what postmasters write into syslog_name.
func ident(ev *Event) {
	t := ev.Tag
	last := bytes.LastIndexByte(t, '/')
	if last < 0 {
		ev.Instance, ev.Program = t, t
		return
	}
	ev.Program = t[last+1:]
	if t[0] == '/' { // /usr/sbin/amavisd: a path, not a syslog_name
		ev.Instance = ev.Program
		return
	}
	ev.Instance = t[:bytes.IndexByte(t, '/')]
	ev.Daemon = postfixDaemon(ev.Program)
	if ev.Daemon == DaemonUnknown { // smtpd.local
		if dot := bytes.IndexByte(ev.Program, '.'); dot > 0 {
			ev.Daemon = postfixDaemon(ev.Program[:dot])
		}
	}
}

// postfixDaemon knows the programs of Postfix 2.0 to 3.11.
func postfixDaemon(name []byte) Daemon {
	switch string(name) {
	case "smtpd", "qmqpd":
		return Smtpd
	case "cleanup":
		return Cleanup
	case "qmgr", "nqmgr", "oqmgr":
		return Qmgr
	case "pickup":
		return Pickup
	case "bounce", "defer", "trace":
		return Bounce
	case "smtp", "lmtp", "local", "virtual", "pipe", "error", "retry", "discard", "relay":
		return Delivery
	case "postscreen":
		return Postscreen
	case "postsuper":
		return Postsuper
	case "anvil", "dnsblog", "flush", "master", "nbdb_reindexd", "postalias", "postcat", "postconf", "postdrop",
		"postfix", "postfix-script", "postfix-tlspol", "postfix-wrapper", "postkick", "postlock", "postlog", "postlogd",
		"postmap", "postmulti", "postqueue", "post-install", "posttls-finger", "proxymap", "proxywrite", "scache",
		"sendmail", "showq", "smtp-sink", "smtp-source", "spawn", "tlsmgr", "tlsproxy", "trivial-rewrite", "rewrite",
		"verify", "postfix-files":
		return OtherPostfix
	}
	return DaemonUnknown
}

// number reads a non-negative decimal; 0 where there is none.
func number(b []byte) int64 {
	var n int64
	for _, c := range b {
		if !digit(c) || n > 1<<53 {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// keepForRepeat remembers a message that "last message repeated N times" may
// multiply: only refused commands and failed logins look the same twice.
func (p *Parser) keepForRepeat(ev *Event) {
	switch ev.Kind {
	case KindReject, KindAuthFailed:
		p.last = append(p.last[:0], ev.Msg...)
		p.lastHost = append(p.lastHost[:0], ev.Host...)
		p.lastTag = append(p.lastTag[:0], ev.Tag...)
		p.lastPID, p.lastOK = ev.PID, true
	default:
		p.lastOK = false
	}
}

// repeated reads both forms of a repeat counter: "message repeated 2 times:
// [ text]" of rsyslog, with the message in it, and "last message repeated 3
// times" of older daemons, without. It reports whether the message is one,
// and gives what was repeated.
func (p *Parser) repeated(ev *Event, msg []byte) (inner []byte, is bool) {
	if rest, ok := cutPrefix(msg, "message repeated "); ok {
		n, rest := word(rest)
		rest, ok = cutPrefix(rest, "times: [")
		if !ok || number(n) == 0 {
			return nil, false
		}
		ev.Repeat = int(min(number(n), 10000))
		return bytes.TrimPrefix(bytes.TrimSuffix(rest, []byte("]")), []byte(" ")), true
	}
	rest, ok := cutPrefix(msg, "last message repeated ")
	if !ok {
		return nil, false
	}
	if !p.lastOK || string(p.lastHost) != string(ev.Host) {
		return nil, true
	}
	ev.Repeat = int(min(number(rest), 10000))
	ev.Tag, ev.PID = p.lastTag, p.lastPID
	ident(ev)
	return p.last, true
}
