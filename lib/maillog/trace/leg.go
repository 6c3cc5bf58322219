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

	hash   uint64 // of the queue id
	next   *leg   // other legs with that hash
	in     *node  // smtpd or pickup that took it
	own    *node  // the instance whose queue it is in
	sess   *session
	from   *leg   // the leg before, when joined
	joined uint64 // in the order of t.next: legs are in from.to in this order
	to     []*leg
	scan   []*scan
	waits  []uint64 // keys in Tracer.wait that name it

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
	prints      prints
	seen        bool // its last line had come before

	flags flags
	via   evidence // how it was joined to from
	size  int64
	nrcpt int64

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
	_         // these values are stored: what is gone leaves a gap
	breakSeen // lost connection or timeout named this queue id
	_
	isDoubled // its lines come twice
	overflow  // more recipients than MaxRcpts
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
	t.wake(h)
	l := t.legs[h]
	if l != nil && (l.next != nil || l.own != n && l.in != n || string(l.bytes(l.qid)) != string(ev.QID)) {
		l = t.find(h, n, ev) // not just the one
	}
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
		{&c.clientName, &l.clientName},
		{&c.clientIP, &l.clientIP},
		{&c.clientPort, &l.clientPort},
		{&c.saslUser, &l.saslUser},
		{&c.origQID, &l.origQID},
		{&c.origName, &l.origName},
		{&c.origIP, &l.origIP},
		{&c.helo, &l.helo},
		{&c.proto, &l.proto},
	} {
		if f.from.n > 0 {
			c.set(f.to, l.bytes(*f.from))
			*f.from = ref{}
		}
	}
	if c.sess != nil && c.sess.open == l {
		c.sess.open, c.sess.lastLeg = c, c.serial
	}
	t.dirty(&c.item)
	t.dirty(&l.item)
	c.lines = 1 // l keeps its count: a row only grows
	t.fresh(&l.root().item)
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
	l := t.blankLeg()
	l.serial, l.hash = t.next(), h
	l.size, l.nrcpt = -1, -1
	l.first, l.last = ev.Time, ev.Time
	l.set(&l.qid, ev.QID)
	if n.owner {
		l.own = n
	} else {
		l.in = n
	}
	t.tabulate(l)
	t.put(&l.item, qOpen)
	t.resolve(h, ev.QID)
	return l
}

func (t *Tracer) blankLeg() (l *leg) {
	if k := len(t.freeLegs); k > 0 {
		l, t.freeLegs = t.freeLegs[k-1], t.freeLegs[:k-1]
	} else {
		l = &leg{}
	}
	l.thing = l
	return l
}

// tabulate makes a leg known by its queue id: the newest comes first.
func (t *Tracer) tabulate(l *leg) {
	t.nlegs++
	at := t.legs[l.hash]
	if at == nil || at.serial < l.serial {
		l.next, t.legs[l.hash] = at, l
		return
	}
	for at.next != nil && at.next.serial > l.serial {
		at = at.next
	}
	l.next, at.next = at.next, l
}

// touch notes that a line belongs to the leg.
func (l *leg) touch(t *Tracer, ev *maillog.Event) {
	l.first, l.last = min(l.first, ev.Time), max(l.last, ev.Time)
	l.seen = l.prints.again(t.print(ev))
	if !l.seen {
		l.lines++
	}
	t.dirty(&l.item)
	t.fresh(&l.root().item)
	if l.dead > maxDead {
		l.compact(l.eachRef)
	}
}
