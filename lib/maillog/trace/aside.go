package trace

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"slices"
)

// Mails that wait, most of them at a last hop that does not take them, have no
// line for hours. They are put aside: encoded as in the saved state, all that
// belongs to them together, and handed to the shelf, while in memory stay the
// hashes by which a line, an edge or a verdict may ask for them. Whatever
// touches one of them takes all back, just as they were.

const (
	quiet       = 10 * 60 * 1_000_000 // without a line for so long, a mail waits; microseconds
	quietSoon   = 10 * 1_000_000      // when many are at hand
	maxTogether = 64                  // legs that are put aside together
	maxAside    = 256 << 10           // bytes
	retries     = 256                 // at least so many of those that cannot yet be put aside are tried again at a time
)

// base is a value of the state that things at hand came from. They are not
// saved again before they change; as soon as one of them ends, all of them have
// to be.
type base struct {
	serial uint64
	items  []*item
}

// dissolve gives what came from a base values of its own.
func (t *Tracer) dissolve(b *base) {
	t.forget('C', b.serial)
	for _, it := range b.items {
		if it.base == b {
			it.base = nil
			t.dirty(it)
		}
	}
}

// retry is a leg that waits but cannot be put aside yet: its session goes on,
// or another leg of its chain is under way.
type retry struct {
	l      *leg
	serial uint64
}

func (t *Tracer) tryAgain(l *leg) { t.again = append(t.again, retry{l, l.serial}) }

// rest puts aside what has had no line for a while.
func (t *Tracer) rest() {
	log := t.clock.log
	t.eachDue(qActive, log, quiet, 0, func(it *item) {
		if l := it.thing.(*leg); l.allFinal() {
			t.lingered(l, true)
		} else {
			t.insert(it, qWaiting, it.at)
			t.putAside(l)
		}
	})
	q := &t.byQueue[qActive]
	left := q.n - t.opt.MaxActive
	for it := q.head; it != nil && left > 0 && log-it.at > quietSoon; left-- {
		next := it.next
		if l := it.thing.(*leg); !l.allFinal() {
			t.insert(it, qWaiting, it.at)
			t.putAside(l)
		}
		it = next
	}
	n := min(len(t.again), max(retries, len(t.again)/16))
	for _, r := range t.again[:n] {
		if r.l.serial == r.serial && r.l.q == &t.byQueue[qWaiting] {
			t.putAside(r.l)
		}
	}
	t.again = slices.Delete(t.again, 0, n)
	t.shrink()
}

// shrink gives back what tables hold that were large: a map keeps the room it
// once had.
func (t *Tracer) shrink() {
	t.legs = shrunk(t.legs, &t.peaks[0])
	t.sessions = shrunk(t.sessions, &t.peaks[1])
	t.scans = shrunk(t.scans, &t.peaks[2])
	t.wait = shrunk(t.wait, &t.peaks[3])
}

func shrunk[V any](m map[uint64]V, peak *int) map[uint64]V {
	*peak = max(*peak, len(m))
	if *peak < 16_384 || len(m) > *peak/8 {
		return m
	}
	small := make(map[uint64]V, len(m))
	maps.Copy(small, m)
	*peak = len(m)
	return small
}

// putAside puts a leg that waits on the shelf, with its chain and what is
// linked to that, or notes it to be tried again.
func (t *Tracer) putAside(l *leg) {
	if t.noShelf || !t.shelve(l) {
		t.tryAgain(l)
	}
}

func (t *Tracer) shelve(l *leg) bool {
	legs := t.together(l)
	if legs == nil || !t.showAll(legs) {
		return false
	}
	e := entry{serial: legs[0].serial, legs: int32(len(legs)), first: legs[0].first, at: l.at}
	for _, m := range legs {
		e.first = min(e.first, m.first)
		for _, sc := range m.scan {
			if t.scans[sc.key] == sc {
				e.scans++
			}
		}
		if m.q == &t.byQueue[qWaiting] {
			e.at = min(e.at, m.at)
		}
	}
	t.keys = t.keysOf(legs, t.keys[:0])
	t.copySessions(legs)
	defer func() { t.copied = t.copied[:0] }()
	data := t.pack(e, legs)
	if len(data) > maxAside {
		return false
	}
	slot, err := t.opt.Shelf.Put(data)
	if err != nil {
		t.stats.ShelfErrors++
		t.shelfErr, t.noShelf = err, true
		return false
	}
	t.shelfErr = nil
	e.slot = slot
	e.old = t.unbase(legs, e.serial)
	id, ok := t.enter(e)
	if !ok {
		t.opt.Shelf.Drop(slot)
		return false
	}
	t.shelf.unsave(id)
	for _, m := range legs {
		t.putAway(m)
	}
	return true
}

// enter makes an entry that t.keys find.
func (t *Tracer) enter(e entry) (id uint32, ok bool) {
	id = t.shelf.add(e)
	for i, k := range t.keys {
		if !t.shelf.index.add(fingerprint(k), id) {
			for _, k := range t.keys[:i] {
				t.shelf.index.remove(fingerprint(k), id)
			}
			t.shelf.remove(id)
			return 0, false
		}
	}
	return id, true
}

// together returns the legs that can only be put aside with l: its chain, and
// the chains of notices about it, or that it is about. nil when one of them is
// not at rest.
func (t *Tracer) together(l *leg) []*leg {
	t.group = append(t.group[:0], l.root())
	if t.group[0].from != nil {
		return nil // longer than maxChain
	}
	add := func(m *leg) {
		if !slices.Contains(t.group, m) {
			t.group = append(t.group, m)
		}
	}
	for i := 0; i < len(t.group); i++ {
		m := t.group[i]
		if len(t.group)+len(m.to)+len(m.notices) > maxTogether {
			return nil
		}
		if m.q != &t.byQueue[qWaiting] && m.q != &t.byQueue[qParked] {
			return nil
		}
		if s := m.sess; s != nil && (s.q != nil || t.sessions[s.key.hash()] == s) {
			return nil
		}
		if m.from != nil {
			add(m.from)
		}
		for _, c := range m.to {
			add(c)
		}
		if m.notice != nil {
			add(m.notice)
		}
		for _, b := range m.notices {
			add(b)
		}
	}
	return t.group
}

// showAll puts the rows of chains that are about to leave, and reports whether
// there is no more to say about them now.
func (t *Tracer) showAll(legs []*leg) bool {
	for range maxNotices {
		more := false
		for _, l := range legs {
			switch {
			case l.freshAt == 0:
			case l.from != nil:
				t.shown(&l.item)
			default:
				more = true
				t.shown(&l.item)
				if !t.syncItem(&l.item) {
					t.fresh(&l.item)
					return false
				}
			}
		}
		if !more {
			return true
		}
	}
	return false
}

// keysOf collects the hashes by which the tables know legs.
func (t *Tracer) keysOf(legs []*leg, keys []uint64) []uint64 {
	for _, l := range legs {
		keys = append(keys, l.hash)
		for _, k := range l.waits {
			for i := range t.wait[k] {
				if t.wait[k][i].leg == l {
					keys = append(keys, k)
					break
				}
			}
		}
		for _, sc := range l.scan {
			if t.scans[sc.key] == sc { // else its log id came again
				keys = append(keys, sc.key)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// copySessions sees to it that no session is in use by legs that go and by
// others: those that go get one of their own, under another serial.
func (t *Tracer) copySessions(legs []*leg) {
	t.copied = t.copied[:0]
	for _, l := range legs {
		if l.sess == nil || slices.ContainsFunc(t.copied, func(c copied) bool { return c.s == l.sess }) {
			continue
		}
		n := int32(0)
		for _, m := range legs {
			if m.sess == l.sess {
				n++
			}
		}
		c := copied{s: l.sess, serial: l.sess.serial, refs: n}
		if n < l.sess.refs {
			c.serial = t.next()
		}
		t.copied = append(t.copied, c)
	}
}

// copied is a session that goes with legs.
type copied struct {
	s      *session
	serial uint64
	refs   int32
}

// sessionSerial is the serial under which a leg's session is saved.
func (t *Tracer) sessionSerial(s *session) uint64 {
	if s == nil {
		return 0
	}
	for i := range t.copied {
		if t.copied[i].s == s {
			return t.copied[i].serial
		}
	}
	return s.serial
}

// The layout of a value of kind C: version, checksum of the rest, then a
// header, which is all that is looked at after a restart, then the members.
// A text that has been in it already is told by its number: the addresses and
// names of a mail come in it several times.
const packedHead = 1 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pack encodes legs and what goes with them. The result is good until the next
// call.
func (t *Tracer) pack(e entry, legs []*leg) []byte {
	c := &t.coder
	c.decoding, c.version = false, stateVersion
	c.out = append(c.out[:0], stateVersion, 0, 0, 0, 0)
	e.code(c)
	keys := t.keys
	c.count(len(keys))
	for i := range keys {
		c.hash(&keys[i])
	}
	c.packing, c.texts = true, c.texts[:0]
	member := func(kind byte, serial uint64, code func(*coder)) {
		c.out = append(c.out, kind)
		c.out = binary.AppendUvarint(c.out, serial)
		at := len(c.out)
		c.out = append(c.out, 0, 0, 0)
		c.since = 0
		code(c)
		n := len(c.out) - at - 3
		c.out[at], c.out[at+1], c.out[at+2] = byte(n), byte(n>>8), byte(n>>16)
	}
	for _, s := range t.copied {
		member('S', s.serial, s.s.code)
	}
	for _, l := range legs {
		member('L', l.serial, l.code)
	}
	for _, l := range legs {
		for _, sc := range l.scan {
			member('A', sc.serial, sc.code)
		}
	}
	c.packing = false
	binary.LittleEndian.PutUint32(c.out[1:], crc32.Checksum(c.out[packedHead:], castagnoli))
	return c.out
}

func (e *entry) code(c *coder) {
	c.int(&e.at)
	c.int(&e.first)
	coded(c, &e.legs)
	coded(c, &e.scans)
}

// unpack reads the header of a packed value, and leaves its keys in t.keys and
// what follows in the coder.
func (t *Tracer) unpack(data []byte) (e entry, ok bool) {
	if len(data) < packedHead || binary.LittleEndian.Uint32(data[1:]) != crc32.Checksum(data[packedHead:], castagnoli) {
		return e, false
	}
	c := &t.coder
	c.read(&saved{version: data[0], data: data[packedHead:]})
	e.code(c)
	t.keys = t.keys[:0]
	for n := c.count(0); n > 0 && !c.bad; n-- {
		var k uint64
		c.hash(&k)
		t.keys = append(t.keys, k)
	}
	return e, !c.bad && e.legs > 0 && e.legs <= maxTogether && e.scans >= 0
}

// members calls f for the members of the value that was unpacked last. f reads
// each of them, since later ones may refer to its texts.
func (t *Tracer) members(f func(m saved)) bool {
	data, version := t.coder.in, t.coder.version
	t.coder.texts = t.coder.texts[:0]
	for len(data) > 0 {
		m := saved{kind: data[0], version: version, packed: true}
		n := 0
		m.serial, n = binary.Uvarint(data[1:])
		if n <= 0 || len(data) < 1+n+3 {
			return false
		}
		data = data[1+n:]
		size := int(data[0]) | int(data[1])<<8 | int(data[2])<<16
		if data = data[3:]; size > len(data) {
			return false
		}
		m.data, data = data[:size], data[size:]
		f(m)
	}
	return true
}

// allMembers returns the members of the value that was unpacked last, to be read
// in any order.
func (t *Tracer) allMembers(b *base) (all []saved) {
	t.coder.in = slices.Clone(t.coder.in)
	t.members(func(m saved) {
		t.try(&m)
		m.base = b
		all = append(all, m)
	})
	texts := append(make([][]byte, 0, 1), t.coder.texts...)
	for i := range all {
		all[i].texts = texts
	}
	return all
}

// unbase parts legs that are about to be saved as one value from the values
// that they came from, and reports whether one of these is the same one.
func (t *Tracer) unbase(legs []*leg, serial uint64) (same bool) {
	part := func(it *item) {
		b := it.base
		if b == nil {
			return
		}
		it.base = nil
		if b.serial == serial {
			same = true
		} else if !slices.Contains(t.parted, b) {
			t.forget('C', b.serial)
		}
		if !slices.Contains(t.parted, b) {
			t.parted = append(t.parted, b)
		}
	}
	for _, l := range legs {
		part(&l.item)
		for _, sc := range l.scan {
			part(&sc.item)
		}
	}
	for _, s := range t.copied {
		if s.refs == s.s.refs {
			part(&s.s.item)
		}
	}
	for i, b := range t.parted {
		for _, it := range b.items {
			if it.base == b {
				it.base = nil
				t.dirty(it)
			}
		}
		t.parted[i] = nil
	}
	t.parted = t.parted[:0]
	return same
}

// putAway takes a leg that is on the shelf out of memory.
func (t *Tracer) putAway(l *leg) {
	t.unawait(l.waits, func(w *waiter) bool { return w.leg == l })
	for _, sc := range l.scan {
		t.dropScan(sc)
	}
	if s := l.sess; s != nil {
		if s.open == l {
			s.open = nil
		}
		if s.refs--; s.refs <= 0 {
			t.recycleSession(s)
		}
	}
	t.unlink(l)
}
