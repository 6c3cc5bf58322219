package trace

import "github.com/rolmail/rolmail/lib/maillog"

// settle puts a leg in the queue that its state asks for.
func (t *Tracer) settle(l *leg) {
	switch {
	case l.done():
		t.put(&l.item, qDone)
	case !l.unqueued():
		t.put(&l.item, qActive)
	default:
		t.put(&l.item, qOpen)
	}
	t.keep = l
}

// done reports whether no more is to be expected of a leg than late lines.
func (l *leg) done() bool {
	if l.has(isRemoved | isDeleted | isCanceled | isDiscarded | isRefused) {
		return true
	}
	if l.has(isRequeued) && l.requeuedOn() {
		return true
	}
	if l.nrcpt <= 0 || int64(len(l.rcpts)) < l.nrcpt {
		return false
	}
	return l.allFinal()
}

func (l *leg) allFinal() bool {
	for i := range l.rcpts {
		switch l.rcpts[i].status {
		case maillog.StatusSent, maillog.StatusBounced, maillog.StatusExpired, maillog.StatusDeliverable, maillog.StatusUndeliverable:
		default:
			return false
		}
	}
	return len(l.rcpts) > 0
}

// expire runs the timers: those that wait for late lines by the clock that
// goes on when no lines come, the others by that of the lines.
func (t *Tracer) expire() {
	now, log := t.clock.now, t.clock.log
	linger, expect := t.opt.Linger.Microseconds(), t.opt.Expect.Microseconds()
	t.eachDue(qDone, now, linger, t.opt.MaxLinger, func(it *item) { t.lingered(it.thing.(*leg), now-it.at > linger) })
	t.eachDue(qExpect, log, expect, 0, func(it *item) { t.finish(it.thing.(*leg).root()) })
	t.eachDue(qMaybe, log, expect, t.opt.MaxLinger, func(it *item) { t.finish(it.thing.(*leg).root()) })
	t.eachDue(qOpen, now, linger, 0, func(it *item) { t.opened(it.thing.(*leg)) })
	t.noShelf = false
	t.eachOld(t.opt.LegAge.Microseconds(), t.expireWaiting)
	t.expireWaiting()
	t.rest()
	t.expireSessions()
	t.eachDue(qScan, log, expect, 0, func(it *item) { t.loseScan(it.thing.(*scan)) })
	t.eachDue(qRefused, log, expect, 0, func(it *item) {
		delete(t.refused, it.thing.(*refusal).key)
		t.release(it)
	})
	t.eachDue(qNote, log, expect, 0, func(it *item) { t.dropNote(it.thing.(*note)) })
	t.eachDue(qFront, log, expect, t.opt.MaxScans, func(it *item) { t.dropFront(it.thing.(*front)) })
}

// expireWaiting gives up mails that have had no line for too long.
func (t *Tracer) expireWaiting() {
	t.eachDue(qWaiting, t.clock.log, t.opt.LegAge.Microseconds(), 0, func(it *item) {
		t.stats.Expired.Mails++
		t.finish(it.thing.(*leg).root())
	})
}

// endedLinger is how long an ended session waits for late lines.
const endedLinger = 10 * 1_000_000

func (t *Tracer) expireSessions() {
	t.eachDue(qEnded, t.clock.now, endedLinger, 0, func(it *item) { t.endSession(it.thing.(*session)) })
	t.eachDue(qSession, t.clock.log, t.opt.SessionIdle.Microseconds(), 0, func(it *item) {
		t.stats.Expired.Sessions++
		t.closeSession(it.thing.(*session))
	})
}

// opened decides about a leg of which there is only a client= line, or less:
// when its session is over nothing will come any more.
func (t *Tracer) opened(l *leg) {
	if l.sess != nil && t.sessions[l.sess.key.hash()] == l.sess && !l.sess.ended {
		t.turn(l, qOpen)
		return
	}
	if l.accepted() {
		t.turn(l, qActive)
		return
	}
	t.lingered(l, true)
}

// lingered finishes the chain of a leg that is done and has waited for late
// lines, unless another leg of it has not, or the other end of an edge is
// still to come. Complete chains may be finished early, to make room.
func (t *Tracer) lingered(l *leg, waited bool) {
	root := l.root()
	young, open, expects, maybe := t.survey(root, 0)
	switch {
	case open:
		t.park(l)
	case waited && t.clock.now-young <= t.opt.Linger.Microseconds():
		t.park(l) // the youngest will finish it
	case expects && t.clock.log-young <= t.opt.Expect.Microseconds():
		t.turn(l, qExpect)
	case maybe && waited && l.q != &t.byQueue[qMaybe] && t.clock.log-young <= t.opt.Expect.Microseconds():
		t.turn(l, qMaybe)
	default:
		t.finish(root)
	}
}

// turn moves a leg to another queue for something else than a line, and makes
// it young.
func (t *Tracer) turn(l *leg, which int) {
	t.put(&l.item, which)
	t.dirty(&l.item)
}

// park keeps a leg that another leg of its chain will finish.
func (t *Tracer) park(l *leg) {
	at := l.at
	t.turn(l, qParked)
	l.at = at
}

// survey looks over a chain: when it was last touched, whether a leg of it is
// still under way, and whether an edge lacks its other end. maybe is for the
// scan of a mail that a filter passed on, while no Amavis has been seen at
// all: its log may come later, or is not read.
func (t *Tracer) survey(l *leg, depth int) (young int64, open, expects, maybe bool) {
	young = l.at
	open = l.q == &t.byQueue[qActive] && !l.allFinal() || l.q == &t.byQueue[qWaiting]
	expects = (l.origQID.n > 0 || l.origIP.n > 0) && l.from == nil && l.via != viaProxy && !l.has(isRefused)
	for i := range l.rcpts {
		p := &l.rcpts[i]
		if p.status != maillog.StatusSent {
			continue
		}
		filter := p.fromMTA || t.filter(l.str(p.relay))
		switch {
		case filter && !l.continued(p), t.amavis && p.fromMTA && !l.scanned():
			expects = true
		case p.fromMTA && !l.scanned():
			maybe = true
		case p.amid.n > 0 && !l.scanned(): // the filter kept it; its own line says what it did
			expects = true
		}
	}
	if depth >= maxChain {
		return young, open, expects, maybe
	}
	for _, c := range l.to {
		y, o, e, m := t.survey(c, depth+1)
		young, open, expects, maybe = max(young, y), open || o, expects || e, maybe || m
	}
	return young, open, expects, maybe
}

// scanned reports whether there is a scan of the leg's mail. One that names
// no Queue-ID may have been joined to what came of it.
func (l *leg) scanned() bool {
	if len(l.scan) > 0 {
		return true
	}
	for _, c := range l.to {
		if len(c.scan) > 0 {
			return true
		}
	}
	return false
}

// continued reports whether the leg that a recipient went on to is known.
func (l *leg) continued(p *rcpt) bool {
	for _, c := range l.to {
		if l.handedTo(p, c) {
			return true
		}
	}
	return false
}

// finish puts the final rows of a chain and forgets it.
func (t *Tracer) finish(root *leg) {
	t.rows(root, true)
	t.drop(root, 0)
}

func (t *Tracer) drop(l *leg, depth int) {
	if depth < maxChain {
		for _, c := range l.to {
			t.drop(c, depth+1)
		}
	}
	for _, b := range l.notices {
		if b.notice == l {
			b.notice = nil
			t.dirty(&b.item)
			if b.parent.IsZero() {
				b.parent = l.row
			}
		}
	}
	if l.notice != nil {
		for i, b := range l.notice.notices {
			if b == l {
				l.notice.notices = append(l.notice.notices[:i], l.notice.notices[i+1:]...)
				break
			}
		}
	}
	t.unawait(l.waits, func(w *waiter) bool { return w.leg == l })
	for _, sc := range l.scan {
		t.dropScan(sc)
	}
	if l.sess != nil {
		if l.sess.open == l {
			l.sess.open = nil
		}
		t.releaseSession(l.sess)
	}
	t.bury(tomb{key: mix(l.hash, l.node().hash), us: l.last, row: l.row})
	t.unlink(l)
}

// unlink takes a leg out of the tables and keeps it for the next.
func (t *Tracer) unlink(l *leg) {
	t.release(&l.item)
	if at := t.legs[l.hash]; at == l {
		if l.next == nil {
			delete(t.legs, l.hash)
		} else {
			t.legs[l.hash] = l.next
		}
	} else {
		for ; at != nil; at = at.next {
			if at.next == l {
				at.next = l.next
				break
			}
		}
	}
	t.nlegs--
	if len(t.freeLegs) >= 4096 || cap(l.rcpts) > 16 {
		return
	}
	a, rc, to, sc, w, n, ids := l.arena, l.rcpts[:0], l.to[:0], l.scan[:0], l.waits[:0], l.notices[:0], l.ids[:0]
	seen := prints{last: l.prints.last[:0]}
	a.reset()
	*l = leg{arena: a, rcpts: rc, to: to, scan: sc, waits: w, notices: n, ids: ids, prints: seen}
	t.freeLegs = append(t.freeLegs, l)
}

// makeRoom gives up legs while there are too many.
func (t *Tracer) makeRoom() {
	for t.nlegs+t.shelf.legs > t.opt.MaxLegs || t.nlegs > t.opt.MaxAtHand {
		if !t.evictLeg(t.keep) {
			break
		}
	}
	t.keep = nil
}

// evictLeg makes room for one more: what is done before what waits, and of each
// the oldest. What it held becomes an incomplete row.
func (t *Tracer) evictLeg(keep *leg) bool {
	for _, q := range [...]int{qMaybe, qDone, qExpect, qWaiting, qOpen, qActive, qParked} {
		it := t.byQueue[q].head
		for it != nil && keep != nil && it.thing.(*leg).root() == keep.root() {
			it = it.next
		}
		if q == qWaiting && t.nlegs <= t.opt.MaxAtHand && t.shelf.n > 0 && (it == nil || t.shelf.entry(t.shelf.heap[0]).at < it.at) {
			id := t.shelf.heap[0]
			if _, ok := t.fromShelf(id); !ok {
				return false
			}
			t.takeBack(id)
			it = t.oldest()
		}
		if it != nil {
			t.stats.Evicted.Mails++
			t.finish(it.thing.(*leg).root())
			return true
		}
	}
	return false
}

// oldest is the one of the legs just taken back that has waited longest.
func (t *Tracer) oldest() (it *item) {
	for i := range t.link.all {
		if l, ok := t.link.all[i].it.thing.(*leg); ok && l.q == &t.byQueue[qWaiting] && (it == nil || l.at < it.at) {
			it = &l.item
		}
	}
	return it
}
