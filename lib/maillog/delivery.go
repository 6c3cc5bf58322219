package maillog

import "bytes"

// deliveryLine parses "to=<r>, orig_to=<o>, relay=h[ip]:25, conn_use=2,
// delay=0.8, delays=a/b/c/d, tls=may, dsn=2.0.0, status=sent (text)"
// (src/global/log_adhoc.c). Keys come in any order and new ones may appear.
func deliveryLine(ev *Event, b []byte) Class {
	ev.Kind = KindDelivery
	ev.Rcpt, b = address(b)
	for len(b) > 0 {
		var v []byte
		switch b[0] {
		case 's':
			if has(b, "status=") {
				status(ev, b[7:])
				return Used
			}
		case 'r':
			if has(b, "relay=") {
				v, b = cutComma(b[6:])
				ev.Relay = v
				ev.RelayName, ev.RelayIP, ev.RelayPort = endpoint(v)
				if bytes.IndexByte(ev.RelayIP, '/') >= 0 { // a socket
					ev.RelayIP = nil
				}
				continue
			}
		case 'd':
			switch {
			case has(b, "delay="):
				us, n := seconds(b[6:])
				ev.Delay, b = us, nextKey(b[6+n:])
				continue
			case has(b, "delays="):
				b = delays(ev, b[7:])
				continue
			case has(b, "dsn="):
				ev.DSN, b = cutComma(b[4:])
				continue
			}
		case 'o':
			if has(b, "orig_to=") {
				ev.OrigTo, b = address(b[8:])
				continue
			}
		case 't':
			if has(b, "tls=") {
				ev.TLSProto, b = cutComma(b[4:])
				continue
			}
		case ' ':
			b = b[1:]
			continue
		}
		_, b = cutComma(b) // conn_use=, and what later releases bring
	}
	if ev.Relay == nil && ev.DSN == nil {
		return Unparsed
	}
	return Used
}

// nextKey goes behind the next ", ".
func nextKey(b []byte) []byte {
	if len(b) >= 2 && b[0] == ',' && b[1] == ' ' {
		return b[2:]
	}
	_, b = cutComma(b)
	return b
}

// address reads <a> up to the ", " that a key follows, or a bare address.
func address(b []byte) (addr, rest []byte) {
	if len(b) == 0 || b[0] != '<' {
		return cutComma(b)
	}
	for at := 1 + quotedLocal(b[1:]); ; {
		i := bytes.IndexByte(b[at:], '>')
		if i < 0 {
			return b[1:], nil
		}
		i += at
		rest := b[i+1:]
		if len(rest) == 0 {
			return b[1:i], nil
		}
		if k, ok := cutPrefix(rest, ", "); ok && isKey(k) {
			return b[1:i], k
		}
		at = i + 1
	}
}

// isKey reports whether b begins with a lower-case word and an equals sign.
func isKey(b []byte) bool {
	for i, c := range b {
		if c == '=' {
			return i > 0
		}
		if (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return false
}

// status parses "sent (text)"; the text may hold anything, parentheses too,
// and lacks its last one where Postfix cut the record.
func status(ev *Event, b []byte) {
	w, text := word(b)
	ev.StatusWord = w
	switch string(w) {
	case "sent":
		ev.Status = StatusSent
	case "deferred", "SOFTBOUNCE":
		ev.Status = StatusDeferred
	case "bounced":
		ev.Status = StatusBounced
	case "expired":
		ev.Status = StatusExpired
	case "deliverable":
		ev.Status = StatusDeliverable
	case "undeliverable", "undeliverable-but-not-cached":
		ev.Status = StatusUndeliverable
	default:
		ev.Status = StatusOther
	}
	if len(text) > 0 && text[0] == '(' {
		text = text[1:]
		if n := len(text); n > 0 && text[n-1] == ')' {
			text = text[:n-1]
		}
	}
	if text != nil {
		ev.Text = text
		deliveryText(ev, text)
	}
}

// deliveryText finds what a reply says beyond its words.
func deliveryText(ev *Event, t []byte) {
	switch {
	case len(t) > 3 && t[3] == ' ' && t[0] >= '2' && t[0] <= '5' && digit(t[1]) && digit(t[2]):
		ev.Code = int(t[0]-'0')*100 + two(t, 1)
	case has(t, "host "):
		remoteSaid(ev, t[5:])
	case has(t, "forwarded as "):
		if id := t[13:]; QueueID(id) {
			ev.NewQID = id
		}
	}
	replyIDs(ev, t)
	if ev.Status != StatusSent { // "queued as" in a refusal is somebody's prose
		ev.RemoteQID, ev.FromMTA = nil, false
	}
}

// remoteSaid parses "h[ip] said: 450 4.7.1 text (in reply to RCPT TO
// command)" and "h[ip] refused to talk to me: 450 text".
func remoteSaid(ev *Event, b []byte) bool {
	peer, rest := word(b)
	text, ok := cutPrefix(rest, "said: ")
	if !ok {
		text, ok = cutPrefix(rest, "refused to talk to me: ")
	}
	if !ok {
		return false
	}
	if ev.RelayName == nil {
		ev.Relay = peer
		ev.RelayName, ev.RelayIP, ev.RelayPort = endpoint(peer)
	}
	if i := bytes.LastIndexByte(text, '('); i > 0 && text[i-1] == ' ' && has(text[i:], "(in reply to ") {
		i--
		stage := bytes.TrimSuffix(text[i+14:], []byte(")"))
		ev.Stage = bytes.TrimSuffix(stage, []byte(" command"))
		text = text[:i]
	}
	code, dsn, _ := reply(text)
	ev.Code = code
	if ev.DSN == nil {
		ev.DSN = dsn
	}
	return true
}

// remoteLine parses the lines smtp(8) logs before it tries another server:
// "host h[ip] said: ...", "lost connection with h[ip] while ...",
// "conversation with h[ip] timed out while ..." (src/smtp/smtp_trouble.c).
func remoteLine(ev *Event, b []byte) bool {
	set := func(peer []byte) {
		peer, _ = word(peer)
		ev.Relay = peer
		ev.RelayName, ev.RelayIP, ev.RelayPort = endpoint(peer)
	}
	switch {
	case has(b, "host "):
		if !remoteSaid(ev, b[5:]) {
			return false
		}
		ev.Text = b[5:]
		if i := bytes.Index(ev.Text, []byte(": ")); i >= 0 {
			ev.Text = ev.Text[i+2:]
		}
	case has(b, "lost connection with "):
		set(b[21:])
		ev.Text = b
	case has(b, "conversation with "):
		set(b[18:])
		ev.Text = b
	case has(b, "enabling PIX workarounds"):
		if i := bytes.LastIndex(b, []byte(" for ")); i >= 0 {
			set(b[i+5:])
		}
		ev.Text = b
	case has(b, "SASL authentication failed; server "):
		rest := b[35:]
		set(rest)
		if i := bytes.Index(rest, []byte(" said: ")); i >= 0 {
			ev.reply(rest[i+7:])
		}
	default:
		return false
	}
	ev.Kind = KindLegNote
	return true
}

// replyIDs finds the queue id that a relay gave, whether a content filter
// passes on its own next hop's reply, and the log id of Amavis.
func replyIDs(ev *Event, t []byte) {
	if ev.Status == StatusSent || ev.Status == StatusNone {
		if i := bytes.IndexByte(t[:min(len(t), 120)], '('); i >= 3 {
			ev.FromMTA = string(t[i-3:i]) == "MTA"
		}
		if ev.RemoteQID = queuedAs(t); ev.RemoteQID != nil && !ev.FromMTA {
			return
		}
		if rest, ok := bytes.CutSuffix(t, []byte(" Saved")); ok { // Dovecot LMTP
			ev.Session = rest[bytes.LastIndexByte(rest, ' ')+1:]
			return
		}
		if i := bytes.Index(t, []byte("Message accepted for delivery")); i > 1 { // sendmail
			if j := bytes.LastIndexByte(t[:i-1], ' '); j >= 0 && i-j-2 >= 6 && i-j-2 <= 128 {
				ev.RemoteQID = t[j+1 : i-1]
			}
			return
		}
	}
	if len(t) > 400 { // Amavis and the others are brief; what is long is somebody's prose
		return
	}
	i := bytes.IndexByte(t, '=')
	if i < 3 || t[i-1] != 'd' || t[i-2] != 'i' || t[i-3] != ' ' && t[i-3] != '(' {
		return
	}
	id := t[i+1:]
	n, dash := 0, false
	for n < len(id) && (digit(id[n]) || id[n] == '-') {
		dash = dash || id[n] == '-'
		n++
	}
	switch {
	case dash && n >= 5 && (n == len(id) || id[n] == ' ' || id[n] == ',' || id[n] == ')' || id[n] == ';'):
		ev.AmID = id[:n]
	case ev.RemoteQID == nil && len(id) >= 16: // Exim: OK id=1abcDE-0004gH-XY
		e, _ := word(id)
		if len(e) <= 32 && bytes.Count(e, []byte("-")) == 2 {
			ev.RemoteQID = e
		}
	}
}

// queuedAs finds the id behind the last "queued as", as a rule the end of the
// reply: a filter's reply quotes its next hop's.
func queuedAs(t []byte) []byte {
	if j := bytes.LastIndexByte(t, ' '); j > 0 && bytes.HasSuffix(t[:j], []byte(" queued as")) {
		return remoteID(t[j+1:])
	}
	last := -1
	for at := 0; ; {
		i := bytes.Index(t[at:], []byte("queued as "))
		if i < 0 {
			break
		}
		last = at + i + 10
		at = last
	}
	if last < 0 {
		return nil
	}
	return remoteID(t[last:])
}

func remoteID(id []byte) []byte {
	n := 0
	for n < len(id) && id[n] > ' ' && id[n] != ')' && id[n] != ';' && id[n] != ',' && n < 128 {
		n++
	}
	return id[:n]
}

// seconds reads "0.82", "27", "1.2e+02" to microseconds, -1 if it is none, and
// tells how long it is.
func seconds(b []byte) (us int64, n int) {
	if len(b) == 0 || !digit(b[0]) {
		return -1, 0
	}
	i := 0
	for ; i < len(b) && digit(b[i]) && us < 1<<40; i++ {
		us = us*10 + int64(b[i]-'0')
	}
	us *= 1e6
	if i < len(b) && b[i] == '.' {
		scale := int64(100000)
		for i++; i < len(b) && digit(b[i]); i++ {
			us += int64(b[i]-'0') * scale
			scale /= 10
		}
	}
	if i+2 < len(b) && b[i] == 'e' {
		up := b[i+1] != '-'
		exp := 0
		for i += 2; i < len(b) && digit(b[i]); i++ {
			exp = min(exp*10+int(b[i]-'0'), 12)
		}
		for ; exp > 0 && us < 1<<50; exp-- {
			if up {
				us *= 10
			} else {
				us /= 10
			}
		}
	}
	return us, i
}

// delays reads "a/b/c/d" and returns what stands behind the ", ".
func delays(ev *Event, b []byte) []byte {
	var d [4]int64
	for i := range d {
		us, n := seconds(b)
		b = b[n:]
		if us < 0 || i < 3 && (len(b) == 0 || b[0] != '/') {
			return nextKey(b)
		}
		d[i] = us
		if i < 3 {
			b = b[1:]
		}
	}
	ev.Delays = d
	return nextKey(b)
}
