package maillog

import "bytes"

// actionLine parses "ACTION: STAGE from h[ip]: 550 5.1.1 <r>: text; from=<s>
// to=<r> proto=ESMTP helo=<h>" of smtpd(8) and postscreen(8), and "ACTION:
// header Subject: x from h[ip]; from=<s> to=<r> proto=ESMTP helo=<h>: text" of
// cleanup(8) (src/smtpd/smtpd_check.c log_whatsup, src/cleanup/
// cleanup_message.c cleanup_act, cleanup_milter.c).
func actionLine(ev *Event, b []byte) (Class, bool) {
	i := bytes.IndexByte(b, ':')
	if i < 3 || i > 30 || i+2 >= len(b) || b[i+1] != ' ' {
		return 0, false
	}
	kind := KindNone
	switch string(b[:i]) {
	case "reject", "milter-reject":
		kind = KindReject
	case "hold", "milter-hold", "milter-quarantine", "quarantine":
		kind = KindHold
	case "discard", "milter-discard":
		kind = KindDiscard
	case "proxy-accept", "proxy-reject", "proxy-reply":
		if proxyLine(ev, b) {
			return Used, true
		}
		return 0, false
	case "warn", "warning", "info", "filter", "redirect", "bcc", "prepend", "replace", "strip", "permit", "dunno",
		"reject_warning", "trigger", "client", "helo", "delay", "milter-add", "milter-replace", "milter-warning",
		"milter-header-redirect", "milter-header-hold", "milter-header-warn", "milter-header-prepend", "milter-header-replace",
		"milter-header-filter", "milter-header-discard", "milter-header-reject", "milter-header-info", "milter-header-add",
		"milter-header-ignore", "milter-body-warn", "pass", "accept", "hangup", "milter-accept", "milter-abort", "milter-redirect":
		kind = KindCheck
	default:
		return 0, false
	}
	switch string(b[:i]) {
	case "milter-header-reject":
		kind = KindReject
	case "milter-header-discard":
		kind = KindDiscard
	case "milter-header-hold":
		kind = KindHold
	}
	action := b[:i]
	rest := b[i+2:]
	if kind == KindCheck && string(action) == "warning" && !policyTail(rest) {
		ev.Kind, ev.Text = KindLegNote, rest // "Q: warning: ..." of another sort
		return Used, true
	}
	ev.Kind, ev.Action = kind, action
	whatsup(ev, rest)
	return Used, true
}

// policyTail reports whether a text ends as log_whatsup ends.
func policyTail(b []byte) bool {
	return bytes.Contains(b, []byte("; from=<")) || bytes.Contains(b, []byte("; to=<"))
}

// whatsup parses everything after "ACTION: ".
func whatsup(ev *Event, b []byte) {
	head, tail := b, []byte(nil)
	if i := sessionAt(b, isContent(b)); i >= 0 {
		head, tail = b[:i], b[i+2:]
	} else if i := bytes.LastIndex(b, []byte("; to=<")); i >= 0 {
		head, tail = b[:i], b[i+2:]
	} else if i := bytes.LastIndex(b, []byte("; proto=")); i >= 0 {
		head, tail = b[:i], b[i+2:]
	}
	after := session(ev, tail)
	if isContent(head) {
		contentHead(ev, head, after)
		return
	}
	stage, rest := word(head)
	ev.Stage = stage
	peer, ok := cutPrefix(rest, "from ")
	if !ok {
		// "END-OF-MESSAGE: 554 ..." without a client
		ev.Stage = bytes.TrimSuffix(stage, []byte(":"))
		ev.reply(rest)
		return
	}
	end := bytes.IndexByte(peer, ']')
	if end < 0 {
		end = 0
	}
	text := []byte(nil)
	if i := bytes.Index(peer[end:], []byte(": ")); i >= 0 {
		text = peer[end+i+2:]
		peer = peer[:end+i]
	}
	ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(peer)
	ev.reply(text)
}

// sessionAt finds the "; from=<" that begins the session data: the first, or
// behind a header the last, from which on everything reads as they do,
// because addresses and headers can imitate them.
func sessionAt(b []byte, header bool) int {
	last, good := -1, -1
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte("; from=<"))
		if i < 0 {
			break
		}
		last = at + i
		if _, rest := closing(b[last+8:]); has(rest, "proto=") || has(rest, "to=<") && closes(rest[4:]) {
			if good = last; !header {
				return good
			}
		}
		at = last + 8
	}
	if good >= 0 {
		return good
	}
	return last
}

// closes reports whether an address ends where proto= or nothing follows.
func closes(b []byte) bool {
	_, rest := closing(b)
	return len(rest) == 0 || rest[0] == ':' || has(rest, "proto=")
}

// isContent tells the lines of header, body and content checks.
func isContent(b []byte) bool {
	return has(b, "header ") || has(b, "body ") ||
		has(b, "mime-header ") || has(b, "nested-header ") ||
		has(b, "mime-error ") || has(b, "content ")
}

// contentHead parses "header Subject: x from h[ip]" or "... from local"; what
// the check says stands behind the session data.
func contentHead(ev *Event, head, after []byte) {
	ev.Stage, _ = word(head)
	content := head
	if i := bytes.LastIndex(head, []byte(" from ")); i >= 0 {
		content = head[:i]
		if peer := head[i+6:]; string(peer) != "local" {
			ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(peer)
		}
	}
	if s, ok := cutPrefix(content, "header Subject: "); ok {
		ev.Subject = s
	}
	ev.Text = content
	if after != nil {
		ev.reply(after)
	}
}

// session parses "from=<s> to=<r> proto=ESMTP helo=<h>", postscreen's form
// with commas, and sasl_method, sasl_username, sasl_sender since 3.10. It
// returns what stands behind ": ". smtpd replaces <>()\";@ in HELO by ?, so
// that the tail cannot be forged through it.
func session(ev *Event, b []byte) (after []byte) {
	if rest, ok := cutPrefix(b, "from=<"); ok {
		ev.Sender, b = closing(rest)
	}
	if rest, ok := cutPrefix(b, "to=<"); ok {
		ev.Rcpt, b = closing(rest)
	}
	for len(b) > 0 {
		switch {
		case has(b, "proto="):
			ev.Proto, b = value(b[6:])
		case has(b, "helo=<"):
			ev.Helo, b = closing(b[6:])
		case has(b, "sasl_method="):
			ev.SASLMethod, b = value(b[12:])
		case has(b, "sasl_username="):
			ev.SASLUser, b = value(b[14:])
			ev.SASLUser = bracketed(ev.SASLUser)
		case has(b, ": "):
			return b[2:]
		case b[0] == ':':
			return b[1:]
		default:
			i := bytes.IndexByte(b, '=')
			if i < 0 {
				return nil
			}
			_, b = value(b[i+1:])
		}
	}
	return nil
}

// value ends at a blank, a comma or a colon with a blank.
func value(b []byte) (v, rest []byte) {
	for i, c := range b {
		if c == ' ' {
			return b[:i], b[i+1:]
		}
		if (c == ',' || c == ':') && i+1 < len(b) && b[i+1] == ' ' {
			if c == ',' {
				return b[:i], b[i+2:]
			}
			return b[:i], b[i:]
		}
	}
	return b, nil
}

// closing ends an address at the first > that a known key, ": " or the end
// follows: addresses may hold > themselves.
func closing(b []byte) (v, rest []byte) {
	for at := quotedLocal(b); ; {
		i := bytes.IndexByte(b[at:], '>')
		if i < 0 {
			return b, nil
		}
		i += at
		rest = bytes.TrimPrefix(b[i+1:], []byte(","))
		if len(rest) == 0 {
			return b[:i], nil
		}
		if rest[0] == ':' {
			return b[:i], rest
		}
		if rest[0] == ' ' {
			if k := rest[1:]; has(k, "to=<") || has(k, "proto=") ||
				has(k, "helo=<") || has(k, "sasl_") {
				return b[:i], k
			}
		}
		at = i + 1
	}
}

// quotedLocal is the length of the quoted local part that b begins with, as
// Postfix logs addresses since 3.5 (info_log_address_format); 0 if there is
// none.
func quotedLocal(b []byte) int {
	if len(b) == 0 || b[0] != '"' {
		return 0
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			if i+1 < len(b) && b[i+1] == '@' {
				return i + 1
			}
			return 0
		}
	}
	return 0
}

// reply reads "550 5.1.1 text" or "5.7.1 text" into Code, DSN and Text.
func (ev *Event) reply(b []byte) {
	ev.Code, ev.DSN, ev.Text = reply(b)
}

func reply(b []byte) (code int, dsn, text []byte) {
	if len(b) >= 3 && b[0] >= '2' && b[0] <= '5' && digit(b[1]) && digit(b[2]) && (len(b) == 3 || b[3] == ' ' || b[3] == '-') {
		code = int(b[0]-'0')*100 + two(b, 1)
		b = b[min(4, len(b)):]
	}
	if n := dsnLen(b); n > 0 {
		dsn = b[:n]
		b = b[min(n+1, len(b)):]
	}
	return code, dsn, b
}

// dsnLen is the length of an enhanced status code (RFC 3463 section 2) at the
// start of b, 0 if there is none.
func dsnLen(b []byte) int {
	if len(b) < 5 || b[0] != '2' && b[0] != '4' && b[0] != '5' || b[1] != '.' {
		return 0
	}
	i := 2
	for n := 0; n < 2; n++ {
		start := i
		for i < len(b) && digit(b[i]) && i-start < 3 {
			i++
		}
		if i == start {
			return 0
		}
		if n == 0 {
			if i >= len(b) || b[i] != '.' {
				return 0
			}
			i++
		}
	}
	if i < len(b) && b[i] != ' ' {
		return 0
	}
	return i
}

// proxyLine parses "proxy-accept: END-OF-MESSAGE: 250 2.0.0 from MTA(...): 250
// 2.0.0 Ok: queued as Q; from=<s> to=<r> proto=ESMTP helo=<h>"
// (src/smtpd/smtpd_proxy.c). It shows one recipient of many.
func proxyLine(ev *Event, b []byte) bool {
	var rest []byte
	switch {
	case has(b, "proxy-accept: "), has(b, "proxy-reject: "):
		ev.Action, rest = b[:12], b[14:]
	default:
		return false
	}
	ev.Kind = KindProxy
	if i := bytes.LastIndex(rest, []byte("; from=<")); i >= 0 {
		session(ev, rest[i+2:])
		rest = rest[:i]
	}
	if i := bytes.Index(rest, []byte(": ")); i >= 0 {
		ev.Stage = rest[:i]
		ev.reply(rest[i+2:])
	} else {
		ev.Stage = bytes.TrimSuffix(rest, []byte(":"))
	}
	replyIDs(ev, rest)
	return true
}
