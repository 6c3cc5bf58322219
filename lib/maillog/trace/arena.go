package trace

import "unsafe"

// ref is a text in an arena.
type ref struct{ off, n uint32 }

// arena keeps the texts of one object in one allocation that is used again
// when the object is.
type arena struct {
	buf  []byte
	dead int // bytes that no ref needs any more
}

// set stores b in *r. nil stays what it was.
func (a *arena) set(r *ref, b []byte) {
	if b == nil {
		return
	}
	if uint32(len(b)) <= r.n {
		a.dead += int(r.n) - len(b)
		r.n = uint32(copy(a.buf[r.off:], b))
		return
	}
	if a.buf == nil {
		a.buf = make([]byte, 0, firstArena)
	}
	a.dead += int(r.n)
	r.off, r.n = uint32(len(a.buf)), uint32(len(b))
	a.buf = append(a.buf, b...)
}

// firstArena holds the texts of an ordinary mail.
const firstArena = 480

// setNew stores b in *r unless something is there.
func (a *arena) setNew(r *ref, b []byte) {
	if r.n == 0 {
		a.set(r, b)
	}
}

// str is a view of a text, valid until the arena changes.
func (a *arena) str(r ref) string {
	if r.n == 0 {
		return ""
	}
	return unsafe.String(&a.buf[r.off], int(r.n))
}

func (a *arena) bytes(r ref) []byte { return a.buf[r.off : r.off+r.n : r.off+r.n] }

// maxArena is what a recycled object may keep.
const maxArena = 4096

func (a *arena) reset() {
	a.dead = 0
	if cap(a.buf) > maxArena {
		a.buf = nil
	} else {
		a.buf = a.buf[:0]
	}
}

// maxDead is when compact is worth a look.
const maxDead = 4096

// compact drops dead bytes when they are most of the arena.
func (a *arena) compact(refs func(func(*ref))) {
	if a.dead < len(a.buf)/2 {
		return
	}
	fresh := make([]byte, 0, len(a.buf)-a.dead)
	refs(func(r *ref) {
		if r.n == 0 {
			*r = ref{}
			return
		}
		off := uint32(len(fresh))
		fresh = append(fresh, a.bytes(*r)...)
		r.off = off
	})
	a.buf, a.dead = fresh, 0
}
