package trace

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// coder writes or reads an object: one function serves both ways, so that
// they cannot differ.
type coder struct {
	t        *Tracer
	decoding bool
	bad      bool
	version  byte // of what is read, or written
	out, in  []byte
	packing  bool     // the object goes into a value with others, or comes from one
	texts    [][]byte // that the value has in it so far
	known    bool     // and all of them
	since    int64    // times of the object are stored as what they are later

	// What is read of an object but is for the linker.
	links []uint64
	waits []keyed
	open  bool
	fresh bool
	queue int // in Tracer.byQueue; -1: none
	at    int64
	base  uint64 // the value of mails put aside that the object came from
}

// keyed is a waiter and the key that it waits under; nobody waits any more
// where it has no seq.
type keyed struct {
	key uint64
	w   waiter
}

func (c *coder) encode(code func(*coder)) []byte {
	c.out = append(c.out[:0], stateVersion)
	c.decoding, c.packing, c.version, c.since = false, false, stateVersion, 0
	code(c)
	return c.out
}

// read begins to read an object.
func (c *coder) read(s *saved) {
	c.decoding, c.bad, c.version, c.in, c.since = true, false, s.version, s.data, 0
	c.packing, c.known = s.packed, s.texts != nil
	if c.known {
		c.texts = s.texts
	}
	c.links, c.waits = c.links[:0], c.waits[:0]
	c.open, c.fresh, c.queue, c.at, c.base = false, false, -1, 0, 0
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

func coded[T ~int | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint32 | ~uint64](c *coder, x *T) {
	v := int64(*x)
	c.int(&v)
	*x = T(v)
}

// time codes a log time, or 0 for none.
func (c *coder) time(x *int64) {
	if c.version < 2 {
		c.int(x)
		return
	}
	v := *x
	if v != 0 {
		if v -= c.since; v >= 0 {
			v++
		}
	}
	c.int(&v)
	switch {
	case !c.decoding:
	case v > 0:
		*x = v - 1 + c.since
	case v < 0:
		*x = v + c.since
	default:
		*x = 0
	}
}

// hash codes 64 bits in which no value is more likely than others.
func (c *coder) hash(x *uint64) {
	if !c.decoding {
		c.out = binary.LittleEndian.AppendUint64(c.out, *x)
		return
	}
	if len(c.in) < 8 {
		c.bad, c.in, *x = true, nil, 0
		return
	}
	*x, c.in = binary.LittleEndian.Uint64(c.in), c.in[8:]
}

func (c *coder) bool(x *bool) {
	v := int64(0)
	if *x {
		v = 1
	}
	c.int(&v)
	*x = v != 0
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
	if !c.decoding && c.packing && len(b) >= minShared {
		for i, t := range c.texts {
			if string(t) == string(b) {
				n = -int64(i) - 1
				c.int(&n)
				return b
			}
		}
	}
	c.int(&n)
	switch {
	case !c.decoding:
		c.out = append(c.out, b...)
	case n < 0 && c.packing && -n <= int64(len(c.texts)):
		return c.texts[-n-1]
	case n < 0 || n > maxText || n > int64(len(c.in)):
		c.bad, c.in = true, nil
		return nil
	default:
		b, c.in = c.in[:n:n], c.in[n:]
	}
	if c.packing && n >= minShared && len(c.texts) < maxShared && !c.known {
		c.texts = append(c.texts, b)
	}
	return b
}

// Texts that are told by their number when they come again: those of so many
// bytes, and so many of them.
const (
	minShared = 4
	maxShared = 120
)

func (c *coder) text(a *arena, r *ref) {
	if !c.decoding {
		c.raw(a.bytes(*r))
		return
	}
	*r = ref{}
	a.set(r, c.raw(nil))
}

func (c *coder) string(s *string) {
	if !c.decoding {
		c.raw([]byte(*s))
		return
	}
	*s = string(c.raw(nil))
}

func (c *coder) id(x *flat.ID) {
	b := x[:]
	if c.version >= 2 && x.IsZero() {
		b = nil
	}
	b = c.raw(b)
	if !c.decoding {
		return
	}
	*x = flat.ID{}
	if copy(x[:], b) != len(x) && (c.version < 2 || len(b) > 0) {
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
	host, inst := c.raw(nil), c.raw(nil)
	if len(host) == 0 && len(inst) == 0 {
		*n = nil
		return
	}
	*n = c.t.node(host, inst)
	owner := false
	c.bool(&owner)
	if owner {
		c.t.owns(*n)
	}
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

// place codes where an item stands: in which queue, since when, and what it
// was put aside with.
func (c *coder) place(it *item) {
	if c.version < 2 {
		return
	}
	queue, base := 0, uint64(0)
	if it.q != nil {
		queue = it.q.which + 1
	}
	if it.base != nil && !c.packing {
		base = it.base.serial
	}
	coded(c, &queue)
	at := it.at
	c.int(&at)
	coded(c, &base)
	if c.decoding {
		if queue < 0 || queue > queueCount {
			c.bad, queue = true, 0
		}
		c.queue, c.at, c.base = queue-1, at, base
	}
}

// news codes whether an item is on the list of Sync.
func (c *coder) news(it *item) {
	on := it.freshAt > 0
	c.bool(&on)
	c.fresh = on
}

// waiting codes what an owner awaits.
func (c *coder) waiting(keys []uint64, mine func(*waiter) bool) {
	if c.version < 2 {
		return
	}
	n := c.count(len(keys))
	for i := range n {
		var k keyed
		if !c.decoding {
			k.key = keys[i]
			again := 0 // a scan may have two waiters under one key
			for _, o := range keys[:i] {
				if o == k.key {
					again++
				}
			}
			ws := c.t.wait[k.key]
			for j := range ws {
				if !mine(&ws[j]) {
					continue
				}
				if again--; again < 0 {
					k.w = ws[j]
					break
				}
			}
		}
		c.hash(&k.key)
		coded(c, &k.w.seq)
		if k.w.seq != 0 {
			coded(c, &k.w.edge)
			c.bool(&k.w.notice)
			c.bool(&k.w.after)
			c.time(&k.w.us)
		}
		if c.decoding {
			if int(k.w.edge) >= len(evidenceNames) {
				c.bad, k.w.edge = true, viaNone
			}
			if c.bad {
				return
			}
			c.waits = append(c.waits, k)
		}
	}
}

func (p *prints) code(c *coder) {
	n := c.count(len(p.last))
	if c.decoding {
		p.last = sized(p.last, min(n, maxPrints))
	}
	for i := range p.last {
		if c.version < 2 {
			coded(c, &p.last[i])
			continue
		}
		if !c.decoding {
			c.out = binary.LittleEndian.AppendUint32(c.out, p.last[i])
		} else if len(c.in) >= 4 {
			p.last[i], c.in = binary.LittleEndian.Uint32(c.in), c.in[4:]
		} else {
			c.bad = true
		}
	}
	if c.version >= 2 {
		coded(c, &p.at)
	}
}

// sized is a slice of n zero values, in the place of an old one if it is large
// enough.
func sized[T any](old []T, n int) []T {
	s := slices.Grow(old[:0], n)[:n]
	clear(s)
	return s
}
