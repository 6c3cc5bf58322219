package trace

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/rolmail/rolmail/lib/maillog"
)

// linker makes objects of saved values and joins them again: all of them after
// a restart, or those of one value when mails are taken back from the shelf.
type linker struct {
	t      *Tracer
	legs   map[uint64]*leg
	sess   map[uint64]*session
	all    []linked
	placed []placed
}

// linked is a new object and what is left to do for it.
type linked struct {
	it    *item
	v1    bool // from before waiters were saved
	links [3]uint64
	waits []keyed
}

type placed struct {
	it    *item
	queue int
	at    int64
}

// settleDown does what the first call after Restore has to do.
func (t *Tracer) settleDown() {
	if t.restoring {
		t.restoring = false
		t.relink()
	}
}

// relink makes objects of the restored values.
func (t *Tracer) relink() {
	all := t.takeBases(t.pending)
	t.pending = nil
	for i := range all {
		if all[i].version >= 2 && !t.hasKey {
			t.err = errNoKey
			return
		}
	}
	if t.shelf.n > 0 && !t.hasKey {
		t.err = errNoKey
		return
	}
	slices.SortFunc(all, func(a, b saved) int { return cmp.Compare(a.serial, b.serial) })
	k := newLinker(t)
	for _, kind := range []byte("SLANFR") {
		for i := range all {
			if all[i].kind == kind {
				k.revive(&all[i])
			}
		}
	}
	k.join()
	for i := range all {
		if all[i].kind == 'T' {
			t.restoreTombs(&all[i])
		}
	}
	t.trimTombs()
}

// takeBases adds what was put aside together with something that has been
// taken back and has changed.
func (t *Tracer) takeBases(all []saved) []saved {
	bases := map[uint64]*base{}
	type name struct {
		kind   byte
		serial uint64
	}
	own := map[name]bool{}
	for i := range all {
		if s := &all[i]; s.own {
			own[name{s.kind, s.serial}] = true
			if s.baseIs != 0 && bases[s.baseIs] == nil {
				bases[s.baseIs] = nil
			}
		} else {
			bases[s.base.serial] = s.base
		}
	}
	if len(bases) == 0 {
		return all
	}
	all = slices.DeleteFunc(all, func(s saved) bool { return !s.own && own[name{s.kind, s.serial}] })
	var ids []uint32
	for _, id := range t.shelf.heap {
		if _, ok := bases[t.shelf.entry(id).serial]; ok {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		b := &base{serial: t.shelf.entry(id).serial}
		bases[b.serial] = b
		if _, ok := t.fromShelf(id); !ok {
			return all
		}
		for _, m := range t.allMembers(b) {
			if !own[name{m.kind, m.serial}] {
				all = append(all, m)
			}
		}
		t.unshelve(id)
	}
	for i := range all {
		if all[i].baseIs != 0 {
			all[i].base = bases[all[i].baseIs]
		}
	}
	return all
}

func newLinker(t *Tracer) *linker {
	return &linker{t: t, legs: map[uint64]*leg{}, sess: map[uint64]*session{}}
}

// reset makes a linker ready for the next value.
func (k *linker) reset() {
	clear(k.legs)
	clear(k.sess)
	clear(k.all)
	clear(k.placed)
	k.all, k.placed = k.all[:0], k.placed[:0]
}

// revive makes one object.
func (k *linker) revive(s *saved) {
	t := k.t
	c := &t.coder
	c.read(s)
	var it *item
	switch s.kind {
	case 'S':
		it = k.session(c, s)
	case 'L':
		it = k.leg(c, s)
	case 'A':
		it = k.scan(c)
	case 'N':
		n := &note{}
		n.thing = n
		n.code(c)
		t.noteKey(n)
		t.hang(n.key, waiter{note: n, seq: n.seq})
		it = &n.item
	case 'F':
		f := &front{}
		f.thing = f
		f.code(c)
		f.key = t.hash([]byte(f.qid))
		it = &f.item
	case 'R':
		f := &refusal{}
		f.thing = f
		f.code(c)
		t.refused[f.key] = f
		it = &f.item
	}
	it.serial, it.stored, it.base = s.serial, s.own, s.base
	if s.base != nil {
		s.base.items = append(s.base.items, it)
	}
	if c.fresh {
		t.fresh(it)
	}
	x := linked{it: it, v1: s.version < 2, waits: slices.Clone(c.waits)}
	copy(x.links[:], c.links)
	k.all = append(k.all, x)
	if c.queue < 0 && s.version < 2 {
		c.queue, c.at = k.oldQueue(it), t.clock.now
	}
	if c.queue >= 0 && fits(it, c.queue) {
		k.placed = append(k.placed, placed{it, c.queue, min(c.at, t.clock.now)})
	}
}

func (k *linker) session(c *coder, saved *saved) *item {
	t := k.t
	s := t.blankSession()
	s.code(c)
	if s.key.screen {
		s.key.pid = int64(mix(t.hash(s.bytes(s.clientIP)), t.hash(s.bytes(s.clientPort))))
	}
	k.sess[saved.serial] = s
	if c.open {
		t.sessions[s.key.hash()] = s
	}
	c.fresh = s.stale && saved.own
	return &s.item
}

func (k *linker) leg(c *coder, saved *saved) *item {
	t := k.t
	l := t.blankLeg()
	l.code(c)
	l.hash = t.hash(l.bytes(l.qid))
	for i := range l.rcpts {
		p := &l.rcpts[i]
		p.hash = uint32(mix(t.hash(l.bytes(p.addr)), t.hash(l.bytes(p.origTo))))
	}
	l.serial = saved.serial
	t.tabulate(l)
	k.legs[saved.serial] = l
	return &l.item
}

func (k *linker) scan(c *coder) *item {
	t := k.t
	sc := t.blankScan()
	sc.code(c)
	sc.key = mix(mix(sc.node.hash, t.hash(sc.bytes(sc.amid))), uint64(sc.pid))
	if c.open || c.version < 2 {
		t.scans[sc.key] = sc
	}
	if c.version < 2 {
		c.fresh = sc.putAt == 0
	}
	return &sc.item
}

// oldQueue is where an object of version 1 goes; legs find their own.
func (k *linker) oldQueue(it *item) int {
	switch x := it.thing.(type) {
	case *session:
		if k.t.sessions[x.key.hash()] != x {
			return -1
		}
		if x.ended {
			return qEnded
		}
		return qSession
	case *note:
		return qNote
	case *scan:
		return qScan
	}
	return -1
}

// fits reports whether a thing may stand in a queue.
func fits(it *item, queue int) bool {
	switch it.thing.(type) {
	case *session:
		return queue == qSession || queue == qEnded
	case *leg:
		switch queue {
		case qActive, qDone, qExpect, qMaybe, qParked, qOpen, qWaiting:
			return true
		}
		return false
	case *scan:
		return queue == qScan
	case *note:
		return queue == qNote
	case *front:
		return queue == qFront
	}
	return queue == qRefused
}

// join restores the links between the new objects.
func (k *linker) join() {
	t := k.t
	for i := range k.all {
		k.link(&k.all[i])
	}
	slices.SortStableFunc(k.placed, func(a, b placed) int { return cmp.Compare(a.at, b.at) })
	for _, p := range k.placed {
		if sc, ok := p.it.thing.(*scan); ok && sc.leg != nil {
			continue
		}
		t.insert(p.it, p.queue, p.at)
		if l, ok := p.it.thing.(*leg); ok && p.queue == qWaiting {
			t.tryAgain(l)
		}
	}
	for i := range k.all {
		x := &k.all[i]
		switch o := x.it.thing.(type) {
		case *leg:
			if x.v1 {
				t.awaitAgain(o)
			}
			if o.q == nil {
				t.settle(o)
			}
		case *scan:
			if o.leg != nil {
				break
			}
			if x.v1 {
				for j := range o.results {
					t.place(o, &o.results[j])
				}
			}
			if o.q == nil && t.scans[o.key] == o && o.leg == nil {
				t.put(&o.item, qScan)
			}
		case *session:
			if x.v1 && o.frontQID.n > 0 {
				t.awaitFront(o, slices.Clone(o.bytes(o.frontQID)), o.frontAt)
				o.frontQID = ref{}
			}
			if o.refs <= 0 && o.q == nil {
				t.put(&o.item, qEnded)
			}
		}
	}
}

// link restores the links of one object.
func (k *linker) link(x *linked) {
	t := k.t
	switch o := x.it.thing.(type) {
	case *leg:
		if p := k.legs[x.links[0]]; p != nil && p.root() != o {
			o.from = p
			i := len(p.to)
			for i > 0 && p.to[i-1].joined > o.joined {
				i--
			}
			p.to = slices.Insert(p.to, i, o)
		}
		if b := k.legs[x.links[1]]; b != nil && b != o {
			o.notice = b
			b.notices = append(b.notices, o)
		}
		if s := k.sess[x.links[2]]; s != nil {
			o.sess = s
			s.refs++
			if s.lastLeg == o.serial {
				s.open = o
			}
		}
		for _, w := range x.waits {
			o.waits = append(o.waits, w.key)
			if w.w.seq != 0 {
				w.w.leg = o
				t.hang(w.key, w.w)
			}
		}
	case *scan:
		if l := k.legs[x.links[0]]; l != nil {
			o.leg = l
			i := len(l.scan)
			for i > 0 && l.scan[i-1].joined > o.joined {
				i--
			}
			l.scan = slices.Insert(l.scan, i, o)
			return
		}
		for _, w := range x.waits {
			o.waits = append(o.waits, w.key)
			if w.w.seq != 0 {
				w.w.scan = o
				t.hang(w.key, w.w)
			}
		}
	case *front:
		if o.s = k.sess[x.links[0]]; o.s == nil {
			o.s = t.blankSession() // of damaged state
			o.s.key.node = t.nodeNamed("", "")
		}
		o.s.refs++
		t.hang(o.key, waiter{front: o, us: o.us, seq: o.seq})
		if o.q == nil {
			t.put(&o.item, qFront)
		}
	}
}

// awaitAgain finds out what a leg of version 1 waits for.
func (t *Tracer) awaitAgain(l *leg) {
	if l.origQID.n > 0 && l.from == nil {
		via := viaOrigQID
		if l.has(hasPickup) {
			via = viaRequeue
		}
		t.awaitPrevious(l, via)
	}
	for i := range l.rcpts {
		p := &l.rcpts[i]
		if id := l.bytes(p.remoteQID); maillog.QueueID(id) {
			via := viaReply
			if p.forwarded {
				via = viaForward
			}
			t.awaitNext(l, slices.Clone(id), via)
		}
		if p.amid.n > 0 && len(l.scan) == 0 {
			key := mix(t.hash(l.bytes(p.amid)), 'A')
			t.await(key, waiter{leg: l})
			t.resolveAmID(key)
		}
		if p.status == maillog.StatusSent {
			t.handedOver(l, p)
		}
	}
	if l.noticeQID.n > 0 {
		t.awaitNotice(l)
	}
	for _, sc := range l.scan {
		for i := range sc.results {
			t.nextOfScan(sc, &sc.results[i])
		}
	}
}

// lost is the error for something that was put aside and cannot be read back.
func lost(err error) error {
	return fmt.Errorf("mails put aside cannot be read back, start again: %w", err)
}
