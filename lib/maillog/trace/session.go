package trace

import (
	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// sessionKey finds a session: the process for smtpd(8), the client's address
// and port for postscreen(8), which is one process for all.
type sessionKey struct {
	node   *node
	pid    int64
	screen bool
}

func (k sessionKey) hash() uint64 {
	h := mix(k.node.hash^k.node.instHash, uint64(k.pid))
	if k.screen {
		h = ^h
	}
	return h
}

// session is one client's visit.
type session struct {
	item
	arena
	key   sessionKey
	shown bool // its row has been put
	stale bool // its row would differ from what was put

	first, last int64 // log time of its lines, microseconds
	lines       int32
	prints      prints
	rejects     int32 // recipients refused
	mails       int32 // queue ids given
	refs        int32 // legs that need it
	authFailed  int32
	lastLeg     uint64 // serial of the last queue id given, and when
	lastLegAt   int64
	id          flat.ID // of the row put

	ended    bool // disconnect seen
	linked   bool // connect seen
	passed   bool // postscreen let it through
	hungUp   bool
	discards bool // a NOQUEUE discard: the rows are there already
	open     *leg // the last mail begun
	isLost   bool

	clientName, clientIP, clientPort ref
	helo, proto, tls, saslUser       ref
	stage, text                      ref // of the break, or of the failed login
	frontQID                         ref // in old state: a front
	holdText, holdSender             ref // of a hold action before the queue id
	holdRcpt, holdStage              ref
	frontAt                          int64
	counters                         maillog.Counters
}

func (s *session) eachRef(f func(*ref)) {
	for _, r := range [...]*ref{
		&s.clientName, &s.clientIP, &s.clientPort, &s.helo, &s.proto, &s.tls, &s.saslUser, &s.stage, &s.text, &s.frontQID,
		&s.holdText, &s.holdSender, &s.holdRcpt, &s.holdStage,
	} {
		f(r)
	}
}

// session returns the open session of a process, making one if there is none.
func (t *Tracer) session(k sessionKey, ev *maillog.Event) *session {
	s := t.sessions[k.hash()]
	if s == nil {
		s = t.blankSession()
		s.key, s.serial, s.first, s.last = k, t.next(), ev.Time, ev.Time
		t.sessions[k.hash()] = s
		for len(t.sessions) > t.opt.MaxSessions && t.evictSession() {
		}
	}
	t.touchSession(s, ev)
	return s
}

func (t *Tracer) blankSession() (s *session) {
	if n := len(t.freeSess); n > 0 {
		s, t.freeSess = t.freeSess[n-1], t.freeSess[:n-1]
	} else {
		s = &session{}
	}
	s.thing = s
	return s
}

// evictSession makes room: one that ended first, before its time. It reports
// whether there was any. Each call takes one out of its queue.
func (t *Tracer) evictSession() bool {
	before := len(t.sessions)
	if it := t.byQueue[qEnded].head; it != nil {
		t.endSession(it.thing.(*session))
	} else if it := t.byQueue[qSession].head; it != nil {
		t.closeSession(it.thing.(*session))
	} else {
		return false
	}
	t.stats.Evicted.Sessions += int64(before - len(t.sessions))
	return true
}

// endSession forgets a session that has waited for late lines; what refers to
// it keeps it alive.
func (t *Tracer) endSession(s *session) {
	if s.refs <= 0 {
		t.sessionDone(s)
		return
	}
	t.detach(s)
	t.unqueue(&s.item)
}

// detach makes the process free for another session, if it has none yet.
func (t *Tracer) detach(s *session) {
	if t.sessions[s.key.hash()] == s {
		delete(t.sessions, s.key.hash())
	}
}

func (t *Tracer) touchSession(s *session, ev *maillog.Event) {
	s.first, s.last = min(s.first, ev.Time), max(s.last, ev.Time)
	if !s.prints.again(t.print(ev)) {
		s.lines++
	}
	s.stale = true
	t.dirty(&s.item)
	t.fresh(&s.item)
	if s.open != nil && s.open.unqueued() {
		t.fresh(&s.open.root().item)
	}
	if s.dead > maxDead {
		s.compact(s.eachRef)
	}
	if s.ended {
		t.put(&s.item, qEnded)
	} else {
		t.put(&s.item, qSession)
	}
}

func (s *session) client(ev *maillog.Event) {
	s.setNew(&s.clientName, ev.ClientName)
	s.setNew(&s.clientIP, ev.ClientIP)
	s.setNew(&s.clientPort, ev.ClientPort)
}

// sameClient reports whether an event may belong to the session: an smtpd
// process serves one client after the other.
func (s *session) sameClient(ev *maillog.Event) bool {
	return s.clientIP.n == 0 || len(ev.ClientIP) == 0 || s.str(s.clientIP) == string(ev.ClientIP)
}

// smtpd finds the session an smtpd line belongs to. A line that names another
// client than the session has belongs to one whose connect line is still to
// come or lost.
func (t *Tracer) smtpd(n *node, ev *maillog.Event) *session {
	k := sessionKey{node: n, pid: ev.PID}
	s := t.sessions[k.hash()]
	if s != nil {
		if s.sameClient(ev) && (!s.ended || ev.Time <= s.last+1_000_000) {
			t.touchSession(s, ev)
			return s
		}
		t.closeSession(s)
	}
	return t.session(k, ev)
}

// sessionEvent handles the lines of smtpd(8) without a queue id.
func (t *Tracer) sessionEvent(n *node, ev *maillog.Event) {
	k := sessionKey{node: n, pid: ev.PID}
	if ev.Kind == maillog.KindConnect {
		if s := t.sessions[k.hash()]; s != nil {
			switch {
			case s.linked && s.first == ev.Time && s.sameClient(ev):
				return // the same line once more
			case !s.linked && s.sameClient(ev) && ev.Time <= s.first+1_000_000:
				// lines overtook it
			default:
				t.closeSession(s)
			}
		}
		s := t.session(k, ev)
		s.linked = true
		s.client(ev)
		return
	}
	s := t.smtpd(n, ev)
	s.client(ev)
	switch ev.Kind {
	case maillog.KindDisconnect:
		s.counters = ev.Counters
		s.ended = true
		t.put(&s.item, qEnded)
	case maillog.KindTLS:
		s.setTLS(ev)
	case maillog.KindAuthFailed:
		s.authFailed += int32(ev.Repeat)
		s.set(&s.text, ev.Text)
		s.setNew(&s.saslUser, ev.SASLUser)
	case maillog.KindAbuse:
		s.setNew(&s.text, ev.Text)
		s.setNew(&s.stage, ev.Stage)
	}
}

func (s *session) setTLS(ev *maillog.Event) {
	if ev.TLSProto == nil || s.tls.n > 0 {
		return
	}
	s.tls = ref{off: uint32(len(s.buf)), n: uint32(len(ev.TLSProto) + 1 + len(ev.TLSCipher))}
	s.buf = append(s.buf, ev.TLSProto...)
	s.buf = append(s.buf, ' ')
	s.buf = append(s.buf, ev.TLSCipher...)
}

// lost handles "lost connection after", "timeout after" and their kin, with
// or without a queue id.
func (t *Tracer) lost(n *node, ev *maillog.Event) {
	s := t.smtpd(n, ev)
	s.client(ev)
	if !s.isLost || string(ev.Action) != "bare <LF> received" {
		s.set(&s.stage, ev.Stage)
		s.set(&s.text, ev.Text)
	}
	s.isLost = s.isLost || string(ev.Action) != "bare <LF> received" && string(ev.Action) != "bare <LF>"
	if ev.QID == nil {
		return
	}
	if l := t.leg(n, ev); l != nil {
		if l.sess == nil { // its client= line is lost
			l.sess = s
			s.refs++
			s.mails++
			s.lastLeg, s.lastLegAt, s.open = l.serial, ev.Time, l
		}
		l.setNew(&l.clientIP, ev.ClientIP)
		l.setNew(&l.clientName, ev.ClientName)
		t.legEvent(n, ev)
	}
}

// noqueueEvent handles "NOQUEUE: client=" of a before-queue filter's smtpd,
// and actions that are no rejects.
func (t *Tracer) noqueueEvent(n *node, ev *maillog.Event) {
	switch ev.Kind {
	case maillog.KindClient:
		s := t.smtpd(n, ev)
		s.client(ev)
		s.setNew(&s.saslUser, ev.SASLUser)
	case maillog.KindDiscard:
		s := t.smtpd(n, ev)
		s.client(ev)
		s.envelope(ev)
		s.mails++
		s.discards = true
		t.refusedRow(n, ev, s, nil, flat.KindMail, flat.Discarded)
	case maillog.KindHold: // the mail gets its queue id later, in the same session
		s := t.smtpd(n, ev)
		s.client(ev)
		s.envelope(ev)
		s.set(&s.holdText, ev.Text)
		s.set(&s.holdSender, ev.Sender)
		s.set(&s.holdRcpt, ev.Rcpt)
		s.set(&s.holdStage, ev.Stage)
	case maillog.KindCheck:
		if ev.Daemon != maillog.Postscreen && ev.ClientIP != nil && ev.PID != 0 {
			s := t.smtpd(n, ev)
			s.client(ev)
			s.envelope(ev)
		}
	}
}

// envelope keeps what a policy line tells of the session.
func (s *session) envelope(ev *maillog.Event) {
	s.set(&s.helo, ev.Helo)
	s.set(&s.proto, ev.Proto)
	s.setNew(&s.saslUser, ev.SASLUser)
}

// screenEvent handles postscreen(8).
func (t *Tracer) screenEvent(n *node, ev *maillog.Event) {
	k := t.screenKey(n, ev)
	if ev.Kind == maillog.KindScreenConnect {
		if s := t.sessions[k.hash()]; s != nil && (!s.linked || s.first != ev.Time) {
			t.closeSession(s)
		}
	}
	s := t.session(k, ev)
	s.client(ev)
	switch ev.Kind {
	case maillog.KindScreenConnect:
		s.linked = true
	case maillog.KindScreenPass:
		s.passed = true
	case maillog.KindScreenViolation:
		s.set(&s.stage, ev.Stage)
		if string(ev.Action) != "DNSBL" || s.text.n == 0 {
			s.set(&s.text, ev.Text)
		}
		if string(ev.Action) == "HANGUP" {
			s.hungUp = true
		}
	case maillog.KindScreenDisconnect:
		s.ended = true
		t.put(&s.item, qEnded)
	}
}

func (t *Tracer) screenKey(n *node, ev *maillog.Event) sessionKey {
	h := mix(t.hash(ev.ClientIP), t.hash(ev.ClientPort))
	return sessionKey{node: n, pid: int64(h), screen: true}
}

// closeSession gives the session's row, if it has one, and forgets it; legs
// that need it keep it alive.
func (t *Tracer) closeSession(s *session) {
	t.detach(s)
	s.ended = true
	t.put(&s.item, qEnded)
	if s.refs > 0 {
		t.dirty(&s.item)
		return // the last leg will call sessionDone
	}
	t.sessionDone(s)
}

// sessionDone ends a session that nothing refers to.
func (t *Tracer) sessionDone(s *session) {
	t.detach(s)
	t.sessionRow(s)
	t.recycleSession(s)
}

// recycleSession forgets a session and keeps it for the next.
func (t *Tracer) recycleSession(s *session) {
	t.release(&s.item)
	if len(t.freeSess) < 1024 {
		a := s.arena
		a.reset()
		*s = session{arena: a, prints: prints{last: s.prints.last[:0]}}
		t.freeSess = append(t.freeSess, s)
	}
}

// sessionRow puts the row of a session that broke off without a mail, or
// whose login failed. What it accepted or refused by name has rows of its own.
func (t *Tracer) sessionRow(s *session) {
	if !s.stale {
		return
	}
	s.stale = false
	if int(s.rejects) > t.opt.MaxRejects {
		t.tooManyRejects(s)
	}
	kind, outcome, complete := s.verdict()
	if kind == "" {
		if s.shown { // a late line told better
			t.sink.Delete(s.id)
			s.shown = false
		}
		return
	}
	r := &t.row
	r.Clear()
	t.fromSession(r, s)
	r.Kind, r.Outcome, r.Complete = kind, outcome, complete
	r.Stage, r.Reason = s.str(s.stage), s.str(s.text)
	if r.Stage == "" {
		r.Stage = "CONNECT"
		if s.authFailed > 0 {
			r.Stage = "AUTH"
		}
	}
	r.HostIn, r.InstanceIn = s.key.node.host, s.key.node.inst
	r.TS, r.TSFinal = s.first/1000, s.last/1000
	r.TotalMS = r.TSFinal - r.TS
	r.Lines = int64(s.lines)
	if !complete {
		r.Evidence = "missing: disconnect"
		if !s.linked {
			r.Evidence = "missing: connect"
		}
	}
	h := newIDHash()
	h.add("session")
	h.add(s.key.node.host)
	h.add(s.key.node.inst)
	h.num(s.identity())
	h.add(r.ClientIP)
	r.ID = h.id(r.TS)
	if s.shown && s.id != r.ID {
		t.sink.Delete(s.id)
	}
	s.id, s.shown = r.ID, true
	t.emit(r)
}

// identity tells sessions of one client apart that begin at one time.
func (s *session) identity() int64 {
	if s.key.screen {
		port := int64(0)
		for _, c := range []byte(s.str(s.clientPort)) {
			port = port*10 + int64(c&15)
		}
		return port
	}
	return s.key.pid
}

// verdict decides whether a session without a mail deserves a row.
func (s *session) verdict() (kind, outcome string, complete bool) {
	complete = s.linked && s.ended
	switch {
	case s.rejects > 0 || s.mails > 0 || s.counters.Data.OK > 0:
		return "", "", false
	case s.key.screen:
		if s.passed || !s.ended && !s.hungUp {
			return "", "", false
		}
		return flat.KindAbort, flat.Aborted, s.linked
	case s.isLost:
		return flat.KindAbort, flat.Aborted, complete
	case s.authFailed > 0 && s.counters.Quit.All > 0:
		return flat.KindReject, flat.Rejected, complete
	case s.authFailed > 0:
		return flat.KindAbort, flat.Aborted, complete
	case s.counters.Seen && s.counters.Quit.All == 0:
		// it went without QUIT; the line that says how is missing, or the
		// client was gone before smtpd asked for its name
		return flat.KindAbort, flat.Aborted, complete && s.counters.Commands.All == 0
	case !s.linked || s.counters.Seen || s.closedByDisconnect():
		return "", "", false
	}
	return flat.KindAbort, flat.Unknown, false // it never ended: killed, or lines lost
}

// closedByDisconnect is for Postfix 2.x, which counts nothing: a disconnect
// line without a "lost connection" is a QUIT.
func (s *session) closedByDisconnect() bool { return s.ended && s.last > s.first || s.lines > 1 }

// fromSession fills in who the client is.
func (t *Tracer) fromSession(r *flat.Row, s *session) {
	r.ClientIP, r.ClientName, r.ClientPort = s.str(s.clientIP), s.str(s.clientName), s.str(s.clientPort)
	r.Helo, r.Proto, r.TLS, r.SASLUser = s.str(s.helo), s.str(s.proto), s.str(s.tls), s.str(s.saslUser)
	r.Dir = t.direction(s.key.node, r.ClientIP, r.SASLUser)
}

func (t *Tracer) emit(r *flat.Row) {
	t.stats.count(r)
	t.sink.Put(r)
}
