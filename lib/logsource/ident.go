package logsource

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

const (
	tailLen  = 256 // bytes before the position that a log is known by
	stepMin  = 64  // the shortest beginning that tells anything, bytes
	steps    = 6   // beginnings of 64, 128 ... 2048 bytes
	maxDone  = 16  // logs read to their end that are remembered
	maxOld   = 8   // old incarnations that are held open
	maxHeld  = 12  // incarnations that are held, or looked for after a restart
	maxIdent = 3 + 5*binary.MaxVarintLen64 + 32 + 16 + steps*8
)

// The state of a series is never too long.
const _ = uint(MaxState - 1 - maxHeld*maxIdent - maxDone*(maxIdent-steps*8))

// ident is what an incarnation of a log is known by, and how far it was read:
// its first bytes, and those before the position. A log that begins with the
// same bytes as another is told from it by what stands before the position.
type ident struct {
	dev, ino uint64
	mtime    int64    // nanoseconds since 1970, when it was looked at last
	off      int64    // bytes of content that were read
	head     [32]byte // SHA-256 of the first headLen bytes
	headLen  int
	step     [steps]uint64 // hashes of the first 64<<i bytes, as far as headLen goes
	tail     [16]byte      // of the tailLen bytes before off; tailLen 0: not known
	tailLen  int
	skip     bool // off is in a line too long, of which the rest is to be skipped
	done     bool // was read to its end and let go
}

// begins notes the first bytes, of which off must be at least as many.
func (id *ident) begins(head []byte) {
	id.headLen = len(head)
	id.head = sha256.Sum256(head)
	for i := range id.step {
		if n := stepMin << i; n < len(head) {
			id.step[i] = shortSum(head[:n])
		}
	}
}

// ends notes the bytes before the position.
func (id *ident) ends(tail []byte) {
	id.tailLen = len(tail)
	id.tail = tailSum(tail)
}

func shortSum(b []byte) uint64 {
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}

func tailSum(b []byte) [16]byte {
	sum := sha256.Sum256(b)
	return [16]byte(sum[:])
}

// hasHead tells whether a log that begins with head can be this one.
func (id *ident) hasHead(head []byte) bool {
	return id.headLen > 0 && len(head) >= id.headLen && sha256.Sum256(head[:id.headLen]) == id.head
}

// startsWith tells whether the log began with these bytes, as far as it is
// remembered. Fewer than stepMin bytes tell nothing.
func (id *ident) startsWith(head []byte) bool {
	if len(head) >= id.headLen {
		return id.headLen >= stepMin && id.hasHead(head)
	}
	for i := steps - 1; i >= 0; i-- {
		if n := stepMin << i; n <= len(head) && n < id.headLen && !id.done {
			return id.step[i] == shortSum(head[:n])
		}
	}
	return false
}

// identOf is what a database knows of a log.
func identOf(m Mark) ident {
	return ident{off: m.Offset, head: m.Prefix, headLen: int(m.PrefixLen)}
}

const stateVersion = 1

const (
	flagSkip = 1 << iota
	flagDone
)

// appendIdent writes an ident as it stands in a state.
func appendIdent(b []byte, id *ident) []byte {
	var flags byte
	if id.skip {
		flags |= flagSkip
	}
	if id.done {
		flags |= flagDone
	}
	b = append(b, flags, byte(id.tailLen>>8), byte(id.tailLen))
	for _, n := range [...]uint64{id.dev, id.ino, uint64(id.mtime), uint64(id.off), uint64(id.headLen)} {
		b = binary.AppendUvarint(b, n)
	}
	b = append(b, id.head[:]...)
	b = append(b, id.tail[:]...)
	for i := range id.step {
		if id.hasStep(i) {
			b = binary.LittleEndian.AppendUint64(b, id.step[i])
		}
	}
	return b
}

// hasStep tells whether the beginning of stepMin<<i bytes is remembered.
func (id *ident) hasStep(i int) bool { return stepMin<<i < id.headLen && !id.done }

var errState = errors.New("the state is damaged or of another version")

// readIdents reads a state. It comes from the spool, which has checksums: what
// cannot be read was written by another version.
func readIdents(b []byte) (ids []ident, err error) {
	if len(b) > 0 && b[0] != stateVersion {
		return nil, errState
	}
	for r := (cursor{b: b[min(1, len(b)):]}); len(r.b) > 0; {
		id := r.ident()
		if r.bad || len(ids) > MaxState {
			return nil, errState
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// cursor reads a state.
type cursor struct {
	b   []byte
	bad bool
}

func (r *cursor) bytes(n int) []byte {
	if n > len(r.b) {
		r.bad = true
		return make([]byte, n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *cursor) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *cursor) ident() (id ident) {
	flags := r.bytes(3)
	id.skip, id.done = flags[0]&flagSkip != 0, flags[0]&flagDone != 0
	id.tailLen = int(flags[1])<<8 | int(flags[2])
	id.dev, id.ino, id.mtime, id.off = r.uint(), r.uint(), int64(r.uint()), int64(r.uint())
	headLen := r.uint()
	if flags[0]&^(flagSkip|flagDone) != 0 || id.off < 0 || headLen == 0 || headLen > HeadLen ||
		id.tailLen > tailLen || int64(id.tailLen) > id.off {
		r.bad = true
		return id
	}
	id.headLen = int(headLen)
	id.head = [32]byte(r.bytes(32))
	id.tail = [16]byte(r.bytes(16))
	for i := range id.step {
		if id.hasStep(i) {
			id.step[i] = binary.LittleEndian.Uint64(r.bytes(8))
		}
	}
	return id
}
