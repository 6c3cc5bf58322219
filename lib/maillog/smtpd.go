package maillog

import "bytes"

// sessionLine parses the lines of smtpd(8) that have no queue id
// (src/smtpd/smtpd.c, smtpd_sasl_glue.c, src/tls/tls_server.c).
func sessionLine(ev *Event, b []byte) (Class, bool) {
	switch b[0] {
	case 'c':
		if rest, ok := cutPrefix(b, "connect from "); ok {
			ev.Kind = KindConnect
			ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(rest)
			return Used, true
		}
	case 'd':
		if rest, ok := cutPrefix(b, "disconnect from "); ok {
			ev.Kind = KindDisconnect
			peer, counts := word(rest)
			ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(peer)
			counters(&ev.Counters, counts)
			return Used, true
		}
		if has(b, "discarding EHLO keywords:") {
			return Noise, true
		}
	case 'w':
		if rest, ok := cutPrefix(b, "warning: "); ok {
			return smtpdWarning(ev, rest)
		}
	case 'i', 'S':
		if c, ok := abuseLine(ev, b); ok {
			return c, true
		}
	case 'p':
		if proxyLine(ev, b) {
			return Used, true
		}
	}
	if lostLine(ev, b) {
		return Used, true
	}
	return tlsLine(ev, b)
}

// Stages that the log line does not spell out.
var (
	stageTLS  = []byte("STARTTLS")
	stageAuth = []byte("AUTH")
)

// abuseLine parses what smtpd says of a client that does not speak SMTP.
func abuseLine(ev *Event, b []byte) (Class, bool) {
	if rest, ok := cutPrefix(b, "improper command pipelining after "); ok {
		ev.Kind, ev.Action = KindAbuse, b[:len("improper command pipelining")]
		stageFrom(ev, rest)
		ev.Text = b
		return Used, true
	}
	if rest, ok := cutPrefix(b, "SSL_accept error from "); ok {
		ev.Kind, ev.Action, ev.Stage, ev.Text = KindLost, b[:16], stageTLS, b
		ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(rest)
		return Used, true
	}
	return 0, false
}

// smtpdWarning parses the warnings of smtpd that belong to a session. The
// rest is for the operator.
func smtpdWarning(ev *Event, b []byte) (Class, bool) {
	if rest, ok := cutPrefix(b, "non-SMTP command from "); ok {
		ev.Kind, ev.Action, ev.Text = KindAbuse, b[:16], b
		ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(rest)
		return Used, true
	}
	if rest, ok := cutPrefix(b, "Illegal address syntax from "); ok {
		ev.Kind, ev.Action, ev.Text = KindAbuse, b[:22], b
		ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(rest)
		return Used, true
	}
	i := bytes.Index(b, []byte(": SASL "))
	if i > 0 && bytes.IndexByte(b[:i], ' ') < 0 {
		j := bytes.Index(b[i:], []byte(" authentication fail")) // failed, failure
		if j < 0 {
			j = bytes.Index(b[i:], []byte(" authentication aborted"))
		}
		if j >= 0 {
			ev.Kind, ev.Stage, ev.Text = KindAuthFailed, stageAuth, b[i+2:]
			ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(b[:i])
			ev.SASLMethod, _ = word(b[i+7:])
			if k := bytes.LastIndex(b, []byte(", sasl_username=")); k >= 0 {
				ev.SASLUser = b[k+16:]
			}
			return Used, true
		}
	}
	// "hostname h does not resolve to address a: ..." and all the others
	if id, rest, ok := queueID(b); ok && len(id) > 0 {
		ev.QID, ev.Kind, ev.Text = id, KindLegNote, rest
		return Used, true
	}
	ev.Kind, ev.Text = KindInfo, b
	return Noise, true
}

// lostLine parses "lost connection after RCPT from h[ip]", "timeout after DATA
// (14 bytes) from", "too many errors after", "bare <LF> received after",
// "reject: ..." never; with or without NOQUEUE or a queue id (since 3.10).
func lostLine(ev *Event, b []byte) bool {
	var what int
	switch {
	case has(b, "lost connection after "):
		what = 15
	case has(b, "timeout after "):
		what = 7
	case has(b, "too many errors after "):
		what = 15
	case has(b, "bare <LF> received after "):
		what = 18
	case has(b, "bare <LF> after "):
		what = 9
	case has(b, "exceeded time limit after "), has(b, "queue file write error after "),
		has(b, "internal error after "):
		what = bytes.Index(b, []byte(" after "))
	default:
		return false
	}
	ev.Kind, ev.Action, ev.Text = KindLost, b[:what], b
	stageFrom(ev, b[what+7:])
	return true
}

// stageFrom reads "DATA (14 bytes) from h[ip]" and "EHLO from h[ip]: data".
func stageFrom(ev *Event, b []byte) {
	i := bytes.Index(b, []byte(" from "))
	if i < 0 {
		ev.Stage = b
		return
	}
	ev.Stage = b[:i]
	if j := bytes.Index(ev.Stage, []byte(" (")); j > 0 {
		ev.Stage = ev.Stage[:j]
	}
	ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(b[i+6:])
}

// counters reads "ehlo=1 auth=0/1 mail=1 commands=2/3" (3.0 and later).
func counters(c *Counters, b []byte) {
	for len(b) > 0 {
		var kv []byte
		kv, b = word(b)
		i := bytes.IndexByte(kv, '=')
		if i <= 0 {
			continue
		}
		v := kv[i+1:]
		n := Counter{OK: int32(min(number(v), 1<<30))}
		n.All = n.OK
		if j := bytes.IndexByte(v, '/'); j >= 0 {
			n.All = int32(min(number(v[j+1:]), 1<<30))
		}
		switch string(kv[:i]) {
		case "auth":
			c.Auth = n
		case "mail":
			c.Mail = n
		case "rcpt":
			c.Rcpt = n
		case "data", "bdat":
			c.Data.OK += n.OK
			c.Data.All += n.All
		case "quit":
			c.Quit = n
		case "commands":
			c.Commands, c.Seen = n, true
		}
	}
}

// tlsLine parses "Anonymous TLS connection established from h[ip]: TLSv1.3
// with cipher X (256/256 bits)"; from is the client's, to a relay's.
func tlsLine(ev *Event, b []byte) (Class, bool) {
	for _, p := range [...]string{
		"setting up TLS connection ", "initializing the ", "SSL_accept:", "mapped ", "table ", "using backwards-compatible",
		"sasl_exceptions:", "fingerprint=", "subject_CN=",
	} {
		if has(b, p) {
			return Noise, true
		}
	}
	i := bytes.Index(b[:min(len(b), 40)], []byte("TLS connection "))
	if i < 0 || i > 21 {
		if bytes.Contains(b, []byte("]: replacing command ")) {
			return Noise, true
		}
		return 0, false
	}
	rest := b[i+15:]
	client := true
	switch {
	case has(rest, "established from "):
		rest = rest[17:]
	case has(rest, "reused from "):
		rest = rest[12:]
	case has(rest, "established to "):
		rest, client = rest[15:], false
	case has(rest, "reused to "):
		rest, client = rest[10:], false
	default:
		return 0, false
	}
	peer, cipher := rest, []byte(nil)
	if j := bytes.Index(rest, []byte(": ")); j >= 0 {
		peer, cipher = rest[:j], rest[j+2:]
	}
	if k := bytes.Index(cipher, []byte(" with cipher ")); k >= 0 {
		ev.TLSProto = cipher[:k]
		ev.TLSCipher, _ = word(cipher[k+13:])
	}
	ev.Action = bytes.TrimSuffix(b[:i], []byte(" "))
	if !client {
		ev.Kind, ev.Relay = KindInfo, peer
		ev.RelayName, ev.RelayIP, ev.RelayPort = endpoint(peer)
		return Noise, true
	}
	ev.Kind = KindTLS
	ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(peer)
	return Used, true
}
