package trace

import (
	"slices"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// waiter is one end of an edge whose other end, named by a queue id or an
// Amavis log id, has not been seen.
type waiter struct {
	leg    *leg
	edge   evidence // viaOrigQID, viaRequeue: leg is the later one; else the earlier
	notice bool     // leg is what the awaited bounce is about
	scan   *scan    // its mail, or (after) the mail that came of it
	after  bool
	note   *note  // what Dovecot said of a mail it was handed
	front  *front // before-queue filter: the session the awaited mail came in by
	us     int64
	seq    uint64 // of t.next: waiters for one thing have their turns in this order
}

// skew is how far the clocks of two hosts may be apart, microseconds, for
// edges whose ids may come again.
const skew = 60 * 1_000_000

// await registers a waiter.
func (t *Tracer) await(key uint64, w waiter) {
	switch {
	case w.leg != nil:
		for _, k := range w.leg.waits {
			if k == key {
				return
			}
		}
		w.leg.waits = append(w.leg.waits, key)
	case w.scan != nil:
		for _, x := range t.wait[key] {
			if x.scan == w.scan && x.after == w.after {
				return
			}
		}
		w.scan.waits = append(w.scan.waits, key)
	}
	w.seq = t.next()
	switch {
	case w.note != nil:
		w.note.seq = w.seq
	case w.front != nil:
		w.front.seq = w.seq
	}
	t.hang(key, w)
}

// hang puts a waiter where its turn is.
func (t *Tracer) hang(key uint64, w waiter) {
	ws := t.wait[key]
	i := len(ws)
	for i > 0 && ws[i-1].seq > w.seq {
		i--
	}
	t.wait[key] = slices.Insert(ws, i, w)
}

// next is a number that no thing has yet.
func (t *Tracer) next() uint64 {
	t.serial++
	return t.serial
}

// unawait removes the waiters of one owner.
func (t *Tracer) unawait(keys []uint64, mine func(*waiter) bool) {
	for _, k := range keys {
		ws := t.wait[k]
		kept := ws[:0]
		for i := range ws {
			if !mine(&ws[i]) {
				kept = append(kept, ws[i])
			}
		}
		if len(kept) == 0 {
			delete(t.wait, k)
		} else {
			clear(ws[len(kept):])
			t.wait[k] = kept
		}
	}
}

// resolve tries the waiters for a queue id.
func (t *Tracer) resolve(h uint64, qid []byte) {
	t.wake(h)
	for i := 0; i < len(t.wait[h]); i++ {
		w := t.wait[h][i]
		var found bool
		switch {
		case w.scan != nil:
			found = t.resolveScan(w, h, qid)
		case w.front != nil:
			found = t.resolveFront(w, h, qid)
		case w.leg != nil && !w.notice:
			found = t.resolveLeg(w, h, qid)
		}
		if found {
			t.settled(h, w)
			i = -1
		}
	}
}

// settled takes a waiter off a key.
func (t *Tracer) settled(h uint64, w waiter) {
	t.unawait([]uint64{h}, func(x *waiter) bool { return *x == w })
}

// resolveLeg joins two legs. It reports whether the edge has found its end.
func (t *Tracer) resolveLeg(w waiter, h uint64, qid []byte) bool {
	backwards := w.edge == viaOrigQID || w.edge == viaRequeue
	other := t.only(h, qid, func(l *leg) bool {
		if l == w.leg || l.root() == w.leg.root() && l.from != w.leg && w.leg.from != l {
			return false
		}
		if backwards {
			return l.first <= w.leg.first+skew && l.clientMatches(w.leg)
		}
		return l.first >= w.leg.first-skew && l.first <= w.leg.last+skew && l.mayFollow(w.leg) &&
			(w.edge != viaReply || !l.short() || l.affirms(w.leg))
	})
	if other == nil {
		return false
	}
	if backwards {
		t.join(other, w.leg, w.edge)
	} else {
		t.join(w.leg, other, w.edge)
	}
	return true
}

// only returns the one leg with a queue id that passes; nil when there is
// none or more than one. Of several incarnations on one host the latest is
// the one.
func (t *Tracer) only(h uint64, qid []byte, ok func(*leg) bool) *leg {
	var found *leg
	t.wake(h)
	for l := t.legs[h]; l != nil; l = l.next {
		if l.str(l.qid) != string(qid) || !ok(l) {
			continue
		}
		if found != nil && !(found.host() == l.host() && found.node().same(l.node())) {
			t.stats.Ambiguous++
			return nil
		}
		if found == nil || l.first > found.first {
			found = l
		}
	}
	return found
}

// clientMatches checks a leg against what XFORWARD says of the original
// client of a later one.
func (l *leg) clientMatches(later *leg) bool {
	if l.clientIP.n == 0 || later.origIP.n == 0 || l.origIP.n > 0 {
		return true
	}
	return l.str(l.clientIP) == later.str(later.origIP)
}

// mayFollow reports whether l can be the leg after p: nothing it says names
// another one.
func (l *leg) mayFollow(p *leg) bool {
	if l.origQID.n > 0 && l.has(hasClient) && l.str(l.origQID) != p.str(p.qid) {
		return false
	}
	if l.msgid.n > 0 && p.msgid.n > 0 && l.str(l.msgid) != p.str(p.msgid) {
		return false
	}
	if l.short() && l.sender.n > 0 && p.sender.n > 0 && !sameFold(l.str(l.sender), p.str(p.sender)) {
		return false
	}
	return l.from == nil || l.from == p
}

// short tells a short queue id, which comes again and which strangers have
// too: it joins nothing by itself.
func (l *leg) short() bool { return l.qid.n < 12 }

// affirms reports whether something but a short queue id says that l came of
// p: the message id, the sender or a recipient.
func (l *leg) affirms(p *leg) bool {
	if l.msgid.n > 0 && p.msgid.n > 0 {
		return l.str(l.msgid) == p.str(p.msgid)
	}
	if l.has(hasQueued) && p.has(hasQueued) {
		return sameFold(l.str(l.sender), p.str(p.sender))
	}
	for i := range l.rcpts {
		for j := range p.rcpts {
			if sameFold(l.str(l.rcpts[i].addr), p.str(p.rcpts[j].addr)) {
				return true
			}
		}
	}
	return false
}

// shortAgain tries the edges of a leg with a short id once more when there is
// more known of it.
func (t *Tracer) shortAgain(l *leg) {
	if l.from == nil && l.short() {
		t.resolve(l.hash, l.bytes(l.qid))
	}
}

// root is the first leg of the chain.
func (l *leg) root() *leg {
	for i := 0; l.from != nil && i < maxChain; i++ {
		l = l.from
	}
	return l
}

// maxChain bounds the legs in a row; mail loops end at hop count 50.
const maxChain = 60

// join makes c the leg after p.
func (t *Tracer) join(p, c *leg, via evidence) {
	if c.from == p {
		if via < c.via {
			c.via = via
			t.dirty(&c.item)
			t.fresh(&c.root().item)
		}
		return
	}
	if c.from != nil {
		if c.via <= via {
			return
		}
		t.unjoin(c)
	}
	root := p.root()
	if root == c || root.from != nil {
		return // a loop
	}
	c.from, c.via, c.joined = p, via, t.next()
	p.to = append(p.to, c)
	root.ids = append(root.ids, c.ids...)
	c.ids = nil
	t.fresh(&root.item)
	for _, l := range [...]*leg{c, p, root} {
		t.dirty(&l.item)
	}
	t.settle(c)
	t.settle(p)
}

// verify takes a leg off the one before when it was joined by no more than a
// queue id in a reply, and what has come since names another mail: short
// queue ids of strangers look like ours.
func (t *Tracer) verify(c *leg) {
	p := c.from
	if p == nil || c.via != viaReply || c.mayFollow(p) {
		return
	}
	root := p.root()
	for _, id := range root.ids { // they will be put again under their own
		t.sink.Delete(id)
	}
	root.ids = root.ids[:0]
	t.unjoin(c)
}

// unjoin takes c off the leg it was joined to by weaker evidence.
func (t *Tracer) unjoin(c *leg) {
	p := c.from
	for i, l := range p.to {
		if l == c {
			p.to = append(p.to[:i], p.to[i+1:]...)
			break
		}
	}
	c.from, c.via = nil, viaNone
	for _, l := range [...]*leg{p, c} {
		t.fresh(&l.root().item)
		t.dirty(&l.item)
	}
}

// passedOn notes where a delivered recipient went on to.
func (t *Tracer) passedOn(l *leg, p *rcpt, ev *maillog.Event) {
	p.remoteQID = ref{}
	p.forwarded = len(ev.NewQID) > 0
	switch {
	case len(ev.NewQID) > 0:
		l.set(&p.remoteQID, ev.NewQID)
		t.awaitNext(l, ev.NewQID, viaForward)
	case len(ev.RemoteQID) > 0:
		l.set(&p.remoteQID, ev.RemoteQID)
		if maillog.QueueID(ev.RemoteQID) {
			t.awaitNext(l, ev.RemoteQID, viaReply)
		}
	}
	if len(ev.AmID) > 0 && len(l.scan) == 0 {
		key := mix(t.hash(ev.AmID), 'A')
		t.await(key, waiter{leg: l})
		t.resolveAmID(key)
	}
}

func (t *Tracer) awaitNext(l *leg, qid []byte, via evidence) {
	h := t.hash(qid)
	w := waiter{leg: l, edge: via}
	if !t.resolveLeg(w, h, qid) {
		t.await(h, w)
	}
}

// awaitPrevious looks for the leg that a leg says it came from.
func (t *Tracer) awaitPrevious(l *leg, via evidence) {
	t.awaitNext(l, l.bytes(l.origQID), via)
}

// notify handles "sender non-delivery notification: Q2", which names the
// bounce of a mail.
func (t *Tracer) notify(l *leg, ev *maillog.Event) {
	l.set(&l.noticeQID, ev.NewQID)
	l.noticeAt = ev.Time
	t.awaitNotice(l)
}

func (t *Tracer) awaitNotice(l *leg) {
	qid := l.str(l.noticeQID)
	h := t.hash([]byte(qid))
	t.await(mix(h, 'N'), waiter{leg: l, notice: true, us: l.noticeAt})
	t.wake(h)
	for b := t.legs[h]; b != nil; b = b.next {
		if b.str(b.qid) == qid {
			t.resolveNotices(b)
		}
	}
}

// resolveNotices finds what a bounce is about.
func (t *Tracer) resolveNotices(b *leg) {
	if b.notice != nil || b.has(hasClient|hasPickup) {
		return
	}
	t.wake(mix(b.hash, 'N'))
	for _, w := range t.wait[mix(b.hash, 'N')] {
		if w.leg == b || w.leg.host() != b.host() || w.us < b.first-skew || w.us > b.last+skew {
			continue
		}
		b.notice = w.leg
		w.leg.notices = append(w.leg.notices, b)
		t.fresh(&w.leg.root().item) // its rows tell which of them the notice is about
		t.fresh(&b.item)
		t.dirty(&b.item)
		return
	}
}

// lateNotice gives a bounce its parent when the mail is long done.
func (t *Tracer) lateNotice(n *node, ev *maillog.Event, tb *tomb) {
	h := t.hash(ev.NewQID)
	t.wake(h)
	for b := t.legs[h]; b != nil; b = b.next {
		if b.str(b.qid) == string(ev.NewQID) && b.host() == n.host && b.notice == nil {
			b.parent = tb.row
			t.fresh(&b.item)
			t.dirty(&b.item)
		}
	}
}

// resolveFront gives the mail behind a before-queue filter the client that
// the front smtpd served.
func (t *Tracer) resolveFront(w waiter, h uint64, qid []byte) bool {
	l := t.only(h, qid, func(l *leg) bool { return l.first <= w.us+skew && l.first >= w.us-10*skew })
	if l == nil {
		return false
	}
	s := w.front.s
	for _, f := range [...]struct {
		dst *ref
		src ref
	}{
		{&l.clientIP, s.clientIP},
		{&l.clientName, s.clientName},
		{&l.clientPort, s.clientPort},
		{&l.helo, s.helo},
		{&l.proto, s.proto},
		{&l.tls, s.tls},
		{&l.saslUser, s.saslUser},
	} {
		if f.src.n > 0 {
			*f.dst = ref{}
			l.set(f.dst, s.bytes(f.src))
		}
	}
	l.origIP, l.origName = ref{}, ref{}
	l.via = viaProxy
	t.fresh(&l.root().item)
	t.dirty(&l.item)
	t.release(&w.front.item)
	t.releaseSession(s)
	return true
}

// dropFront gives up waiting for the mail behind a before-queue filter.
func (t *Tracer) dropFront(f *front) {
	t.unawait([]uint64{f.key}, func(w *waiter) bool { return w.front == f })
	t.release(&f.item)
	t.releaseSession(f.s)
}

// releaseSession ends what a leg or an edge needed of a session.
func (t *Tracer) releaseSession(s *session) {
	s.refs--
	switch {
	case s.refs > 0:
	case t.sessions[s.key.hash()] != s:
		t.sessionDone(s)
	case s.stale:
		t.fresh(&s.item)
	}
}

// direction says whose mail it is: out and local are the cluster's own.
func (t *Tracer) direction(n *node, ip, user string) string {
	if user != "" || t.outHost[n.host] || t.outHost[n.inst] || t.ownNetwork(ip) {
		return flat.DirOut
	}
	return flat.DirIn
}
