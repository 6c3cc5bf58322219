package maillog

import "bytes"

// screenLine parses postscreen(8), tlsproxy(8) and dnsblog(8)
// (src/postscreen/*.c). Postfix 3.6 renamed WHITELISTED and BLACKLISTED.
func screenLine(ev *Event, b []byte) (Class, bool) {
	peer := func(p []byte) {
		p, _ = word(p)
		ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(p)
	}
	switch b[0] {
	case 'C':
		if rest, ok := cutPrefix(b, "CONNECT "); ok {
			return screenConnect(ev, rest)
		}
		if has(b, "COMMAND ") {
			return violation(ev, b)
		}
	case 'D':
		if rest, ok := cutPrefix(b, "DISCONNECT "); ok {
			ev.Kind = KindScreenDisconnect
			peer(bytes.TrimPrefix(rest, []byte("from ")))
			if ev.Daemon == OtherPostfix { // tlsproxy
				ev.Kind = KindInfo
				return Noise, true
			}
			return Used, true
		}
		if rest, ok := cutPrefix(b, "DNSBL rank "); ok {
			ev.Kind, ev.Action, ev.Text = KindScreenViolation, b[:5], b
			if i := bytes.Index(rest, []byte(" for ")); i >= 0 {
				peer(rest[i+5:])
			}
			return Used, true
		}
	case 'P':
		for _, pass := range [...]string{"PASS OLD ", "PASS NEW "} {
			if rest, ok := cutPrefix(b, pass); ok {
				ev.Kind, ev.Action = KindScreenPass, b[:8]
				peer(rest)
				return Used, true
			}
		}
		if has(b, "PREGREET ") {
			return violation(ev, b)
		}
	case 'W', 'A', 'B', 'D' + 1:
		if c, ok := listed(ev, b); ok {
			return c, true
		}
		if has(b, "BARE NEWLINE ") {
			return violation(ev, b)
		}
	case 'H':
		if has(b, "HANGUP ") {
			return violation(ev, b)
		}
	case 'N':
		if has(b, "NON-SMTP COMMAND ") {
			return violation(ev, b)
		}
	case 'a':
		if rest, ok := cutPrefix(b, "addr "); ok && bytes.Contains(rest, []byte(" listed by domain ")) {
			ev.Kind = KindInfo
			ev.ClientIP, _ = word(rest)
			ev.Text = b
			return Noise, true
		}
	}
	if c, ok := listed(ev, b); ok {
		return c, true
	}
	if rest, ok := cutPrefix(b, "reject: connect from "); ok {
		ev.Kind, ev.Action = KindReject, b[:6]
		ev.Stage = stageConnect
		p, text, _ := bytes.Cut(rest, []byte(": "))
		ev.Text = text
		peer(p)
		return Used, true
	}
	if i := bytes.Index(b, []byte(" without valid RCPT from [")); i > 0 {
		return violation(ev, b)
	}
	return 0, false
}

var stageConnect = []byte("CONNECT")

// listed parses the verdicts of postscreen's access lists.
func listed(ev *Event, b []byte) (Class, bool) {
	for _, w := range [...]string{"WHITELISTED ", "ALLOWLISTED ", "BLACKLISTED ", "DENYLISTED ", "WHITELIST VETO ", "ALLOWLIST VETO "} {
		rest, ok := cutPrefix(b, w)
		if !ok {
			continue
		}
		ev.Kind, ev.Action = KindScreenViolation, b[:len(w)-1]
		if w[0] != 'B' && w[0] != 'D' && w[len(w)-2] == 'D' {
			ev.Kind = KindScreenPass
		}
		p, _ := word(rest)
		ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(p)
		return Used, true
	}
	return 0, false
}

func screenConnect(ev *Event, b []byte) (Class, bool) {
	rest, ok := cutPrefix(b, "from ")
	if !ok {
		if _, ok = cutPrefix(b, "to "); ok { // tlsproxy as a client
			ev.Kind = KindInfo
			return Noise, true
		}
		return 0, false
	}
	p, _ := word(rest)
	ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(p)
	ev.Kind = KindScreenConnect
	if ev.Daemon == OtherPostfix || !bytes.Contains(rest, []byte(" to [")) { // tlsproxy names no server
		ev.Kind = KindInfo
		return Noise, true
	}
	return Used, true
}

// violation parses "PREGREET 6 after 1.2 from [ip]:port: text", "HANGUP after
// 63 from [ip]:port in tests after SMTP handshake", "COMMAND TIME LIMIT from
// [ip]:port after CONNECT".
func violation(ev *Event, b []byte) (Class, bool) {
	i := bytes.Index(b, []byte(" from ["))
	if i < 0 {
		return 0, false
	}
	ev.Kind, ev.Text = KindScreenViolation, b
	ev.Action = b[:i]
	if j := bytes.Index(ev.Action, []byte(" after ")); j > 0 {
		ev.Action = ev.Action[:j]
	}
	if j := bytes.IndexByte(ev.Action, ' '); j > 0 && j+1 < len(ev.Action) && digit(ev.Action[j+1]) {
		ev.Action = ev.Action[:j]
	}
	peer, rest := word(b[i+6:])
	ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(peer)
	if after, ok := cutPrefix(rest, "after "); ok {
		ev.Stage, _ = word(after)
		ev.Stage = bytes.TrimSuffix(ev.Stage, []byte(":"))
	}
	return Used, true
}

// sundryLine sorts out what Postfix says beyond mails and sessions.
func sundryLine(ev *Event, b []byte) Class {
	for _, severity := range [...]string{"warning: ", "fatal: ", "error: ", "panic: "} {
		if rest, ok := cutPrefix(b, severity); ok {
			ev.Text = rest
			if id, text, ok := queueID(rest); ok && len(id) > 0 {
				ev.QID, ev.Kind, ev.Text = id, KindLegNote, text
				return Used
			}
			ev.Kind = KindInfo
			return Noise
		}
	}
	if ev.Daemon == Smtpd {
		return Unparsed
	}
	if c, ok := tlsLine(ev, b); ok {
		return c
	}
	switch {
	case has(b, "connect to "):
		relayInfo(ev, b[11:])
	case has(b, "SSL_connect error to "):
		relayInfo(ev, b[21:])
	case has(b, "certificate verification failed for "):
		relayInfo(ev, b[36:])
	case has(b, "statistics: "):
		ev.Kind, ev.Text = KindInfo, b
		statistics(ev, b)
	case knownSundry(b), ev.Daemon == OtherPostfix, ev.Daemon == Postsuper:
		ev.Kind, ev.Text = KindInfo, b
	default:
		return Unparsed
	}
	return Noise
}

// relayInfo reads "h[ip]:25: Connection timed out".
func relayInfo(ev *Event, b []byte) {
	ev.Kind, ev.Text = KindInfo, nil
	peer := b
	if i := bytes.Index(b, []byte(": ")); i >= 0 {
		peer, ev.Text = b[:i], b[i+2:]
	}
	ev.Relay = peer
	ev.RelayName, ev.RelayIP, ev.RelayPort = endpoint(peer)
}

// statistics finds the client in anvil's "max connection rate 1/60s for
// (smtpd:192.0.2.1) at Oct 26 18:13:50".
func statistics(ev *Event, b []byte) {
	i := bytes.Index(b, []byte(" for ("))
	if i < 0 {
		return
	}
	b = b[i+6:]
	if j := bytes.IndexByte(b, ')'); j >= 0 {
		b = b[:j]
	}
	// the service's name, which may be host:port, then the address, which may be IPv6
	if j := bytes.IndexByte(b, ':'); j >= 0 {
		rest := b[j+1:]
		if k := bytes.IndexByte(rest, ':'); k > 0 && number(rest[:k]) > 0 && bytes.IndexByte(b[:j], '.') > 0 {
			rest = rest[k+1:]
		}
		ev.ClientIP = rest
	}
}

// knownSundry lists what a healthy server says and nobody searches for.
func knownSundry(b []byte) bool {
	for _, p := range [...]string{
		"daemon started -- version", "reload -- version", "terminating on signal", "refreshing the Postfix",
		"starting the Postfix", "stopping the Postfix", "waiting for the Postfix", "cache ", "table ", "close database ",
		"using backwards-compatible", "Postfix is running with", "To disable backwards", "Verified: ", "open lock file",
		"process exit", "entering ", "master_", "setting up TLS connection to", "Host offered STARTTLS", "SSL_connect:",
		"disconnect ", "sender-dependent", "Deleted: ", "Requeued: ", "Placed on hold: ", "Released from hold: ", "Expired: ",
		"queue ID ", "name service error", "sacl_cache", "rewrite ", "mapping DSN", "wakeup", "initialized ", "TLS SNI ",
		"requesting ", "scan_dir_push", "reconnect to ", "Postfix is using", "See http", "server certificate verification", "host ",
	} {
		if has(b, p) {
			return true
		}
	}
	return false
}
