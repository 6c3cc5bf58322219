package trace

import "github.com/rolmail/rolmail/lib/maillog/flat"

// codeMeta codes what belongs to no object.
func (t *Tracer) codeMeta(c *coder) {
	coded(c, &t.serial)
	c.bool(&t.amavis)
	c.bool(&t.dovecot)
}

func (s *session) code(c *coder) {
	c.node(&s.key.node)
	if s.key.node == nil {
		s.key.node = c.t.nodeNamed("", "")
	}
	coded(c, &s.key.pid)
	c.bool(&s.key.screen)
	c.bool(&s.shown)
	c.bool(&s.stale)
	for _, x := range [...]*int64{&s.first, &s.last, &s.lastLegAt, &s.frontAt} {
		coded(c, x)
	}
	for _, x := range [...]*int32{&s.lines, &s.rejects, &s.mails, &s.authFailed} {
		coded(c, x)
	}
	coded(c, &s.lastLeg)
	s.prints.code(c)
	for _, x := range [...]*bool{&s.ended, &s.linked, &s.passed, &s.hungUp, &s.isLost, &s.discards} {
		c.bool(x)
	}
	open := c.t.sessions[s.key.hash()] == s
	c.bool(&open)
	c.open = open
	c.id(&s.id)
	c.counters(&s.counters)
	s.eachRef(func(r *ref) { c.text(&s.arena, r) })
}

func (l *leg) code(c *coder) {
	serial := func(x *leg) uint64 {
		if x == nil {
			return 0
		}
		return x.serial
	}
	c.link(serial(l.from))
	c.link(serial(l.notice))
	if l.sess != nil {
		c.link(l.sess.serial)
	} else {
		c.link(0)
	}
	c.node(&l.in)
	c.node(&l.own)
	if l.in == nil && l.own == nil {
		l.in = c.t.nodeNamed("", "")
	}
	c.news(&l.item)
	for _, x := range [...]*int64{&l.first, &l.last, &l.start, &l.removedAt, &l.expiredAt, &l.heldAt, &l.queuedAt, &l.size, &l.nrcpt, &l.noticeAt, &l.parentAt} {
		coded(c, x)
	}
	coded(c, &l.lines)
	l.prints.code(c)
	coded(c, &l.flags)
	coded(c, &l.via)
	if int(l.via) >= len(evidenceNames) {
		c.bad, l.via = true, viaNone
	}
	c.id(&l.parent)
	c.id(&l.row)
	n := c.count(len(l.ids))
	if c.decoding {
		l.ids = make([]flat.ID, min(n, 1<<16))
	}
	for i := range l.ids {
		c.id(&l.ids[i])
	}
	n = c.count(len(l.rcpts))
	if c.decoding {
		l.rcpts = make([]rcpt, min(n, 1<<16))
	}
	for i := range l.rcpts {
		l.rcpts[i].code(c)
	}
	l.eachRef(func(r *ref) { c.text(&l.arena, r) })
}

func (p *rcpt) code(c *coder) {
	coded(c, &p.status)
	for _, x := range [...]*bool{&p.discarded, &p.kept, &p.rejected, &p.forwarded, &p.fromMTA} {
		c.bool(x)
	}
	for _, x := range [...]*int32{&p.attempts, &p.finals, &p.lines, &p.reply} {
		coded(c, x)
	}
	for _, x := range [...]*int64{&p.first, &p.last, &p.delay, &p.delays[0], &p.delays[1], &p.delays[2], &p.delays[3]} {
		coded(c, x)
	}
	for i := range p.seen {
		coded(c, &p.seen[i])
	}
}

func (sc *scan) code(c *coder) {
	if sc.leg != nil {
		c.link(sc.leg.serial)
	} else {
		c.link(0)
	}
	c.node(&sc.node)
	if sc.node == nil {
		sc.node = c.t.nodeNamed("", "")
	}
	coded(c, &sc.pid)
	coded(c, &sc.first)
	coded(c, &sc.last)
	coded(c, &sc.lines)
	sc.prints.code(c)
	coded(c, &sc.putAt)
	n := c.count(len(sc.results))
	if c.decoding {
		sc.results = make([]result, min(n, 1<<12))
	}
	for i := range sc.results {
		x := &sc.results[i]
		c.bool(&x.passed)
		c.bool(&x.perRcpt)
		c.float(&x.score)
		coded(c, &x.ms)
		coded(c, &x.size)
	}
	n = c.count(len(sc.parts))
	if c.decoding {
		sc.parts = make([]part, min(n, maxParts))
	}
	for i := range sc.parts {
		c.bool(&sc.parts[i].head)
		c.bool(&sc.parts[i].more)
		coded(c, &sc.parts[i].us)
	}
	sc.eachRef(func(r *ref) { c.text(&sc.arena, r) })
}

func (n *note) code(c *coder) {
	coded(c, &n.us)
	c.bool(&n.byMsgID)
	action := int64(n.action)
	c.int(&action)
	n.action = sieveAction(action)
	n.eachRef(func(r *ref) { c.text(&n.arena, r) })
}

func (p *prints) code(c *coder) {
	n := c.count(len(p.last))
	if c.decoding {
		p.last = make([]uint32, min(n, maxPrints))
	}
	for i := range p.last {
		coded(c, &p.last[i])
	}
}
