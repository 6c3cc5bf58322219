package maillog

import (
	"bytes"
	"math"
	"strconv"
	"unsafe"
)

// amavisLine parses "(09602-01) text". ok is false when the line does not
// begin with an Amavis log id.
func amavisLine(ev *Event, b []byte) (Class, bool) {
	end := bytes.IndexByte(b[:min(len(b), 40)], ')')
	if end < 4 || end+2 > len(b) || !amID(b[1:end]) {
		return 0, false
	}
	ev.scanSet = true
	ev.Scan.AmID, ev.Scan.Score, ev.Scan.MS = b[1:end], math.NaN(), -1
	text := bytes.TrimPrefix(b[end+1:], []byte(" "))
	return amavisText(ev, text), true
}

// amID tells 09602-01 and 09602-01-4.
func amID(b []byte) bool {
	dashes := 0
	for i, c := range b {
		switch {
		case c == '-' && i > 0 && i < len(b)-1 && digit(b[i-1]):
			dashes++
		case !digit(c):
			return false
		}
	}
	return dashes == 1 || dashes == 2
}

// amavisText parses what follows the log id. Amavis cuts a record at
// $logline_maxlen (980), ending the piece and beginning the next with "...".
func amavisText(ev *Event, t []byte) Class {
	head := has(t, "Passed ") || has(t, "Blocked ")
	more := len(t) > 3 && bytes.HasSuffix(t, []byte("..."))
	if rest, ok := cutPrefix(t, "..."); ok {
		ev.Kind, ev.Scan.Head, ev.Scan.More = KindAmavisPart, false, more
		ev.Scan.Part = rest
		if more {
			ev.Scan.Part = rest[:max(0, len(rest)-3)]
		}
		return Used
	}
	if !head {
		return Noise
	}
	if more {
		ev.Kind, ev.Scan.Head, ev.Scan.More, ev.Scan.Part = KindAmavisPart, true, true, t[:len(t)-3]
		return Used
	}
	if !verdict(ev, t) {
		return Unparsed
	}
	return Used
}

// ParseScan parses the text of an Amavis record that was put together from
// its pieces into ev, which keeps the header and the log id of its first one.
func ParseScan(ev *Event, text []byte) bool {
	id := ev.Scan.AmID
	ev.scanSet = true
	ev.Scan = Scan{AmID: id, Score: math.NaN(), MS: -1}
	return verdict(ev, text)
}

// verdict parses "Passed CLEAN (detail) {Actions}, POLICY [ip]:port [ip] <s>
// -> <r>,<r>, key: value, ..., 179 ms".
func verdict(ev *Event, t []byte) bool {
	ev.Kind = KindAmavis
	sc := &ev.Scan
	if rest, ok := cutPrefix(t, "Passed "); ok {
		sc.Passed, t = true, rest
	} else if rest, ok := cutPrefix(t, "Blocked "); ok {
		t = rest
	} else {
		return false
	}
	i := 0
	for i < len(t) && t[i] != ' ' && t[i] != ',' && t[i] != '(' {
		i++
	}
	sc.Verdict, t = category(t[:i]), skipBlanks(t[i:])
	if len(t) > 0 && t[0] == '(' {
		n := balanced(t)
		sc.Detail, t = t[1:n], skipBlanks(t[min(n+1, len(t)):])
	}
	if len(t) > 0 && t[0] == '{' {
		n := bytes.IndexByte(t, '}')
		if n < 0 {
			n = len(t)
		}
		sc.Actions, t = t[1:n], t[min(n+1, len(t)):]
	}
	t = bytes.TrimPrefix(t, []byte(", "))
	t = envelope(ev, t)
	scanKeys(ev, t)
	sc.PerRcpt = sc.Actions == nil && sc.MS < 0 && sc.PerRcpt
	return true
}

func skipBlanks(b []byte) []byte {
	for len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	return b
}

// category takes the minor part off BAD-HEADER-7 and UNCHECKED-ENCRYPTED.
func category(v []byte) []byte {
	for _, c := range [...]string{"BAD-HEADER", "UNCHECKED"} {
		if has(v, c) {
			return v[:len(c)]
		}
	}
	return v
}

// balanced finds the parenthesis that closes the one at b[0], and after which
// " {", "," or the end stands: banned names hold parentheses of their own.
func balanced(b []byte) int {
	depth := 0
	for i, c := range b {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
			if depth <= 0 && (i+1 == len(b) || b[i+1] == ',' || b[i+1] == ' ') {
				return i
			}
		}
	}
	if i := bytes.Index(b, []byte(") {")); i > 0 {
		return i
	}
	if i := bytes.IndexByte(b, ')'); i > 0 {
		return i
	}
	return len(b)
}

// envelope parses policy banks, client and addresses.
func envelope(ev *Event, t []byte) []byte {
	sc := &ev.Scan
	start := t
	for len(t) > 0 && t[0] != '<' && t[0] != '[' { // MYNETS LOCAL, ESMTP/ESMTP
		w, rest := word(t)
		if bytes.HasSuffix(w, []byte(",")) || bytes.IndexByte(w, ':') >= 0 || bytes.IndexByte(w, '=') >= 0 {
			return start // no envelope at all
		}
		if w = bytes.TrimSuffix(w, []byte("/")); string(w) != "LOCAL" {
			sc.Policy = w
		}
		t = rest
	}
	for len(t) > 0 && t[0] == '[' {
		w, rest := word(t)
		if ev.ClientIP == nil {
			ev.ClientName, ev.ClientIP, ev.ClientPort = endpoint(w)
		}
		t = rest
	}
	for len(t) > 0 && t[0] != '<' {
		w, rest := word(t)
		if rest == nil || bytes.HasSuffix(w, []byte(",")) {
			return t
		}
		t = rest
	}
	i := bytes.Index(t, []byte("> -> "))
	if i < 1 {
		return t
	}
	ev.Sender = t[1:i]
	t = t[i+5:]
	n := listEnd(t)
	sc.Rcpts = t[:n]
	return t[n:]
}

// listEnd finds the end of a recipient list: the first ", " after it.
func listEnd(t []byte) int {
	for at := 0; ; {
		i := bytes.Index(t[at:], []byte(", "))
		if i < 0 {
			return len(t)
		}
		i += at
		if i == 0 || t[i-1] == '>' {
			return i
		}
		at = i + 2
	}
}

// scanKeys parses ", key: value" pairs; the first of a name counts, so that a
// Subject further back cannot pass for another.
func scanKeys(ev *Event, t []byte) {
	sc := &ev.Scan
	for len(t) > 0 {
		for len(t) > 0 && (t[0] == ',' || t[0] == ' ') {
			t = t[1:]
		}
		if len(t) == 0 {
			return
		}
		if rest, ok := scanKey(ev, t); ok {
			t = rest
			continue
		}
		kv := t
		kv, t = cutComma(t)
		if n := len(kv); n > 3 && digit(kv[0]) && kv[n-1] == 's' && kv[n-2] == 'm' && kv[n-3] == ' ' {
			sc.MS = number(kv)
		}
	}
}

// messageIDEnd finds the end of "Message-ID: <m>", which the sender chose and
// which may imitate what follows it: the template goes on with Resent-Message-ID
// or mail_id.
func messageIDEnd(t []byte) int {
	i := bytes.Index(t, []byte(", "))
	if i < 0 {
		return len(t)
	}
	if has(t[i+2:], "mail_id: ") || has(t[i+2:], "Resent-Message-ID: ") {
		return i
	}
	upTo := len(t)
	if s := bytes.Index(t, []byte(", Subject: \"")); s > 0 {
		upTo = s
	}
	if m := bytes.LastIndex(t[:upTo], []byte(", mail_id: ")); m > 0 {
		if r := bytes.LastIndex(t[:m], []byte(", Resent-Message-ID: ")); r > 0 {
			return r
		}
		return m
	}
	return i
}

// scanKey reads the key that t begins with, and what follows it.
func scanKey(ev *Event, t []byte) (rest []byte, ok bool) {
	sc := &ev.Scan
	var v []byte
	switch t[0] {
	case 'Q':
		if has(t, "Queue-ID: ") {
			v, rest = cutComma(t[10:])
			sc.QueueID = first(sc.QueueID, v)
			return rest, true
		}
	case 'M':
		if has(t, "Message-ID: ") {
			n := messageIDEnd(t)
			ev.MsgID = first(ev.MsgID, messageID(t[min(12, n):n]))
			return t[n:], true
		}
	case 'm':
		if has(t, "mail_id: ") {
			v, rest = cutComma(t[9:])
			sc.MailID = first(sc.MailID, v)
			return rest, true
		}
	case 'H':
		if has(t, "Hits: ") {
			v, rest = cutComma(t[6:])
			sc.Score = score(v)
			return rest, true
		}
	case 's':
		if has(t, "size: ") {
			v, rest = cutComma(t[6:])
			if ev.Size < 0 {
				ev.Size = number(v)
			}
			return rest, true
		}
	case 'q':
		if has(t, "queued_as: ") {
			if v, rest = cutComma(t[11:]); len(v) > 0 && QueueID(v[:idLen(v)]) {
				sc.QueuedAs = first(sc.QueuedAs, v)
			}
			return rest, true
		}
		if has(t, "quarantine: ") {
			v, rest = cutComma(t[12:])
			sc.Quarantine = first(sc.Quarantine, v)
			return rest, true
		}
	case 'S':
		if has(t, "Subject: \"") {
			n := quoted(t, 9)
			ev.Subject = first(ev.Subject, unquoted(t[9:n]))
			return t[n:], true
		}
	case 't', 'k':
		if has(t, "tag2=") || has(t, "kill=") {
			sc.PerRcpt = true
		}
	case 'h':
		if has(t, "helo=") {
			v, rest = cutComma(t[5:])
			ev.Helo = first(ev.Helo, v)
			return rest, true
		}
	}
	return nil, false
}

func idLen(v []byte) int {
	n := 0
	for n < len(v) && idClass[v[n]] != 0 {
		n++
	}
	return n
}

func first(old, v []byte) []byte {
	if old != nil {
		return old
	}
	return v
}

// quoted finds the end of a string in double quotes that begins at i. The
// template's macro dquote doubles quotes within; the log doubles backslashes.
func quoted(b []byte, i int) int {
	for j := i + 1; j < len(b); j++ {
		switch b[j] {
		case '\\':
			j++
		case '"':
			if j+1 == len(b) || b[j+1] != '"' {
				return j + 1
			}
			j++
		}
	}
	return len(b)
}

// unquoted takes the quotes off a string that quoted found; those doubled
// within stay, as the event points into the line.
func unquoted(b []byte) []byte {
	b = b[1:]
	if n := len(b); n > 0 && b[n-1] == '"' {
		b = b[:n-1]
	}
	return b
}

// score reads "1.399"; "-" means that nothing was scored.
func score(v []byte) float64 {
	n := 0
	for n < len(v) && n < 32 && (digit(v[n]) || v[n] == '.' || (v[n] == '-' || v[n] == '+') && n == 0) {
		n++
	}
	if n == 0 || n == 1 && !digit(v[0]) {
		return math.NaN()
	}
	if f, ok := decimal(v[:n]); ok {
		return f
	}
	f, err := strconv.ParseFloat(unsafe.String(&v[0], n), 64)
	if err != nil {
		return math.NaN()
	}
	return f
}

// decimal reads "-12.345" of at most 15 digits: both the digits and the power
// of ten are exact, and so their quotient is rounded once, as it must be.
func decimal(v []byte) (float64, bool) {
	i, neg := 0, v[0] == '-'
	if neg || v[0] == '+' {
		i = 1
	}
	if len(v)-i > 16 {
		return 0, false
	}
	n, scale := int64(0), 1.0
	point := false
	for ; i < len(v); i++ {
		switch c := v[i]; {
		case digit(c):
			n = n*10 + int64(c-'0')
			if point {
				scale *= 10
			}
		case point:
			return 0, false
		default:
			point = true
		}
	}
	f := float64(n) / scale
	if neg {
		f = -f
	}
	return f, n < 1<<53
}

// dovecotLine parses LMTP, LDA and Sieve outcomes of Dovecot 2.0 to 2.4:
//
//	lmtp(user)<pid><session>: sieve: msgid=<m>: stored mail into mailbox 'INBOX'
//	lmtp(12345, user): SESSION: msgid=<m>: saved mail to INBOX
//	lda(user)<pid><session>: msgid=<m>: saved mail to INBOX
func dovecotLine(ev *Event, b []byte) Class {
	if !has(b, "lmtp(") && !has(b, "lda(") && !has(b, "deliver(") {
		return Noise
	}
	open := bytes.IndexByte(b, '(')
	end := bytes.IndexByte(b, ')')
	m := bytes.Index(b, []byte("msgid="))
	if end < open || m < end {
		return Noise
	}
	user := b[open+1 : end]
	if i := bytes.LastIndex(user, []byte(", ")); i >= 0 {
		user = user[i+2:]
	}
	between := b[end+1 : m]
	if i := bytes.LastIndexByte(between, '<'); i >= 0 {
		if j := bytes.IndexByte(between[i:], '>'); j > 0 {
			ev.Session = between[i+1 : i+j]
		}
	} else if s, _ := word(bytes.TrimPrefix(between, []byte(": "))); len(s) > 8 && s[len(s)-1] == ':' && string(s) != "sieve:" {
		ev.Session = s[:len(s)-1]
	}
	id, text := b[m+6:], []byte(nil)
	if i := bytes.Index(id, []byte(": ")); i >= 0 {
		id, text = id[:i], id[i+2:]
	}
	ev.Rcpt, ev.MsgID, ev.Text = user, messageID(id), text
	ev.Action = dovecotAction(text)
	if ev.Action == nil {
		return Noise
	}
	ev.Kind = KindDovecot
	return Used
}

// dovecotTexts folds the texts of mail-deliver.c and Pigeonhole's
// sieve-actions.c into store, discard, forward, reject and fail.
var dovecotTexts = [...]struct{ prefix, action []byte }{
	{[]byte("saved mail to"), []byte("store")},
	{[]byte("stored mail into"), []byte("store")},
	{[]byte("fileinto"), []byte("store")},
	{[]byte("marked message to be discarded"), []byte("discard")},
	{[]byte("discarded"), []byte("discard")},
	{[]byte("discard action"), []byte("discard")},
	{[]byte("Marked message to be discarded"), []byte("discard")},
	{[]byte("forwarded to"), []byte("forward")},
	{[]byte("sent rejection"), []byte("reject")},
	{[]byte("reject"), []byte("reject")},
	{[]byte("save failed to"), []byte("fail")},
	{[]byte("failed to store"), []byte("fail")},
}

func dovecotAction(t []byte) []byte {
	for i := range dovecotTexts {
		if bytes.HasPrefix(t, dovecotTexts[i].prefix) {
			return dovecotTexts[i].action
		}
	}
	return nil
}
