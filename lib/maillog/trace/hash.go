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
// another mail and a notice still finds its parent. It is a cache of fixed
// size: two places for each hash, the older one goes.
type tombs struct {
	at [][2]tomb
}

type tomb struct {
	key uint64 // hash of host and queue id
	us  int64  // log time of the mail's last line
	row flat.ID
}

const tombSets = 1 << 14 // 32,768 mails, 1 MiB

func (ts *tombs) put(tb tomb) {
	if ts.at == nil {
		ts.at = make([][2]tomb, tombSets)
	}
	set := &ts.at[tb.key%tombSets]
	if set[0].key != tb.key {
		set[1] = set[0]
	}
	set[0] = tb
}

func (ts *tombs) get(key uint64) *tomb {
	if ts.at == nil {
		return nil
	}
	set := &ts.at[key%tombSets]
	for i := range set {
		if set[i].key == key && key != 0 {
			return &set[i]
		}
	}
	return nil
}
