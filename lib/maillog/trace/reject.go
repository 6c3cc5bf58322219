package trace

import (
	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// reject handles a refused recipient, command or message.
func (t *Tracer) reject(n *node, ev *maillog.Event) {
	var s *session
	switch {
	case ev.Daemon == maillog.Postscreen || len(ev.ClientName) == 0 && len(ev.ClientPort) > 0:
		s = t.session(t.screenKey(n, ev), ev)
	case ev.Daemon == maillog.Cleanup || isContentStage(ev.Stage):
		// cleanup(8) says it; the session is another process's
	case ev.PID != 0 && ev.ClientIP != nil:
		s = t.smtpd(n, ev)
	}
	if s != nil {
		s.client(ev)
		s.envelope(ev)
		if s.rejects += int32(ev.Repeat); int(s.rejects) > t.opt.MaxRejects {
			return
		}
	}
	var l *leg
	if ev.QID != nil {
		if l = t.leg(n, ev); l == nil {
			return
		}
		l.touch(t, ev)
		if !l.refuse(t, ev) {
			return // cleanup says the same again
		}
		if s == nil {
			s = l.sess
		}
	}
	t.refusedRow(n, ev, s, l, flat.KindReject, flat.Rejected)
}

func isContentStage(b []byte) bool {
	switch string(b) {
	case "header", "body", "mime-header", "nested-header", "mime-error", "content":
		return true
	}
	return false
}

// refusedRow puts the row of a reject line, or of a recipient whose mail smtpd
// was told to discard before it had a queue id. Neither needs another line.
func (t *Tracer) refusedRow(n *node, ev *maillog.Event, s *session, l *leg, kind, outcome string) {
	r := &t.row
	r.Clear()
	if s != nil {
		t.fromSession(r, s)
	}
	if l != nil {
		l.fillClient(r)
		r.QIDIn = l.str(l.qid)
		r.MsgID = l.str(l.msgid)
		if l.nrcpt > 0 {
			r.NRcpt = l.nrcpt
		}
	}
	r.Kind, r.Outcome, r.Complete = kind, outcome, true
	r.HostIn, r.InstanceIn = n.host, n.inst
	r.TS, r.TSFinal = ev.Time/1000, ev.Time/1000
	fill := func(dst *string, b []byte) {
		if len(b) > 0 {
			*dst = view(b)
		}
	}
	fill(&r.ClientIP, ev.ClientIP)
	fill(&r.ClientName, ev.ClientName)
	fill(&r.ClientPort, ev.ClientPort)
	fill(&r.Helo, ev.Helo)
	fill(&r.Proto, ev.Proto)
	fill(&r.SASLUser, ev.SASLUser)
	fill(&r.Sender, ev.Sender)
	fill(&r.Rcpt, ev.Rcpt)
	fill(&r.Stage, ev.Stage)
	fill(&r.DSN, ev.DSN)
	fill(&r.Reason, ev.Text)
	fill(&r.Subject, ev.Subject)
	if ev.Code > 0 {
		r.SMTPCode = int64(ev.Code)
	}
	r.SenderDomain, r.RcptDomain = flat.Domain(r.Sender), flat.Domain(r.Rcpt)
	r.Dir = t.direction(n, r.ClientIP, r.SASLUser)
	r.Attempts, r.Lines = int64(ev.Repeat), 1

	h := newIDHash()
	h.add("reject")
	h.add(n.host)
	h.add(n.inst)
	h.add(r.QIDIn)
	h.num(ev.PID)
	h.add(r.ClientIP)
	h.add(r.ClientPort)
	h.add(r.Stage)
	h.add(r.Sender)
	h.add(r.Rcpt)
	h.num(int64(ev.Code))
	if l != nil && final(ev.Stage) {
		// said once or twice, it is one refusal
		h = newIDHash()
		h.add("refused")
		h.add(n.host)
		h.add(r.QIDIn)
		h.add(r.Rcpt)
	}
	r.ID = h.id(r.TS)
	if len(ev.AmID) > 0 {
		t.holdForVerdict(ev, r)
	}
	t.emit(r)
}

// final tells the stages at which the whole message is refused.
func final(stage []byte) bool {
	switch string(stage) {
	case "DATA", "END-OF-MESSAGE", "END-OF-DATA", "BDAT", "EOM":
		return true
	}
	return isContentStage(stage)
}

// tooManyRejects counts what one session was refused beyond the cap.
func (t *Tracer) tooManyRejects(s *session) {
	r := &t.row
	r.Clear()
	t.fromSession(r, s)
	r.Kind, r.Outcome = flat.KindReject, flat.Rejected
	r.HostIn, r.InstanceIn = s.key.node.host, s.key.node.inst
	r.TS, r.TSFinal = s.first/1000, s.last/1000
	r.Stage, r.Attempts, r.Lines = "RCPT", int64(s.rejects)-int64(t.opt.MaxRejects), int64(s.lines)
	r.Reason = "more recipients were refused in this session than have rows of their own"
	r.Evidence = "missing: rows beyond the limit for one session"
	h := newIDHash()
	h.add("rejects")
	h.add(r.HostIn)
	h.add(r.InstanceIn)
	h.num(s.identity())
	h.add(r.ClientIP)
	r.ID = h.id(r.TS)
	t.emit(r)
}

// front is a session whose mail went through a before-queue filter and is
// known by the queue id that its next hop gave it. It needs the session.
type front struct {
	item
	key uint64 // hash of qid
	seq uint64 // of its waiter
	s   *session
	qid string
	us  int64
}

// awaitFront looks for the mail with a queue id.
func (t *Tracer) awaitFront(s *session, qid []byte, us int64) {
	f := &front{key: t.hash(qid), s: s, qid: string(qid), us: us}
	f.thing, f.serial = f, t.next()
	s.refs++
	t.put(&f.item, qFront)
	t.dirty(&f.item)
	t.await(f.key, waiter{front: f, us: us})
	t.resolve(f.key, qid)
}

// refusal is a reject row that an Amavis verdict may yet explain.
type refusal struct {
	item
	key uint64
	row *flat.Row
}

// holdForVerdict joins a refused message with the scan that refused it, or
// keeps its row until the scan comes.
func (t *Tracer) holdForVerdict(ev *maillog.Event, r *flat.Row) {
	key := mix(t.hash(ev.AmID), 'A')
	t.wake(key)
	for _, w := range t.wait[key] {
		if w.scan != nil && w.scan.matches(r.Sender, r.Rcpt) {
			w.scan.fill(r, w.scan.result(r.Rcpt))
			t.withdrawScan(w.scan)
			t.dropScan(w.scan)
			return
		}
	}
	if len(t.refused) >= t.opt.MaxScans {
		return
	}
	if old := t.refused[key]; old != nil {
		t.release(&old.item)
	}
	f := &refusal{key: key, row: r.Clone()}
	f.thing, f.serial = f, t.next()
	t.dirty(&f.item)
	t.refused[key] = f
	t.put(&f.item, qRefused)
}

// explain gives a refused message the verdict that came after it.
func (t *Tracer) explain(sc *scan) bool {
	key := mix(t.hash(sc.bytes(sc.amid)), 'A')
	f := t.refused[key]
	if f == nil || !sc.matches(f.row.Sender, f.row.Rcpt) {
		return false
	}
	sc.fill(f.row, sc.result(f.row.Rcpt))
	f.row.Lines++
	t.emit(f.row)
	t.release(&f.item)
	delete(t.refused, key)
	return true
}

// proxy handles the last word of a before-queue content filter
// (smtpd_proxy_filter). A refusal is a row; what was accepted is the mail
// with the queue id that the filter's next hop gave it.
func (t *Tracer) proxy(n *node, ev *maillog.Event) {
	s := t.smtpd(n, ev)
	s.envelope(ev)
	if string(ev.Action) == "proxy-reject" {
		s.rejects++
		t.refusedRow(n, ev, s, nil, flat.KindReject, flat.Rejected)
		return
	}
	s.mails++
	if len(ev.RemoteQID) > 0 && maillog.QueueID(ev.RemoteQID) {
		t.awaitFront(s, ev.RemoteQID, ev.Time)
	}
}
