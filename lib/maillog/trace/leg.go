package trace

import (
	"unsafe"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// leg is one queue file in one incarnation.
type leg struct {
	item
	arena
	serial uint64
	stored bool // in the state of an earlier Changes
	dirty  bool // changed since the last Changes
	fresh  bool // its rows would differ from what was put

	hash  uint64 // of the queue id
	next  *leg   // other legs with that hash
	in    *node  // smtpd or pickup that took it
	own   *node  // the instance whose queue it is in
	sess  *session
	from  *leg // the leg before, when joined
	to    []*leg
	scan  []*scan
	waits []uint64 // keys in Tracer.wait that name it

	notice   *leg    // what this bounce or delay notice is about
	parent   flat.ID // the row of that leg which it is about
	parentAt int64   // when that row's outcome was decided
	notices  []*leg

	first, last int64 // log time of its lines, microseconds
	start       int64 // of its client= or uid= line, 0 if not seen
	removedAt   int64
	expiredAt   int64
	heldAt      int64
	queuedAt    int64 // last time the queue manager took it up
	lines       int32

	flags    flags
	via      evidence // how it was joined to from
	size     int64
	nrcpt    int64
	counters maillog.Counters // of its session

	qid, sender, msgid, subject      ref
	clientName, clientIP, clientPort ref
	helo, proto, tls, saslUser       ref
	origQID, origName, origIP        ref
	stage, text                      ref // of a hold, discard or break
	noticeQID                        ref // of the last notice about it
	noticeAt                         int64

	rcpts []rcpt
	ids   []flat.ID // rows put before this leg was done
	row   flat.ID   // the row a notice about it names
}

type flags uint32

const (
	hasClient flags = 1 << iota // client=
	hasPickup                   // uid=
	hasMsgID
	hasQueued
	isRemoved // by qmgr
	isDeleted // by postsuper
	isCanceled
	isExpired
	isHeld
	isReleased
	isDiscarded
	isRefused
	isRequeued
	isProbe
	sessionOver // its session has ended
	breakSeen   // lost connection or timeout named this queue id
	wasQueued   // went through the queue manager at least once
	isDoubled   // its lines come twice
	overflow    // more recipients than MaxRcpts
)

func (l *leg) has(f flags) bool { return l.flags&f != 0 }

// evidence says how a leg was joined to the one before.
type evidence uint8

const (
	viaNone evidence = iota
	viaOrigQID
	viaAmavis
	viaReply
	viaForward
	viaRequeue
	viaProxy
)

var evidenceNames = [...]string{"", "orig_queue_id", "amavis", "queued_as", "forwarded", "requeued", "proxy"}

// rcpt is one recipient of a leg.
type rcpt struct {
	hash        uint32
	status      maillog.Status
	discarded   bool // Sieve threw it away after "sent"
	kept        bool // Sieve stored it
	rejected    bool // Sieve sent it back
	forwarded   bool // remoteQID is a queue file of ours: local(8) forwarded it
	fromMTA     bool // the relay is a content filter that passed it on
	attempts    int32
	finals      int32 // deliveries and bounces: more than one when it is in the queue file twice
	lines       int32
	reply       int32 // SMTP code
	first, last int64
	delay       int64
	delays      [4]int64
	seen        [4]uint32 // milliseconds of the latest attempts: a line seen twice is one
	child       *leg

	addr, origTo, relay, relayIP, text ref
	dsn, remoteQID, amid, session      ref
}

// view looks at bytes as a string for as long as they stay.
func view(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b))
}

func (l *leg) eachRef(f func(*ref)) {
	for _, r := range [...]*ref{
		&l.qid, &l.sender, &l.msgid, &l.subject, &l.clientName, &l.clientIP, &l.clientPort, &l.helo, &l.proto,
		&l.tls, &l.saslUser, &l.origQID, &l.origName, &l.origIP, &l.stage, &l.text, &l.noticeQID,
	} {
		f(r)
	}
	for i := range l.rcpts {
		p := &l.rcpts[i]
		for _, r := range [...]*ref{&p.addr, &p.origTo, &p.relay, &p.relayIP, &p.text, &p.dsn, &p.remoteQID, &p.amid, &p.session} {
			f(r)
		}
	}
}

// slack is how far two lines of one host may be out of order and still say in
// which incarnation they belong: a second, which is also the resolution of
// BSD time stamps.
const slack = 1_000_000

// longAfter is when a line comes too long after the end of a mail to be a late
// one of it.
const longAfter = 5 * 60 * 1_000_000

// leg finds or makes the leg of an event with a queue id; nil when the line
// is a late one of a mail long done.
func (t *Tracer) leg(n *node, ev *maillog.Event) *leg {
	h := t.hash(ev.QID)
	l := t.find(h, n, ev)
	opens := ev.Kind == maillog.KindClient || ev.Kind == maillog.KindPickup
	if l != nil && opens {
		switch {
		case l.start == ev.Time:
			return l // the same line once more
		case l.start != 0 || ev.Time > l.first+slack:
			l = nil // the id came again
		}
	}
	if l != nil && l.removedAt != 0 && ev.Time > l.removedAt+2*slack &&
		(ev.Kind == maillog.KindMsgID || ev.Kind == maillog.KindQueued) {
		l = nil // came again, its client= line is lost
	}
	if l != nil && l.removedAt != 0 && ev.Time > l.removedAt+longAfter {
		l = nil
	}
	if l != nil {
		if n.owner && l.own != nil && !n.same(l.own) && n.same(l.in) {
			return t.split(l, n, ev)
		}
		return l
	}
	if !opens && t.late(h, n, ev) {
		return nil
	}
	return t.newLeg(h, n, ev)
}

// late reports whether a line belongs to a mail long done.
func (t *Tracer) late(h uint64, n *node, ev *maillog.Event) bool {
	tb := t.tombs.get(mix(h, n.hash))
	if tb == nil || ev.Time > tb.us+longAfter {
		return false
	}
	if ev.Time > tb.us+2*slack && (ev.Kind == maillog.KindMsgID || ev.Kind == maillog.KindQueued) {
		return false // the id came again
	}
	t.stats.Late++
	if ev.Kind == maillog.KindNotify {
		t.lateNotice(n, ev, tb)
	}
	return true
}

// split undoes an adoption: the ident under which the client= line came has a
// queue of its own, and so that line began another mail with the same id.
func (t *Tracer) split(l *leg, n *node, ev *maillog.Event) *leg {
	c := t.newLeg(l.hash, n, ev)
	moved := hasClient | hasPickup
	c.flags, l.flags = l.flags&moved, l.flags&^moved
	c.in, c.start, c.sess = l.in, l.start, l.sess
	l.in, l.start, l.sess = nil, 0, nil
	if c.start != 0 {
		c.first = min(c.first, c.start)
	}
	for _, f := range [...]struct{ to, from *ref }{
		{&c.clientName, &l.clientName}, {&c.clientIP, &l.clientIP}, {&c.clientPort, &l.clientPort}, {&c.saslUser, &l.saslUser},
		{&c.origQID, &l.origQID}, {&c.origName, &l.origName}, {&c.origIP, &l.origIP}, {&c.helo, &l.helo}, {&c.proto, &l.proto},
	} {
		if f.from.n > 0 {
			c.set(f.to, l.bytes(*f.from))
			*f.from = ref{}
		}
	}
	if c.sess != nil && c.sess.open == l {
		c.sess.open, c.sess.lastLeg = c, c.serial
	}
	c.dirty, l.dirty = true, true
	c.lines = 1 // l keeps its count: a row only grows
	l.root().fresh = true
	t.settle(l)
	return c
}

// find picks among the legs with a queue id on this host the one of this
// instance and of the right time.
func (t *Tracer) find(h uint64, n *node, ev *maillog.Event) *leg {
	var best *leg
	exact := false
	for l := t.legs[h]; l != nil; l = l.next {
		if l.str(l.qid) != string(ev.QID) || l.host() != n.host {
			continue
		}
		e := n.same(l.own) || n.same(l.in)
		if !e && !l.adopts(n) || exact && !e {
			continue
		}
		if best == nil || e && !exact || l.fits(ev.Time, best) {
			best, exact = l, e || exact
		}
	}
	return best
}

// fits reports whether l is a better place than other for a line of time us:
// the latest incarnation that began before it.
func (l *leg) fits(us int64, other *leg) bool {
	before, otherBefore := l.first <= us+slack, other.first <= us+slack
	if before != otherBefore {
		return before
	}
	if before {
		return l.first > other.first
	}
	return l.first < other.first
}

// adopts reports whether a line of another instance's ident may belong to the
// leg: a syslog_name that one service in master.cf has for itself. An ident
// under which a queue manager logs is an instance of its own.
func (l *leg) adopts(n *node) bool {
	if l.own == nil {
		return l.in == nil || !l.in.owner
	}
	return !n.owner
}

func (l *leg) host() string {
	if l.own != nil {
		return l.own.host
	}
	return l.in.host
}

// node is the instance that the leg's rows name.
func (l *leg) node() *node {
	if l.in != nil {
		return l.in
	}
	return l.own
}

func (t *Tracer) newLeg(h uint64, n *node, ev *maillog.Event) *leg {
	var l *leg
	if k := len(t.freeLegs); k > 0 {
		l, t.freeLegs = t.freeLegs[k-1], t.freeLegs[:k-1]
	} else {
		l = &leg{}
	}
	t.serial++
	l.serial, l.thing, l.hash = t.serial, l, h
	l.size, l.nrcpt = -1, -1
	l.first, l.last = ev.Time, ev.Time
	l.set(&l.qid, ev.QID)
	if n.owner {
		l.own = n
	} else {
		l.in = n
	}
	l.next, t.legs[h] = t.legs[h], l
	t.nlegs++
	t.put(&l.item, qOpen)
	t.resolve(h, ev.QID)
	return l
}

// touch notes that a line belongs to the leg.
func (l *leg) touch(t *Tracer, ev *maillog.Event) {
	l.first, l.last = min(l.first, ev.Time), max(l.last, ev.Time)
	l.lines++
	l.dirty = true
	l.root().fresh = true
	if l.dead > maxDead {
		l.compact(l.eachRef)
	}
}

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
		return
	}
	l.flags |= hasClient
	l.start, l.in = ev.Time, n
	l.set(&l.clientName, ev.ClientName)
	l.set(&l.clientIP, ev.ClientIP)
	l.set(&l.clientPort, ev.ClientPort)
	l.set(&l.saslUser, ev.SASLUser)
	l.set(&l.origQID, ev.OrigQID)
	l.set(&l.origName, ev.OrigClientName)
	l.set(&l.origIP, ev.OrigClientIP)
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
	if !p.attempt(ev.Time) {
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
