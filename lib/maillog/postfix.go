package maillog

import "bytes"

// message dispatches by what the line is, not by who is said to have logged
// it: idents are configurable, and some syslog daemons cut them.
func (p *Parser) message(ev *Event, msg []byte) Class {
	if len(msg) > 20 && (msg[0] == 'm' || msg[0] == 'l') {
		if inner, is := p.repeated(ev, msg); is {
			if inner == nil {
				return Noise
			}
			msg = inner
			ev.Msg = msg
		}
	}
	if c, ok := p.notPostfix(ev, msg); ok {
		return c
	}
	c := postfixLine(ev, msg)
	if ev.Daemon != DaemonNone {
		return c
	}
	// An ident without a path: "mx2" where it was mx2/smtpd, or a program
	// that has nothing to do with mail.
	if c == Used {
		ev.Daemon = daemonOf(ev.Kind)
		if ev.QID != nil || ev.NoQueue || ev.Kind == KindConnect || ev.Kind == KindDisconnect {
			p.learn(ev.Program)
		}
		return c
	}
	if string(ev.Program) == "postfix" {
		ev.Daemon = OtherPostfix
		return c
	}
	if _, known := p.bare[string(ev.Program)]; known {
		ev.Daemon = DaemonUnknown
		return c
	}
	return Noise
}

// learn remembers that a bare ident logs as Postfix does.
func (p *Parser) learn(program []byte) {
	if _, known := p.bare[string(program)]; !known && len(p.bare) < maxBare {
		p.bare[string(program)] = struct{}{}
	}
}

// daemonOf tells the daemon from the message, where the ident does not.
func daemonOf(k Kind) Daemon {
	switch k {
	case KindConnect, KindDisconnect, KindLost, KindTLS, KindAuthFailed, KindAbuse, KindClient, KindProxy:
		return Smtpd
	case KindPickup:
		return Pickup
	case KindMsgID, KindCanceled:
		return Cleanup
	case KindQueued, KindExpired:
		return Qmgr
	case KindDelivery:
		return Delivery
	case KindNotify:
		return Bounce
	case KindScreenConnect, KindScreenPass, KindScreenViolation, KindScreenDisconnect:
		return Postscreen
	case KindHeld, KindReleased, KindRequeued:
		return Postsuper
	}
	return DaemonUnknown
}

// notPostfix parses the lines of Amavis and Dovecot and sorts out programs
// that are known to have nothing for us.
func (p *Parser) notPostfix(ev *Event, msg []byte) (Class, bool) {
	if ev.Daemon != DaemonNone && ev.Daemon != DaemonUnknown {
		return 0, false
	}
	if len(msg) > 0 && msg[0] == '(' {
		if c, ok := amavisLine(ev, msg); ok {
			ev.Daemon = Amavis
			return c, true
		}
	}
	switch prog := ev.Program; {
	case ev.Daemon == DaemonNone && otherMTA(prog), ev.Daemon == DaemonUnknown && policyServer(prog):
		ev.Daemon = DaemonNone
		return Noise, true
	case bytes.Contains(prog, []byte("amavis")):
		ev.Daemon = Amavis
		return Noise, true
	case has(prog, "dovecot"):
		ev.Daemon = Dovecot
		return dovecotLine(ev, msg), true
	}
	return 0, false
}

// otherMTA tells mail servers whose lines look a little like Postfix's.
func otherMTA(prog []byte) bool {
	switch string(prog) {
	case "sendmail", "sm-mta", "sm-msp-queue", "exim", "exim4", "opensmtpd", "smtpd-policy":
		return true
	}
	return false
}

// policyServer tells the policy servers and filters that spawn(8) runs under
// Postfix's own syslog_name.
func policyServer(prog []byte) bool {
	for _, w := range [...]string{"policy", "spf", "grey", "dkim", "dmarc", "srs"} {
		if bytes.Contains(prog, []byte(w)) {
			return true
		}
	}
	return false
}

// postfixLine parses what a Postfix program logged.
func postfixLine(ev *Event, msg []byte) Class {
	if qid, rest, ok := queueID(msg); ok {
		if len(qid) == 0 {
			ev.NoQueue = true
		} else {
			ev.QID = qid
		}
		return queueLine(ev, rest)
	}
	if len(msg) == 0 {
		return Noise
	}
	switch {
	case ev.Daemon == Smtpd || ev.Daemon == DaemonUnknown || ev.Daemon == DaemonNone:
		if c, ok := sessionLine(ev, msg); ok {
			return c
		}
		if ev.Daemon == Smtpd {
			break
		}
		fallthrough
	case ev.Daemon == Postscreen, string(ev.Program) == "tlsproxy", string(ev.Program) == "dnsblog":
		if c, ok := screenLine(ev, msg); ok {
			return c
		}
	}
	return sundryLine(ev, msg)
}

// queueID splits "4jYCqY6sm9z1TZ25: rest" and "NOQUEUE: rest" (an empty id).
// Short ids are hexadecimal, at least six digits (five of them microseconds,
// src/global/mail_queue.h); long ids are base 52 without vowels: six digits of
// seconds, four of microseconds, 'z', the inode.
func queueID(msg []byte) (qid, rest []byte, ok bool) {
	i, all := 0, byte(idAny|idHex|idLong)
	for _, ch := range msg[:min(len(msg), 40)] {
		c := idClass[ch]
		if c == 0 {
			break
		}
		all &= c
		i++
	}
	if i < 6 || i+1 >= len(msg) || msg[i] != ':' || msg[i+1] != ' ' {
		return nil, nil, false
	}
	id := msg[:i]
	if all&idHex != 0 || all&idLong != 0 && i >= 12 && id[10] == 'z' {
		return id, msg[i+2:], true
	}
	if string(id) == "NOQUEUE" {
		return id[:0], msg[i+2:], true
	}
	return nil, nil, false
}

// Classes of the characters in queue ids.
const (
	idAny  = 1 << iota // letters and digits
	idHex              // short ids: upper-case hexadecimal
	idLong             // long ids: no vowels
)

var idClass = func() (t [256]byte) {
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = idAny | idHex | idLong
		case c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z':
			t[c] = idAny | idLong
		}
	}
	for _, c := range "aeiouAEIOU" {
		t[c] &^= idLong
	}
	for _, c := range "ABCDEF" {
		t[c] |= idHex
	}
	return t
}()

// QueueID reports whether b looks like a Postfix queue id, short or long.
func QueueID(b []byte) bool {
	all := byte(idAny | idHex | idLong)
	for _, c := range b {
		all &= idClass[c]
	}
	// seconds take a seventh digit, and 'z' another place, from the year 2600 on
	return len(b) >= 6 && all&idHex != 0 || len(b) >= 12 && all&idLong != 0 && b[10] == 'z'
}

// queueLine parses what follows a queue id or NOQUEUE.
func queueLine(ev *Event, b []byte) Class {
	if len(b) == 0 {
		return Unparsed
	}
	switch b[0] {
	case 't':
		if rest, ok := cutPrefix(b, "to="); ok {
			return deliveryLine(ev, rest)
		}
	case 'c':
		if rest, ok := cutPrefix(b, "client="); ok {
			return clientLine(ev, rest)
		}
	case 'm':
		if rest, ok := cutPrefix(b, "message-id="); ok {
			ev.Kind, ev.MsgID = KindMsgID, messageID(rest)
			return Used
		}
	case 'f':
		if rest, ok := cutPrefix(b, "from="); ok {
			return fromLine(ev, rest)
		}
	case 'u':
		if rest, ok := cutPrefix(b, "uid="); ok {
			return pickupLine(ev, rest)
		}
	case 'r':
		if has(b, "removed") {
			return removedLine(ev, b)
		}
		if has(b, "resent-message-id=") {
			ev.Kind = KindLegNote
			return Used
		}
	}
	if c, ok := actionLine(ev, b); ok {
		return c
	}
	if ev.QID == nil {
		return noqueueLine(ev, b)
	}
	return legLine(ev, b)
}

// messageID drops the angle brackets; a header may hold an id without them,
// none, or something else altogether.
func messageID(b []byte) []byte {
	if len(b) >= 2 && b[0] == '<' {
		if i := bytes.IndexByte(b, '>'); i > 0 && i == len(b)-1 {
			return b[1:i]
		}
		if b[len(b)-1] != '>' { // cut short
			return b[1:]
		}
	}
	return b
}

// clientLine parses smtpd's "client=name[ip], sasl_method=, sasl_username=,
// sasl_sender=, orig_queue_id=, orig_client=name[ip]" (src/smtpd/smtpd.c
// smtpd_check_queue and cleanup_open_stream).
func clientLine(ev *Event, b []byte) Class {
	ev.Kind = KindClient
	var first []byte
	first, b = cutComma(b)
	ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(first)
	for len(b) > 0 {
		var kv []byte
		kv, b = cutComma(b)
		k, v, ok := bytes.Cut(kv, []byte("="))
		if !ok {
			continue
		}
		switch string(k) {
		case "sasl_method":
			ev.SASLMethod = v
		case "sasl_username":
			ev.SASLUser = v
		case "orig_queue_id":
			ev.OrigQID = v
		case "orig_client":
			ev.OrigClientName, ev.OrigClientIP, _ = endpoint(v)
		}
	}
	return Used
}

// has is bytes.HasPrefix for constants: it compares words, and calls nothing.
func has(b []byte, p string) bool { return len(b) >= len(p) && string(b[:len(p)]) == p }

// cutPrefix is bytes.CutPrefix likewise.
func cutPrefix(b []byte, p string) (rest []byte, ok bool) {
	if !has(b, p) {
		return b, false
	}
	return b[len(p):], true
}

// cutComma splits at ", ".
func cutComma(b []byte) (first, rest []byte) {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], ',')
		if i < 0 {
			return b, nil
		}
		at += i
		if at+1 < len(b) && b[at+1] == ' ' {
			return b[:at], b[at+2:]
		}
		at++
	}
}

// endpoint splits name[ip], name[ip]:port, [ip]:port and name[/path/socket].
func endpoint(b []byte) (name, ip, port []byte) {
	i := bytes.IndexByte(b, '[')
	if i < 0 {
		return b, nil, nil
	}
	name = b[:i]
	j := bytes.IndexByte(b[i:], ']')
	if j < 0 {
		return name, b[i+1:], nil
	}
	if ip = b[i+1 : i+j]; string(ip) == "unknown" {
		ip = nil
	}
	if rest := b[i+j+1:]; len(rest) > 1 && rest[0] == ':' {
		k := 1
		for k < len(rest) && digit(rest[k]) {
			k++
		}
		port = rest[1:k]
	}
	return name, ip, port
}

// pickupLine parses "uid=33 from=<x>" and, after a requeue, " orig_id=Q"
// (src/pickup/pickup.c).
func pickupLine(ev *Event, b []byte) Class {
	ev.Kind = KindPickup
	_, b = word(b)
	if rest, ok := cutPrefix(b, "from=<"); ok {
		i := bytes.LastIndexByte(rest, '>')
		if i < 0 {
			i = len(rest)
		}
		ev.Sender = rest[:i]
		if orig, ok := cutPrefix(rest[min(i+1, len(rest)):], " orig_id="); ok {
			ev.OrigQID = orig
		}
	}
	return Used
}

// fromLine parses qmgr's "from=<s>, size=1, nrcpt=1 (queue active)" and
// "from=<s>, status=expired, returned to sender" (src/qmgr/qmgr_active.c); the
// sender may be anything, so both are anchored at the end.
func fromLine(ev *Event, b []byte) Class {
	if bytes.HasSuffix(b, []byte("(queue active)")) {
		if i := lastComma(b, []byte(", size=")); i >= 0 {
			ev.Kind, ev.Sender = KindQueued, bracketed(b[:i])
			rest := b[i+7:]
			ev.Size = number(rest)
			if j := bytes.Index(rest, []byte("nrcpt=")); j >= 0 {
				ev.NRcpt = number(rest[j+6:])
			}
			return Used
		}
	}
	if i := lastComma(b, []byte(", status=")); i >= 0 {
		what := b[i+9:]
		if has(what, "expired") || has(what, "force-expired") {
			ev.Kind, ev.Sender, ev.Text = KindExpired, bracketed(b[:i]), what
			ev.StatusWord, _ = cutComma(what)
			return Used
		}
	}
	ev.Kind, ev.Sender = KindLegNote, bracketed(b)
	return Used
}

// lastComma finds the last occurrence of a separator that begins with a comma.
func lastComma(b, sep []byte) int {
	for i := bytes.LastIndexByte(b, ','); i >= 0; i = bytes.LastIndexByte(b[:i], ',') {
		if bytes.HasPrefix(b[i:], sep) {
			return i
		}
	}
	return -1
}

// bracketed takes the angle brackets off an address; Postfix 2.x's local(8)
// logs some without.
func bracketed(b []byte) []byte {
	if len(b) > 0 && b[0] == '<' {
		b = b[1:]
		if n := len(b); n > 0 && b[n-1] == '>' {
			b = b[:n-1]
		}
	}
	return b
}

// removedLine parses "removed" (qmgr, postsuper), "removed (canceled)" and
// "removed (discarded)" (cleanup since 3.10).
func removedLine(ev *Event, b []byte) Class {
	ev.Kind = KindRemoved
	if rest, ok := cutPrefix(b, "removed ("); ok {
		ev.Kind = KindCanceled
		ev.Action = bytes.TrimSuffix(rest, []byte(")"))
	}
	return Used
}

// legLine parses the rarer lines with a queue id. What is not known still
// belongs to the mail.
func legLine(ev *Event, b []byte) Class {
	ev.Kind = KindLegNote
	switch {
	case has(b, "placed on hold"):
		ev.Kind = KindHeld
	case has(b, "released from hold"):
		ev.Kind = KindReleased
	case has(b, "requeued"):
		ev.Kind = KindRequeued
	case hasNotice(ev, b), remoteLine(ev, b), lostLine(ev, b):
	case legNote(b):
	default:
		return Unparsed
	}
	return Used
}

// legNotes are the lines of smtp, qmgr, bounce, local and cleanup that say
// something of a mail and change nothing.
var legNotes = [...]string{
	"passing <", "skipped, still being delivered", "expired", "sender notification failed", "enabling PIX workarounds",
	"breaking line", "warning: ", "Cannot start TLS", "TLS is required", "bcc:", "abort: TLS from", "milter ",
	"conversation with ", "Server certificate ", "certificate verification failed", "SASL ", "not sending ",
	"replacing server reply", "status=", "reply filter in", "lost connection with ", "host ", "TLS ",
	"uses ", "queue file ", "copy_segment", "error ", "fatal: ",
}

func legNote(b []byte) bool {
	for _, p := range legNotes {
		if has(b, p) {
			return true
		}
	}
	return bytes.Contains(b, []byte("]: Ok: queued as ")) // qmqpd
}

// hasNotice parses "sender non-delivery notification: Q2" and its kin
// (src/bounce/bounce_notify_service.c and siblings).
func hasNotice(ev *Event, b []byte) bool {
	i := bytes.Index(b, []byte(" notification: "))
	if i < 0 || i > 60 || !(has(b, "sender ") || has(b, "postmaster ")) {
		return false
	}
	id := b[i+15:]
	if !QueueID(id) {
		return false
	}
	ev.Kind, ev.NewQID, ev.Notice = KindNotify, id, b[:i+13]
	return true
}

// noqueueLine parses what follows NOQUEUE and is no policy action.
func noqueueLine(ev *Event, b []byte) Class {
	if lostLine(ev, b) {
		return Used
	}
	if has(b, "abort: TLS from ") {
		ev.Kind, ev.Action, ev.Text = KindLost, b[:5], b
		ev.Stage = stageTLS
		ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(b[len("abort: TLS from "):])
		return Used
	}
	return Unparsed
}
