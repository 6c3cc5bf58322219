package trace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// stateVersion begins every value; another version's state is refused.
const stateVersion = 1

// ErrState is returned for state that is damaged or of another version.
var ErrState = errors.New("open mails: the saved state cannot be read")

// Changes calls f for every open object that has changed since the last call,
// and with nil data for those that are no more. Put the rows of the same
// moment (and Sync's, if wanted) in the same transaction. Keys and data live
// only as long as the call.
func (t *Tracer) Changes(f func(key, data []byte)) {
	if t.pending != nil {
		t.relink()
	}
	for _, k := range t.gone {
		f(k, nil)
	}
	t.gone = t.gone[:0]
	c := coder{t: t}
	for _, it := range t.dirt {
		it.dirtyAt, it.stored = 0, true
		switch x := it.thing.(type) {
		case *leg:
			f(stateKey('L', x.serial), c.encode(x.code))
		case *session:
			f(stateKey('S', x.serial), c.encode(x.code))
		case *scan:
			f(stateKey('A', x.serial), c.encode(x.code))
		case *note:
			f(stateKey('N', x.serial), c.encode(x.code))
		}
	}
	clear(t.dirt)
	t.dirt = t.dirt[:0]
	if meta := c.encode(t.codeMeta); !bytes.Equal(meta, t.meta) {
		t.meta = append(t.meta[:0], meta...)
		f(stateKey('M', 0), meta)
	}
}

// forget notes that a persisted object is no more.
func (t *Tracer) forget(kind byte, serial uint64) { t.gone = append(t.gone, stateKey(kind, serial)) }

func stateKey(kind byte, serial uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, serial)
}

// restored is a value that waits for relink, which needs them all.
type restored struct {
	kind   byte
	serial uint64
	data   []byte
}

// Restore takes back one value that Changes gave. Call it for all of them
// before the first Add.
func (t *Tracer) Restore(key, data []byte) error {
	if len(key) != 9 || len(data) == 0 || data[0] != stateVersion {
		return ErrState
	}
	r := restored{kind: key[0], serial: binary.BigEndian.Uint64(key[1:]), data: slices.Clone(data)}
	// reading it now tells damage while the caller can still say where
	c := coder{t: t, in: data[1:], decoding: true}
	switch r.kind {
	case 'L':
		(&leg{}).code(&c)
	case 'S':
		(&session{}).code(&c)
	case 'A':
		(&scan{}).code(&c)
	case 'N':
		(&note{}).code(&c)
	case 'M':
		t.codeMeta(&c)
	default:
		return ErrState
	}
	if c.bad {
		return ErrState
	}
	t.serial = max(t.serial, r.serial)
	t.pending = append(t.pending, r)
	return nil
}

// relink makes objects of the restored values and joins them again.
func (t *Tracer) relink() {
	all := t.pending
	t.pending = nil
	slices.SortFunc(all, func(a, b restored) int { return int(int64(a.serial - b.serial)) })
	c := coder{t: t, decoding: true, legs: map[uint64]*leg{}, sess: map[uint64]*session{}}
	for _, kind := range []byte("SLAN") {
		for _, r := range all {
			if r.kind == kind {
				c.in, c.links = r.data[1:], nil
				t.revive(&c, r)
			}
		}
	}
	for i, l := range c.order {
		c.rejoin(l, c.byLeg[i])
	}
	for _, l := range c.order {
		t.awaitAgain(l)
	}
	for _, s := range c.sess {
		if s.frontQID.n > 0 {
			t.awaitFront(s)
		}
		if s.refs <= 0 && s.ended {
			t.put(&s.item, qEnded)
		}
	}
}

// revive makes one object.
func (t *Tracer) revive(c *coder, r restored) {
	switch r.kind {
	case 'S':
		s := &session{}
		s.thing, s.serial, s.stored = s, r.serial, true
		s.code(c)
		if s.key.screen {
			s.key.pid = int64(mix(t.hash(s.bytes(s.clientIP)), t.hash(s.bytes(s.clientPort))))
		}
		c.sess[r.serial] = s
		if s.stale {
			t.fresh(&s.item)
		}
		if c.open {
			t.sessions[s.key.hash()] = s
			t.put(&s.item, qSession)
			if s.ended {
				t.put(&s.item, qEnded)
			}
		}
	case 'L':
		l := &leg{}
		l.thing, l.serial, l.stored = l, r.serial, true
		l.code(c)
		if c.fresh {
			t.fresh(&l.item)
		}
		l.hash = t.hash(l.bytes(l.qid))
		for i := range l.rcpts {
			p := &l.rcpts[i]
			p.hash = uint32(mix(t.hash(l.bytes(p.addr)), t.hash(l.bytes(p.origTo))))
		}
		l.next, t.legs[l.hash] = t.legs[l.hash], l
		t.nlegs++
		c.legs[r.serial] = l
		c.order = append(c.order, l)
		c.byLeg = append(c.byLeg, c.links)
	case 'N':
		n := &note{}
		n.serial, n.stored = r.serial, true
		n.code(c)
		t.noteKey(n)
		t.keepNote(n)
		t.unlist(&n.item)
	case 'A':
		sc := &scan{}
		sc.thing, sc.serial, sc.stored = sc, r.serial, true
		sc.code(c)
		sc.key = mix(mix(sc.node.hash, t.hash(sc.bytes(sc.amid))), uint64(sc.pid))
		t.scans[sc.key] = sc
		if l := c.legs[c.links[0]]; l != nil {
			sc.leg = l
			l.scan = append(l.scan, sc)
			return
		}
		t.put(&sc.item, qScan)
		if sc.putAt == 0 {
			t.fresh(&sc.item)
		}
		for i := range sc.results {
			t.place(sc, &sc.results[i])
		}
	}
}

// rejoin restores a leg's links.
func (c *coder) rejoin(l *leg, links []uint64) {
	if p := c.legs[links[0]]; p != nil {
		l.from = p
		p.to = append(p.to, l)
	}
	if b := c.legs[links[1]]; b != nil {
		l.notice = b
		b.notices = append(b.notices, l)
	}
	if s := c.sess[links[2]]; s != nil {
		l.sess = s
		s.refs++
		if s.lastLeg == l.serial {
			s.open = l
		}
	}
}

// awaitAgain restores what a leg waits for.
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
	t.settle(l)
}

// coder writes or reads an object: one function serves both ways, so that
// they cannot differ.
type coder struct {
	t        *Tracer
	decoding bool
	bad      bool
	out, in  []byte

	links []uint64 // of the object being read
	open  bool
	fresh bool
	legs  map[uint64]*leg
	sess  map[uint64]*session
	order []*leg
	byLeg [][]uint64
}

func (c *coder) encode(code func(*coder)) []byte {
	c.out = append(c.out[:0], stateVersion)
	code(c)
	return c.out
}

func (c *coder) int(x *int64) {
	if !c.decoding {
		c.out = binary.AppendVarint(c.out, *x)
		return
	}
	v, n := binary.Varint(c.in)
	if n <= 0 {
		c.bad, c.in = true, nil
		return
	}
	*x, c.in = v, c.in[n:]
}

func coded[T ~int | ~int32 | ~int64 | ~uint8 | ~uint32 | ~uint64](c *coder, x *T) {
	v := int64(*x)
	c.int(&v)
	*x = T(v)
}

func (c *coder) bool(x *bool) {
	v := int64(0)
	if *x {
		v = 1
	}
	c.int(&v)
	*x = v != 0
}

// news codes whether an item is on the list of Sync.
func (c *coder) news(it *item) {
	on := it.freshAt > 0
	c.bool(&on)
	c.fresh = on
}

func (c *coder) float(x *float64) {
	v := int64(math.Float64bits(*x))
	c.int(&v)
	*x = math.Float64frombits(uint64(v))
}

// maxText bounds a text in the state.
const maxText = 1 << 20

func (c *coder) raw(b []byte) []byte {
	n := int64(len(b))
	c.int(&n)
	if !c.decoding {
		c.out = append(c.out, b...)
		return b
	}
	if n < 0 || n > maxText || n > int64(len(c.in)) {
		c.bad, c.in = true, nil
		return nil
	}
	b, c.in = c.in[:n], c.in[n:]
	return b
}

func (c *coder) text(a *arena, r *ref) {
	if !c.decoding {
		c.raw(a.bytes(*r))
		return
	}
	*r = ref{}
	a.set(r, c.raw(nil))
}

func (c *coder) id(x *flat.ID) {
	if b := c.raw(x[:]); c.decoding && copy(x[:], b) != len(x) {
		c.bad = true
	}
}

func (c *coder) node(n **node) {
	if !c.decoding {
		if *n == nil {
			c.raw(nil)
			c.raw(nil)
			return
		}
		c.raw([]byte((*n).host))
		c.raw([]byte((*n).inst))
		c.bool(&(*n).owner)
		return
	}
	host, inst := string(c.raw(nil)), string(c.raw(nil))
	if host == "" && inst == "" {
		*n = nil
		return
	}
	*n = c.t.nodeNamed(host, inst)
	owner := false
	c.bool(&owner)
	(*n).owner = (*n).owner || owner
}

// link codes a pointer as the serial of what it points to.
func (c *coder) link(serial uint64) {
	coded(c, &serial)
	if c.decoding {
		c.links = append(c.links, serial)
	}
}

// count codes the length of a slice.
func (c *coder) count(n int) int {
	coded(c, &n)
	if c.decoding && (n < 0 || n > len(c.in)+1) {
		c.bad = true
		return 0
	}
	return n
}

func (c *coder) counter(x *maillog.Counter) {
	coded(c, &x.OK)
	coded(c, &x.All)
}

func (c *coder) counters(x *maillog.Counters) {
	c.bool(&x.Seen)
	for _, p := range [...]*maillog.Counter{&x.Auth, &x.Mail, &x.Rcpt, &x.Data, &x.Quit, &x.Commands} {
		c.counter(p)
	}
}
