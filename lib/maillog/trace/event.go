package trace

import (
	"github.com/rolmail/rolmail/lib/maillog"
)

// legEvent handles a line with a queue id.
func (t *Tracer) legEvent(n *node, ev *maillog.Event) {
	l := t.leg(n, ev)
	if l == nil {
		return
	}
	l.touch(t, ev)
	if n.owner && l.own == nil {
		l.own = n
	}
	switch ev.Kind {
	case maillog.KindClient:
		t.client(n, l, ev)
	case maillog.KindPickup:
		l.pickup(t, n, ev)
	case maillog.KindMsgID:
		l.flags |= hasMsgID
		l.set(&l.msgid, ev.MsgID)
		t.resolveNotices(l)
		t.verify(l)
		t.shortAgain(l)
	case maillog.KindQueued:
		l.setSender(ev.Sender, true)
		l.flags |= hasQueued | isReleased
		l.queuedAt = max(l.queuedAt, ev.Time)
		l.size, l.nrcpt = max(l.size, ev.Size), max(l.nrcpt, ev.NRcpt)
		t.verify(l)
		t.shortAgain(l)
	case maillog.KindExpired:
		l.flags |= isExpired
		l.expiredAt = ev.Time
		l.setSender(ev.Sender, true)
	case maillog.KindDelivery:
		t.delivery(l, ev)
	case maillog.KindRemoved:
		l.remove(ev)
	case maillog.KindCanceled:
		l.flags |= isCanceled
		if string(ev.Action) == "discarded" {
			l.flags |= isDiscarded
		}
		l.removedAt = ev.Time
	case maillog.KindHeld, maillog.KindReleased, maillog.KindRequeued:
		l.postsuper(ev)
	case maillog.KindHold, maillog.KindDiscard, maillog.KindCheck:
		l.action(t, ev)
	case maillog.KindNotify:
		t.notify(l, ev)
	case maillog.KindLegNote:
		if len(ev.Text) > 0 && l.unqueued() {
			l.set(&l.text, ev.Text)
		}
	case maillog.KindLost:
		l.flags |= breakSeen
		l.set(&l.stage, ev.Stage)
		l.set(&l.text, ev.Text)
	}
	t.settle(l)
}

// setSender takes the sender from a line that names it; what the queue manager
// says is what was written to the queue file, and stands.
func (l *leg) setSender(b []byte, queued bool) {
	if b != nil && (queued || !l.has(hasQueued|isExpired)) {
		l.set(&l.sender, b)
		if len(b) == 0 {
			l.sender = ref{}
		}
	}
}

// client handles smtpd's client= line, which begins a mail.
func (t *Tracer) client(n *node, l *leg, ev *maillog.Event) {
	if l.has(hasClient) {
		// read again, long after the first time: the process's session has a mail
		s := t.sessions[sessionKey{node: n, pid: ev.PID}.hash()]
		if s != nil && s != l.sess && ev.PID != 0 && s.mails == 0 && s.sameClient(ev) {
			s.mails++
			t.dirty(&s.item)
		}
		return
	}
	l.flags |= hasClient
	l.start, l.in = ev.Time, n
	if l.via != viaProxy { // else it has the client that the filter's front served
		l.set(&l.clientName, ev.ClientName)
		l.set(&l.clientIP, ev.ClientIP)
		l.set(&l.clientPort, ev.ClientPort)
		l.set(&l.saslUser, ev.SASLUser)
		l.set(&l.origQID, ev.OrigQID)
		l.set(&l.origName, ev.OrigClientName)
		l.set(&l.origIP, ev.OrigClientIP)
	}
	if ev.PID != 0 {
		s := t.smtpd(n, ev)
		s.client(ev)
		s.mails++
		s.setNew(&s.saslUser, ev.SASLUser)
		s.refs++
		l.sess = s
		l.heldBefore(t, s, ev)
		if ev.Time >= s.lastLegAt {
			s.lastLeg, s.lastLegAt, s.open = l.serial, ev.Time, l
		}
	}
	t.verify(l)
	if l.origQID.n > 0 {
		t.awaitPrevious(l, viaOrigQID)
	}
}

// heldBefore gives a new mail the hold that an access map ordered before it
// had a queue id.
func (l *leg) heldBefore(t *Tracer, s *session, ev *maillog.Event) {
	if s.holdRcpt.n == 0 {
		return
	}
	if !l.has(isReleased) {
		l.flags |= isHeld
	}
	l.heldAt = ev.Time
	l.setSender(s.bytes(s.holdSender), false)
	l.set(&l.stage, s.bytes(s.holdStage))
	l.set(&l.text, s.bytes(s.holdText))
	l.rcpt(t, s.bytes(s.holdRcpt), nil, ev.Time)
	s.holdRcpt = ref{}
}

// pickup handles a mail from sendmail(1), or one that postsuper requeued.
func (l *leg) pickup(t *Tracer, n *node, ev *maillog.Event) {
	l.flags |= hasPickup
	l.start, l.in = ev.Time, n
	l.setSender(ev.Sender, false)
	if len(ev.OrigQID) > 0 && maillog.QueueID(ev.OrigQID) {
		l.set(&l.origQID, ev.OrigQID)
		t.awaitPrevious(l, viaRequeue)
	}
}

// remove handles "removed": by qmgr when all is done, by postsuper when
// somebody deleted the mail. Where the ident was cut, the recipients tell.
func (l *leg) remove(ev *maillog.Event) {
	if l.has(isRemoved) && l.removedAt == ev.Time {
		l.flags |= isDoubled
	}
	l.removedAt = ev.Time
	if ev.Daemon == maillog.Postsuper {
		l.flags |= isDeleted
		return
	}
	l.flags |= isRemoved
}

func (l *leg) postsuper(ev *maillog.Event) {
	switch ev.Kind {
	case maillog.KindHeld:
		l.flags = l.flags&^isReleased | isHeld
		l.heldAt = ev.Time
	case maillog.KindReleased:
		l.flags = l.flags&^isHeld | isReleased
	case maillog.KindRequeued:
		l.flags |= isRequeued
	}
}

// action handles what header, body, milter and access checks did to a mail
// that they did not refuse.
func (l *leg) action(t *Tracer, ev *maillog.Event) {
	l.setSender(ev.Sender, false)
	l.set(&l.helo, ev.Helo)
	l.set(&l.proto, ev.Proto)
	if len(ev.Subject) > 0 {
		l.set(&l.subject, ev.Subject)
	}
	if ev.Kind == maillog.KindCheck {
		return
	}
	l.set(&l.stage, ev.Stage)
	l.set(&l.text, ev.Text)
	if len(ev.Rcpt) > 0 {
		l.rcpt(t, ev.Rcpt, nil, ev.Time)
	}
	if ev.Kind == maillog.KindHold {
		if !l.has(isReleased) {
			l.flags |= isHeld
		}
		l.heldAt = ev.Time
	} else {
		l.flags |= isDiscarded
		l.removedAt = ev.Time
	}
}

// refuse notes that the mail, or one of its recipients, was refused. It
// reports false for a refusal of the whole mail that has been said before.
func (l *leg) refuse(t *Tracer, ev *maillog.Event) bool {
	l.setSender(ev.Sender, false)
	l.set(&l.helo, ev.Helo)
	l.set(&l.proto, ev.Proto)
	if !final(ev.Stage) {
		t.settle(l)
		return true
	}
	again := l.has(isRefused)
	l.flags |= isRefused
	l.removedAt = ev.Time
	t.settle(l)
	return !again
}

// rcpt finds or makes the entry of a recipient.
func (l *leg) rcpt(t *Tracer, addr, origTo []byte, us int64) *rcpt {
	h := uint32(mix(t.hash(addr), t.hash(origTo)))
	for i := range l.rcpts {
		p := &l.rcpts[i]
		if p.hash == h && l.str(p.addr) == string(addr) && l.str(p.origTo) == string(origTo) {
			return p
		}
	}
	// what a hold line named gets its orig_to from the delivery
	for i := range l.rcpts {
		if p := &l.rcpts[i]; p.status == maillog.StatusNone && l.str(p.addr) == string(addr) {
			p.hash = h
			l.set(&p.origTo, origTo)
			return p
		}
	}
	if len(l.rcpts) >= t.opt.MaxRcpts {
		l.flags |= overflow
		return nil
	}
	l.rcpts = append(l.rcpts, rcpt{hash: h, first: us, delay: -1, delays: [4]int64{-1, -1, -1, -1}})
	p := &l.rcpts[len(l.rcpts)-1]
	l.set(&p.addr, addr)
	l.set(&p.origTo, origTo)
	return p
}

// delivery handles a delivery agent's line.
func (t *Tracer) delivery(l *leg, ev *maillog.Event) {
	if ev.Status == maillog.StatusDeliverable || ev.Status == maillog.StatusUndeliverable {
		l.flags |= isProbe
	}
	p := l.rcpt(t, ev.Rcpt, ev.OrigTo, ev.Time)
	if p == nil {
		return
	}
	p.lines++
	p.first = min(p.first, ev.Time)
	if ev.Status == maillog.StatusSent || ev.Status == maillog.StatusBounced {
		p.finals++
	}
	if l.seen || !p.attempt(ev.Time) {
		return
	}
	if ev.Time < p.last {
		return // an older attempt, overtaken
	}
	p.last, p.status = ev.Time, ev.Status
	p.delay, p.delays, p.reply, p.fromMTA = ev.Delay, ev.Delays, int32(ev.Code), ev.FromMTA && ownFilter(ev)
	l.set(&p.relay, ev.Relay)
	p.relayIP = ref{}
	l.set(&p.relayIP, ev.RelayIP)
	l.set(&p.text, ev.Text)
	l.set(&p.dsn, ev.DSN)
	l.set(&p.amid, ev.AmID)
	l.set(&p.session, ev.Session)
	t.shortAgain(l)
	if string(ev.Program) == "discard" { // discard(8) calls it sent
		p.discarded = true
	}
	t.passedOn(l, p, ev)
	if p.status == maillog.StatusSent {
		t.handedOver(l, p)
	}
}

// ownFilter tells a content filter of ours from a stranger's, whose reply
// reads the same: ours does not listen on the ports that strangers' servers
// listen on, or is on this machine.
func ownFilter(ev *maillog.Event) bool {
	switch string(ev.RelayPort) {
	case "24", "25", "465", "587":
		return loopback(view(ev.RelayIP))
	}
	return true
}

// attempt counts an attempt by its time. It reports whether it is a new one.
func (p *rcpt) attempt(us int64) bool {
	ms := uint32(us/1000) | 1
	for _, s := range p.seen {
		if s == ms {
			return false
		}
	}
	p.seen[p.attempts&3] = ms
	p.attempts++
	return true
}

// delivered counts the recipients that the leg has lines for: one that is in
// the queue file twice is delivered twice.
func (l *leg) delivered() int64 {
	n := int64(0)
	for i := range l.rcpts {
		times := int64(l.rcpts[i].finals)
		if l.has(isDoubled) {
			times /= 2
		}
		n += max(1, times)
	}
	return n
}
