package trace

import (
	"strings"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// outcome decides what became of a recipient at the end of its path.
func (t *Tracer) outcome(r *flat.Row, path []hop, v verdict) {
	tip := path[len(path)-1]
	l, p := tip.l, tip.p
	r.Outcome = flat.Unknown
	set := func(outcome string, us int64) { r.Outcome, r.TSFinal = outcome, us/1000 }
	if p == nil || p.status == maillog.StatusNone {
		t.undelivered(r, l)
		return
	}
	switch p.status {
	case maillog.StatusSent:
		switch {
		case p.discarded && !p.kept:
			set(flat.Discarded, p.last)
		case p.rejected && !p.kept:
			set(flat.Bounced, p.last)
		case v.x != nil && v.l == l && v.sc.outcome(v.x) != "":
			set(v.sc.outcome(v.x), p.last)
			r.Reason = blockedReason(r.Reason, v)
			r.QIDOut, r.HostOut = "", ""
		case p.fromMTA || t.filter(l.str(p.relay)):
			// the next leg decides, and it is not known
		case v.x != nil && v.l == l && t.byFilter(l, p):
			if !v.x.passed || v.x.queuedAs.n > 0 {
				return // the next leg, or the line that says what was done, is missing
			}
			set(flat.Sent, p.last)
		case swallowed(l.str(p.text)):
			return // by a filter whose verdict is missing
		default:
			set(flat.Sent, p.last)
		}
	case maillog.StatusBounced:
		set(flat.Bounced, p.last)
		if v.x != nil && v.l == l && !v.x.passed {
			r.QIDOut, r.HostOut = "", ""
		}
	case maillog.StatusExpired:
		set(flat.Expired, p.last)
	case maillog.StatusDeferred:
		switch {
		case l.has(isExpired) && l.lastTried(p):
			set(flat.Expired, l.expiredAt)
		case l.has(isDeleted):
			t.undelivered(r, l)
		case l.has(isHeld) && l.heldAt >= p.last:
			r.Outcome = flat.Held
		case l.has(isRemoved | isExpired):
			// its last line is lost
		default:
			r.Outcome = flat.Deferred
		}
	}
}

// lastTried reports whether a recipient was still tried when the queue
// manager last took the mail up, so that it is among those that expired: every
// activation tries all that are left (src/qmgr/qmgr_active.c).
func (l *leg) lastTried(p *rcpt) bool {
	if p.last < l.queuedAt {
		return false
	}
	for i := range l.rcpts {
		if q := &l.rcpts[i]; q.attempts > p.attempts && q.last > p.last {
			return false
		}
	}
	return true
}

// undelivered decides for a mail without a delivery.
func (t *Tracer) undelivered(r *flat.Row, l *leg) {
	switch {
	case l.has(isDeleted):
		r.Outcome, r.TSFinal = flat.Discarded, l.removedAt/1000
		r.Reason = "deleted from the queue by postsuper"
	case l.has(isDiscarded):
		r.Outcome, r.TSFinal = flat.Discarded, l.removedAt/1000
		r.Stage, r.Reason = l.str(l.stage), l.str(l.text)
		r.HostOut, r.QIDOut = "", ""
	case l.has(isExpired) && len(l.rcpts) == 0 && l.nrcpt == 1:
		r.Outcome, r.TSFinal = flat.Expired, l.expiredAt/1000
	case l.has(isHeld):
		r.Outcome, r.Stage = flat.Held, l.str(l.stage)
		if r.Reason = l.str(l.text); r.Reason == "" {
			r.Reason = "placed on hold by postsuper"
		}
	}
}

// byFilter reports whether a relay's reply is Amavis's own.
func (t *Tracer) byFilter(l *leg, p *rcpt) bool {
	return p.amid.n > 0 || swallowed(l.str(p.text)) || p.remoteQID.n == 0
}

// swallowed tells the replies with which Amavis takes a mail that it does not
// pass on.
func swallowed(text string) bool {
	return strings.Contains(text, "iscarded, id=") || strings.Contains(text, " Ok, id=") && strings.Contains(text, "BOUNCE") ||
		strings.Contains(text, "DISCARD")
}

// blockedReason says why Amavis blocked a mail, which its reply to Postfix
// says only in part.
func blockedReason(reply string, v verdict) string {
	d := v.sc.str(v.x.detail)
	if d == "" {
		return reply
	}
	return reply + ": " + d
}

// filter reports whether a relay is in Options.FilterRelays.
func (t *Tracer) filter(relay string) bool {
	return len(t.filters) > 0 && t.filters[addressPort(relay)]
}

// addressPort turns the relay of a log line, h[ip]:port, into ip:port.
func addressPort(relay string) string {
	i, j := strings.IndexByte(relay, '['), strings.IndexByte(relay, ']')
	if i < 0 || j < i {
		return relay
	}
	return relay[i+1:j] + relay[j+1:]
}

// evidence says how the legs were joined and what is missing.
func (t *Tracer) evidence(r *flat.Row, path []hop, v verdict, final bool) {
	b := t.text[:0]
	for _, h := range path[1:] {
		if len(b) > 0 {
			b = append(b, '+')
		}
		b = append(b, evidenceNames[h.l.via]...)
	}
	if len(path) == 1 && path[0].l.via == viaProxy {
		b = append(b, evidenceNames[viaProxy]...)
	}
	n, missing := len(b), false
	miss := func(what string) {
		switch {
		case missing:
			b = append(b, ',')
		case n > 0:
			b = append(b, "; missing: "...)
		default:
			b = append(b, "missing: "...)
		}
		missing = true
		b = append(b, what...)
	}
	for _, h := range path {
		h.l.missing(h.p, final, miss)
	}
	tip := path[len(path)-1]
	tried := tip.p != nil && tip.p.status != maillog.StatusNone
	if tried && tip.p.status == maillog.StatusSent && r.TSFinal == 0 {
		miss("next leg")
	}
	if t.amavis && (v.x == nil || v.x.perRcpt) && (final || r.TSFinal != 0) {
		for _, h := range path {
			if h.p != nil && (h.p.fromMTA || h.p.amid.n > 0 || swallowed(h.l.str(h.p.text))) {
				miss("scan")
				break
			}
		}
	}
	if (final || tried) && r.Outcome == flat.Unknown && !missing {
		miss("last word")
	}
	r.Complete = !missing
	t.text = b
	r.Evidence = view(b)
}

// missing names the lines that a leg ought to have and has not. While it is
// under way that is what must have come before the lines it has.
func (l *leg) missing(p *rcpt, final bool, miss func(string)) {
	if !l.has(hasClient|hasPickup) && !l.ownMail() && l.via != viaForward {
		miss("client")
	}
	if l.from == nil && l.via != viaProxy && (l.origQID.n > 0 || l.origIP.n > 0) {
		miss("first leg")
	}
	if p == nil && l.has(isDiscarded|isDeleted) {
		miss("recipients")
	}
	if l.has(isDiscarded | isCanceled) {
		return
	}
	if l.has(isRemoved) && !l.has(overflow) && l.nrcpt > l.delivered() {
		miss("recipients")
	}
	tried := p != nil && p.status != maillog.StatusNone
	later := final || tried || len(l.to) > 0 || l.has(isRemoved)
	if !l.has(hasMsgID) && (later || l.has(hasQueued)) {
		miss("message-id")
	}
	if !l.has(hasQueued) && !l.has(isHeld) && later {
		miss("queue")
	}
	if !tried && !l.has(isHeld|isDeleted) && later {
		miss("delivery")
	}
	if !l.has(isRemoved|isDeleted) && !l.has(isHeld) && !l.requeuedOn() && (final || l.done()) {
		miss("removed")
	}
}

// ownMail tells bounces and notices, which no client hands in.
func (l *leg) ownMail() bool {
	if l.notice != nil || !l.parent.IsZero() {
		return true
	}
	// Postfix 2.2 logs no notification; its own messages have the queue id in
	// their message id, 20261110090000.70000000B2@host
	id := l.str(l.msgid)
	_, id, _ = strings.Cut(id, ".")
	id, _, _ = strings.Cut(id, "@")
	return l.sender.n == 0 && id != "" && id == l.str(l.qid)
}

// requeuedOn reports whether another queue file has taken the place of l's.
func (l *leg) requeuedOn() bool {
	for _, c := range l.to {
		if c.via == viaRequeue {
			return true
		}
	}
	return false
}

// bareRow puts the row of a leg without recipients: a transaction that was
// broken off or refused, or a mail of which too little is known.
func (t *Tracer) bareRow(l *leg, final bool) {
	if l.has(isRefused) || l.sess != nil && l.sess.discards && l.unqueued() {
		return // it has a row of its own
	}
	if l.unqueued() && !l.accepted() {
		t.brokenRow(l, final)
		return
	}
	t.mailRow([]hop{{l: l}}, final)
}

// unqueued reports whether the queue manager has never seen the mail.
func (l *leg) unqueued() bool {
	return len(l.rcpts) == 0 && !l.has(hasQueued|isDiscarded|isHeld|isRemoved|isDeleted|isExpired|hasPickup)
}

// accepted reports whether a mail that has a message id but has not been
// queued was accepted all the same, as far as its session tells.
func (l *leg) accepted() bool {
	if !l.has(hasMsgID) || l.has(isCanceled|breakSeen) {
		return false
	}
	s := l.sess
	if s == nil || !s.counters.Seen {
		return s == nil || !s.isLost || s.lastLeg != l.serial
	}
	return s.counters.Data.OK >= s.mails
}

// brokenRow puts the row of a mail transaction that came to nothing. The
// session's last words say why; where all its mails were accepted, this one's
// lines are lost.
func (t *Tracer) brokenRow(l *leg, final bool) {
	s := l.sess
	over := s != nil && (s.ended || s.isLost) || l.has(isCanceled|breakSeen)
	if !over && !final {
		t.fresh(&l.item) // the end of the session will tell
		return
	}
	r := &t.row
	r.Clear()
	t.fromRoot(r, l)
	r.Kind, r.Outcome, r.Complete = flat.KindAbort, flat.Aborted, l.has(hasClient)
	if !r.Complete {
		r.Evidence = "missing: client"
	}
	r.Stage, r.Reason = "RCPT", "the client gave the transaction up before a message was complete"
	end := l.last
	if s != nil {
		end = max(end, s.last)
		r.Lines = int64(s.lines)
	}
	r.Lines += int64(l.lines)
	switch {
	case !over || s == nil && !l.has(isCanceled|breakSeen):
		r.Outcome, r.Complete, r.Evidence = flat.Unknown, false, "missing: end of session"
		r.Stage, r.Reason = "", ""
	case l.has(breakSeen):
		r.Stage, r.Reason = l.str(l.stage), l.str(l.text)
	case s != nil && s.isLost && s.lastLeg == l.serial:
		r.Stage, r.Reason = s.str(s.stage), s.str(s.text)
	case s != nil && s.counters.Seen:
		c := s.counters
		switch {
		case c.Data.All > 0 && c.Data.OK >= s.mails:
			// accepted: nothing but client= has come through
			r.Kind, r.Outcome, r.Complete = flat.KindMail, flat.Unknown, false
			r.Evidence, r.Stage, r.Reason = "missing: message-id,queue,delivery,removed", "", ""
		case c.Data.All > c.Data.OK && c.Quit.All > 0:
			r.Kind, r.Outcome, r.Complete = flat.KindReject, flat.Rejected, false
			r.Stage, r.Reason = "END-OF-MESSAGE", "refused at the end of the message; the log does not say why (too big, or the queue file could not be written)"
			if l.text.n > 0 {
				r.Reason = l.str(l.text)
			}
			r.Evidence = "missing: reason"
		case c.Data.All > c.Data.OK:
			r.Stage, r.Reason, r.Complete = "DATA", "the client went away while it sent the message", false
			r.Evidence = "missing: lost connection"
		}
	}
	if len(r.Stage) > 0 && r.Kind == flat.KindAbort {
		r.Sender, r.SenderDomain = "", ""
	}
	r.TSFinal = max(end/1000, r.TS)
	if r.Outcome == flat.Unknown && !final {
		r.TSFinal = 0
	}
	r.TotalMS = r.TSFinal - r.TS
	if r.TSFinal == 0 {
		r.TotalMS = flat.NoInt
	}
	h := newIDHash()
	h.add("broken")
	h.add(l.host())
	h.add(l.str(l.qid))
	r.ID = h.id(r.TS)
	t.ids = append(t.ids, r.ID)
	t.emit(r)
}
