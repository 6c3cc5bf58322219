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
	byMsgID                    bool // it waits under the message id, not the session
	key                        uint64
	seq                        uint64 // of its waiter
	us                         int64
	action                     sieveAction
	user, text, msgid, session ref
}

func (n *note) eachRef(f func(*ref)) {
	for _, r := range [...]*ref{&n.user, &n.text, &n.msgid, &n.session} {
		f(r)
	}
}

// sieveAction is what was done with a delivered mail.
type sieveAction uint8

const (
	sieveStore sieveAction = iota
	sieveDiscard
	sieveForward
	sieveReject
	sieveFail
)

var sieveActions = map[string]sieveAction{
	"store": sieveStore, "discard": sieveDiscard, "forward": sieveForward, "reject": sieveReject, "fail": sieveFail,
}

// dovecotEvent changes the outcome of a mail that Postfix has handed to
// Dovecot: Sieve may throw it away. The session id in Dovecot's LMTP reply
// joins them; a delivery by LDA has none, there message id and recipient do.
func (t *Tracer) dovecotEvent(ev *maillog.Event) {
	t.dovecot = true
	for _, byMsgID := range [...]bool{false, true} {
		id := ev.Session
		if byMsgID {
			id = ev.MsgID
		}
		if len(id) == 0 {
			continue
		}
		n := &note{us: ev.Time, action: sieveActions[string(ev.Action)], byMsgID: byMsgID}
		n.serial, n.thing = t.next(), n
		n.set(&n.user, ev.Rcpt)
		n.set(&n.text, ev.Text)
		n.set(&n.msgid, ev.MsgID)
		n.set(&n.session, ev.Session)
		t.noteKey(n)
		t.wake(n.key)
		for _, w := range t.wait[n.key] {
			if w.leg != nil && t.apply(w.leg, n) {
				return
			}
		}
		t.keepNote(n)
	}
}

func (t *Tracer) noteKey(n *note) {
	n.key = mix(t.hash(n.bytes(n.session)), 'D')
	if n.byMsgID {
		n.key = mix(t.hash(n.bytes(n.msgid)), 'M')
	}
}

func (t *Tracer) keepNote(n *note) {
	if t.byQueue[qNote].n >= t.opt.MaxScans {
		t.dropNote(t.byQueue[qNote].head.thing.(*note))
	}
	t.dirty(&n.item)
	t.await(n.key, waiter{note: n})
	t.put(&n.item, qNote)
}

func (t *Tracer) dropNote(n *note) {
	t.unawait([]uint64{n.key}, func(w *waiter) bool { return w.note == n })
	t.release(&n.item)
}

// handedOver looks for what Dovecot said of a recipient, and lets what it says
// later find it.
func (t *Tracer) handedOver(l *leg, p *rcpt) {
	if p.session.n > 0 {
		t.awaitNote(l, mix(t.hash(l.bytes(p.session)), 'D'))
	}
	if l.msgid.n > 0 && p.remoteQID.n == 0 && (t.dovecot || strings.Contains(l.str(p.relay), "dovecot") || strings.Contains(l.str(p.text), "dovecot")) {
		t.awaitNote(l, mix(t.hash(l.bytes(l.msgid)), 'M'))
	}
}

func (t *Tracer) awaitNote(l *leg, key uint64) {
	t.await(key, waiter{leg: l})
	t.wake(key)
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
		if p.status != maillog.StatusSent {
			continue
		}
		if p.session.n > 0 && n.session.n > 0 {
			if l.str(p.session) != n.str(n.session) || len(l.rcpts) > 1 && !sameUser(l.str(p.addr), user) {
				continue
			}
		} else if !sameUser(l.str(p.addr), user) {
			continue
		}
		p.lines++
		p.last = max(p.last, n.us)
		t.dirty(&l.item)
		t.fresh(&l.root().item)
		switch n.action {
		case sieveStore, sieveForward:
			p.kept = true
			l.set(&p.text, n.bytes(n.text))
		case sieveDiscard:
			p.discarded = true
			if !p.kept {
				l.set(&p.text, n.bytes(n.text))
			}
		case sieveReject:
			p.rejected = true
			l.set(&p.text, n.bytes(n.text))
		case sieveFail:
			l.set(&p.text, n.bytes(n.text))
		}
		t.settle(l)
		return true
	}
	return false
}

// sameUser compares an address with a Dovecot user, which may lack the domain.
func sameUser(addr, user string) bool {
	if sameFold(addr, user) {
		return true
	}
	local, _, _ := strings.Cut(addr, "@")
	return !strings.Contains(user, "@") && sameFold(local, user)
}
