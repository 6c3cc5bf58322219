package trace

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
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

// hashKey is what the tables of open things are hashed with: random, since
// strangers choose queue ids, and saved with the state, which has such hashes
// in it.
type hashKey [2]uint64

func newHashKey() hashKey { return hashKey{rand.Uint64(), rand.Uint64()} }

// sum is a hash of b: eight bytes at a time, each folded from a full
// multiplication.
func (k *hashKey) sum(b []byte) uint64 {
	h := k[0] ^ uint64(len(b))*idMulA
	for len(b) > 8 {
		hi, lo := bits.Mul64(h^binary.LittleEndian.Uint64(b), k[1]|1)
		h = hi ^ lo
		b = b[8:]
	}
	var w uint64
	switch n := len(b); {
	case n == 8:
		w = binary.LittleEndian.Uint64(b)
	case n >= 4:
		w = uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<32
	case n > 0:
		w = uint64(b[0]) | uint64(b[n/2])<<8 | uint64(b[n-1])<<16
	}
	hi, lo := bits.Mul64(h^w, k[1]|1)
	h = hi ^ lo
	hi, lo = bits.Mul64(h^k[1], idMulB)
	return hi ^ lo
}

// mix combines two hashes.
func mix(a, b uint64) uint64 {
	a ^= b * 0x9E3779B97F4A7C15
	a ^= a >> 29
	return a * 0xBF58476D1CE4E5B9
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
