package trace

import (
	"math"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// codeMeta codes what belongs to no object.
func (t *Tracer) codeMeta(c *coder) {
	coded(c, &t.serial)
	c.bool(&t.amavis)
	c.bool(&t.dovecot)
	if c.version < 2 {
		return
	}
	c.hash(&t.key[0])
	c.hash(&t.key[1])
	for _, x := range [...]*int64{&t.clock.now, &t.clock.log, &t.clock.ref, &t.clock.next} {
		c.int(x)
	}
	coded(c, &t.clock.odd)
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
	c.time(&s.first)
	c.since = s.first
	for _, x := range [...]*int64{&s.last, &s.lastLegAt, &s.frontAt} {
		c.time(x)
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
	c.place(&s.item)
}

func (f *front) code(c *coder) {
	serial := uint64(0)
	if f.s != nil {
		serial = f.s.serial
	}
	c.link(serial)
	c.time(&f.us)
	c.string(&f.qid)
	coded(c, &f.seq)
	c.place(&f.item)
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
	c.link(c.t.sessionSerial(l.sess))
	c.node(&l.in)
	c.node(&l.own)
	if l.in == nil && l.own == nil {
		l.in = c.t.nodeNamed("", "")
	}
	c.news(&l.item)
	c.time(&l.first)
	c.since = l.first
	for _, x := range [...]*int64{&l.last, &l.start, &l.removedAt, &l.expiredAt, &l.heldAt, &l.queuedAt} {
		c.time(x)
	}
	coded(c, &l.size)
	coded(c, &l.nrcpt)
	c.time(&l.noticeAt)
	c.time(&l.parentAt)
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
		l.ids = sized(l.ids, min(n, 1<<16))
	}
	for i := range l.ids {
		c.id(&l.ids[i])
	}
	n = c.count(len(l.rcpts))
	if c.decoding {
		l.rcpts = sized(l.rcpts, min(n, 1<<16))
	}
	for i := range l.rcpts {
		l.rcpts[i].code(c)
	}
	l.eachRef(func(r *ref) { c.text(&l.arena, r) })
	if c.version >= 2 {
		coded(c, &l.joined)
		c.place(&l.item)
		c.waiting(l.waits, func(w *waiter) bool { return w.leg == l })
	}
}

func (p *rcpt) code(c *coder) {
	coded(c, &p.status)
	for _, x := range [...]*bool{&p.discarded, &p.kept, &p.rejected, &p.forwarded, &p.fromMTA} {
		c.bool(x)
	}
	for _, x := range [...]*int32{&p.attempts, &p.finals, &p.lines, &p.reply} {
		coded(c, x)
	}
	c.time(&p.first)
	c.time(&p.last)
	for _, x := range [...]*int64{&p.delay, &p.delays[0], &p.delays[1], &p.delays[2], &p.delays[3]} {
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
	c.time(&sc.first)
	c.since = sc.first
	c.time(&sc.last)
	coded(c, &sc.lines)
	sc.prints.code(c)
	c.time(&sc.putAt)
	n := c.count(len(sc.results))
	if c.decoding {
		sc.results = sized(sc.results, min(n, 1<<12))
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
		sc.parts = sized(sc.parts, min(n, maxParts))
	}
	for i := range sc.parts {
		c.bool(&sc.parts[i].head)
		c.bool(&sc.parts[i].more)
		c.time(&sc.parts[i].us)
	}
	sc.eachRef(func(r *ref) { c.text(&sc.arena, r) })
	if c.version >= 2 {
		coded(c, &sc.joined)
		c.open = c.t.scans[sc.key] == sc
		c.bool(&c.open)
		c.news(&sc.item)
		c.place(&sc.item)
		c.waiting(sc.waits, func(w *waiter) bool { return w.scan == sc })
	}
}

func (n *note) code(c *coder) {
	c.time(&n.us)
	c.bool(&n.byMsgID)
	action := int64(n.action)
	c.int(&action)
	n.action = sieveAction(action)
	n.eachRef(func(r *ref) { c.text(&n.arena, r) })
	if c.version >= 2 {
		c.place(&n.item)
		coded(c, &n.seq)
	}
}

func (f *refusal) code(c *coder) {
	c.hash(&f.key)
	c.place(&f.item)
	if f.row == nil {
		f.row = &flat.Row{}
		f.row.Clear()
	}
	for i := range flat.Columns {
		switch col := &flat.Columns[i]; col.Type {
		case flat.Text:
			c.string(col.Str(f.row))
		case flat.Int, flat.Time:
			c.int(col.Int(f.row))
		case flat.Float:
			x := col.Float(f.row)
			bits := math.Float64bits(*x)
			c.hash(&bits)
			*x = math.Float64frombits(bits)
		case flat.Bool:
			c.bool(col.Bool(f.row))
		case flat.RowID:
			c.id(col.ID(f.row))
		}
	}
}
