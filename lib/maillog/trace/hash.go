package trace

import "github.com/rolmail/rolmail/lib/maillog/flat"

// idHash is the stable hash behind row ids: two multiplicative lanes over the
// same bytes (FNV-1a and a sibling with another prime). It is no defence
// against people who choose queue ids; nothing but the identity of their own
// rows would suffer.
type idHash struct{ a, b uint64 }

func newIDHash() idHash { return idHash{0xcbf29ce484222325, 0x9E3779B97F4A7C15} }

func (h *idHash) add(s string) {
	a, b := h.a, h.b
	for i := 0; i < len(s); i++ {
		c := uint64(s[i])
		a = (a ^ c) * 0x100000001b3
		b = (b + c) * 0xff51afd7ed558ccd
		b ^= b >> 32
	}
	// a field ends: "ab","c" is not "a","bc"
	h.a, h.b = (a^0xff)*0x100000001b3, (b+0x1ff)*0xff51afd7ed558ccd
}

func (h *idHash) num(n int64) {
	h.a = (h.a ^ uint64(n)) * 0x100000001b3
	h.b = (h.b + uint64(n)) * 0xff51afd7ed558ccd
	h.b ^= h.b >> 29
}

func (h *idHash) id(ms int64) flat.ID {
	a, b := h.a, h.b
	a ^= a >> 32
	a *= 0xc4ceb9fe1a85ec53
	a ^= a >> 29
	b ^= b >> 33
	b *= 0x9E3779B97F4A7C15
	return flat.MakeID(ms, a^b>>7, b)
}

// tombs remember mails that are done, so that a late line does not look like
// another mail and a notice still finds its parent. Bounded, oldest out first.
type tombs struct {
	at   map[uint64]int
	ring []tomb
	next int
}

type tomb struct {
	key       uint64 // hash of host and queue id
	first, us int64  // log time of the mail's first and last line
	row       flat.ID
}

const maxTombs = 65_536

func (ts *tombs) init() { ts.at = map[uint64]int{} }

func (ts *tombs) put(tb tomb) {
	if len(ts.ring) < maxTombs {
		ts.ring = append(ts.ring, tb)
		ts.at[tb.key] = len(ts.ring) - 1
		return
	}
	old := ts.ring[ts.next].key
	if ts.at[old] == ts.next {
		delete(ts.at, old)
	}
	ts.ring[ts.next] = tb
	ts.at[tb.key] = ts.next
	ts.next = (ts.next + 1) % maxTombs
}

func (ts *tombs) get(key uint64) *tomb {
	i, ok := ts.at[key]
	if !ok {
		return nil
	}
	return &ts.ring[i]
}
