package trace

import (
	"strings"

	"github.com/rolmail/rolmail/lib/maillog"
)

// note is what Dovecot said of a mail before Postfix said that it had handed
// it over.
type note struct {
	item
	arena
	key        uint64
	us         int64
	user, text ref
	action     string
}

// dovecotEvent changes the outcome of a mail that Postfix has handed to
// Dovecot: Sieve may throw it away. The session id in Dovecot's LMTP reply
// joins them, or else message id and recipient.
func (t *Tracer) dovecotEvent(ev *maillog.Event) {
	t.dovecot = true
	key := mix(t.hash(ev.MsgID), 'M')
	if len(ev.Session) > 0 {
		key = mix(t.hash(ev.Session), 'D')
	} else if len(ev.MsgID) == 0 {
		return
	}
	n := &note{key: key, us: ev.Time}
	switch string(ev.Action) { // the words of package maillog, as constants
	case "store":
		n.action = "store"
	case "discard":
		n.action = "discard"
	case "forward":
		n.action = "forward"
	case "reject":
		n.action = "reject"
	default:
		n.action = "fail"
	}
	n.set(&n.user, ev.Rcpt)
	n.set(&n.text, ev.Text)
	for _, w := range t.wait[key] {
		if w.leg != nil && t.apply(w.leg, n) {
			return
		}
	}
	if len(ev.Session) > 0 && len(ev.MsgID) > 0 { // a delivery by LDA logs no session
		m := mix(t.hash(ev.MsgID), 'M')
		for _, w := range t.wait[m] {
			if w.leg != nil && t.apply(w.leg, n) {
				return
			}
		}
		t.keepNote(n, m)
	}
	t.keepNote(n, key)
}

func (t *Tracer) keepNote(n *note, key uint64) {
	if t.byQueue[qNote].n >= t.opt.MaxScans {
		t.dropNote(t.byQueue[qNote].head.thing.(*note))
	}
	c := *n
	c.key, c.item = key, item{}
	c.thing = &c
	t.await(key, waiter{note: &c})
	t.put(&c.item, qNote)
}

func (t *Tracer) dropNote(n *note) {
	t.unawait([]uint64{n.key}, func(w *waiter) bool { return w.note == n })
	t.unqueue(&n.item)
}

// handedOver looks for what Dovecot said of a recipient, and lets what it says
// later find it.
func (t *Tracer) handedOver(l *leg, p *rcpt) {
	if p.session.n > 0 {
		t.awaitNote(l, mix(t.hash(l.bytes(p.session)), 'D'))
	}
	if t.dovecot && l.msgid.n > 0 && p.remoteQID.n == 0 {
		t.awaitNote(l, mix(t.hash(l.bytes(l.msgid)), 'M'))
	}
}

func (t *Tracer) awaitNote(l *leg, key uint64) {
	t.await(key, waiter{leg: l})
	for i := 0; i < len(t.wait[key]); i++ {
		if n := t.wait[key][i].note; n != nil && t.apply(l, n) {
			t.dropNote(n)
			i = -1
		}
	}
}

// apply gives a delivered recipient what Dovecot said of it. An explicit
// store or forward takes back an implicit discard.
func (t *Tracer) apply(l *leg, n *note) bool {
	user := n.str(n.user)
	for i := range l.rcpts {
		p := &l.rcpts[i]
		if p.status != maillog.StatusSent || !sameUser(l.str(p.addr), user) && !(p.session.n > 0 && len(l.rcpts) == 1) {
			continue
		}
		p.lines++
		p.last = max(p.last, n.us)
		l.dirty, l.root().fresh = true, true
		switch n.action {
		case "store", "forward":
			p.kept = true
			l.set(&p.text, n.bytes(n.text))
		case "discard":
			p.discarded = true
			if !p.kept {
				l.set(&p.text, n.bytes(n.text))
			}
		case "reject", "fail":
			l.set(&p.text, n.bytes(n.text))
		}
		t.settle(l)
		return true
	}
	return false
}

// sameUser compares an address with a Dovecot user, which may lack the domain.
func sameUser(addr, user string) bool {
	if strings.EqualFold(addr, user) {
		return true
	}
	local, _, _ := strings.Cut(addr, "@")
	return !strings.Contains(user, "@") && strings.EqualFold(local, user)
}
