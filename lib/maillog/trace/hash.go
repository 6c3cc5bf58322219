package trace

import (
	"math/bits"
	"strings"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// idHash is the stable hash behind row ids: 128 bits, eight bytes at a time,
// each folded from a full multiplication. It is no defence against people who
// choose queue ids; nothing but the identity of their own rows would suffer.
type idHash struct{ a, b uint64 }

const (
	idMulA = 0x9E3779B97F4A7C15
	idMulB = 0xD6E8FEB86659FD93
)

func newIDHash() idHash { return idHash{0xcbf29ce484222325, 0x243F6A8885A308D3} }

func (h *idHash) word(w uint64) {
	hi, lo := bits.Mul64(h.a^w, idMulA)
	h.a = hi ^ lo
	hi, lo = bits.Mul64(h.b+w, idMulB)
	h.b = hi ^ lo ^ w
}

// add takes a field. Its length goes first: "ab","c" is not "a","bc".
func (h *idHash) add(s string) {
	h.word(uint64(len(s)) | 1<<32)
	for len(s) >= 8 {
		_ = s[7]
		h.word(uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56)
		s = s[8:]
	}
	var w uint64
	for i := 0; i < len(s); i++ {
		w = w<<8 | uint64(s[i])
	}
	h.word(w)
}

func (h *idHash) num(n int64) { h.word(uint64(n)) }

func (h *idHash) id(ms int64) flat.ID {
	h.word(0x5851F42D4C957F2D)
	return flat.MakeID(ms, h.a, h.b)
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

// prints remembers lines by their fingerprints, so that one that comes again,
// by a syslog daemon that sends twice or a log read twice, is not counted
// twice. The oldest of maxPrints is forgotten.
type prints struct {
	last []uint32
	at   uint8
}

const maxPrints = 64

// again reports whether a fingerprint has been seen, and keeps it.
func (p *prints) again(h uint32) bool {
	for _, x := range p.last {
		if x == h {
			return true
		}
	}
	if len(p.last) < maxPrints {
		p.last = append(p.last, h)
		return false
	}
	p.last[p.at%maxPrints] = h
	p.at++
	return false
}

// print is the fingerprint of a line: when, by whom, of what kind and length,
// and for whom. It is the same in every process.
func (t *Tracer) print(ev *maillog.Event) uint32 {
	h := mix(uint64(ev.Time)^uint64(ev.PID)<<40^uint64(ev.Kind)<<32, uint64(len(ev.Msg))<<32|uint64(tail4(ev.Msg)))
	if len(ev.Rcpt) > 0 {
		who := newIDHash()
		who.add(view(ev.Rcpt))
		if ev.OrigTo != nil {
			who.add(view(ev.OrigTo))
		}
		h = mix(h, who.a)
	}
	return uint32(h >> 32)
}

// sameFold is strings.EqualFold for texts that are mostly the same.
func sameFold(a, b string) bool {
	return a == b || strings.EqualFold(a, b)
}
