package trace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// The state is a table of values by key. A key is a kind and a serial number;
// a value begins with the version of its layout. The kinds:
//
//	L S A N F R  a leg, session, scan, note, front or refusal at hand
//	C            mails put aside together, with all that belongs to them; what
//	             of it was taken back and has changed since has a value of its
//	             own, which names this one
//	T            mails that were done lately (tombs)
//	O            the instances that run a queue
//	M            the rest: the last serial number, the hash key, the clock
const stateVersion = 2

// ErrState is returned for state that is damaged or of another version.
var ErrState = errors.New("open mails: the saved state cannot be read")

var (
	errDamaged = fmt.Errorf("%w: a value is damaged; delete the saved state (table state): the rows stay, "+
		"and mails open now will not be followed further", ErrState)
	errNewer = fmt.Errorf("%w: a newer version of this program wrote it; use that one, or delete the saved state "+
		"(table state): the rows stay, and mails open now will not be followed further", ErrState)
	errNoKey = fmt.Errorf("%w: the value M is missing; delete the rest of the saved state (table state): the rows stay, "+
		"and mails open now will not be followed further", ErrState)
)

// Changes calls f for everything open that has changed since the last call,
// and with nil data for what is no more. Put the rows of the same moment (and
// Sync's, if wanted) in the same transaction. Keys and data live only as long
// as the call.
func (t *Tracer) Changes(f func(key, data []byte)) {
	if t.settleDown(); t.err != nil {
		return
	}
	t.trimTombs()
	for _, k := range t.gone {
		f(k, nil)
	}
	t.gone = t.gone[:0]
	c := &t.coder
	for _, it := range t.dirt {
		it.dirtyAt, it.stored = 0, true
		kind, code := object(it)
		f(stateKey(kind, it.serial), c.encode(code))
	}
	clear(t.dirt)
	t.dirt = t.dirt[:0]
	t.saveAside(f)
	t.saveTombs(f)
	if t.newOwner {
		t.newOwner = false
		f(stateKey('O', 0), c.encode(t.codeOwners))
	}
	if meta := c.encode(t.codeMeta); !bytes.Equal(meta, t.meta) {
		t.meta = append(t.meta[:0], meta...)
		f(stateKey('M', 0), meta)
	}
}

// object is how the thing of an item is saved.
func object(it *item) (kind byte, code func(*coder)) {
	switch x := it.thing.(type) {
	case *leg:
		return 'L', x.code
	case *session:
		return 'S', x.code
	case *scan:
		return 'A', x.code
	case *note:
		return 'N', x.code
	case *front:
		return 'F', x.code
	case *refusal:
		return 'R', x.code
	}
	panic("trace: an item of no kind")
}

// forget notes that a value is no more.
func (t *Tracer) forget(kind byte, serial uint64) { t.gone = append(t.gone, stateKey(kind, serial)) }

// release takes an item out of the queue, the lists and the state.
func (t *Tracer) release(it *item) {
	t.unqueue(it)
	if it.base != nil {
		t.dissolve(it.base)
	}
	t.unlist(it)
	if it.stored {
		it.stored = false
		kind, _ := object(it)
		t.forget(kind, it.serial)
	}
}

func stateKey(kind byte, serial uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, serial)
}

// saved is a value of the state, or a part of one, that is to become an object.
type saved struct {
	kind    byte
	version byte
	own     bool     // under a key of its own
	packed  bool     // with others in a value of kind C
	texts   [][]byte // of that value, once all are known
	serial  uint64
	data    []byte
	base    *base
	baseIs  uint64 // serial of base, before it is known
}

// Restore takes back one value that Changes gave. Call it for all of them, in
// any order, before anything else. What was put aside goes straight back to
// the shelf.
func (t *Tracer) Restore(key, data []byte) error {
	if len(key) != 9 || len(data) == 0 || data[0] == 0 {
		return errDamaged
	}
	if data[0] > stateVersion {
		return errNewer
	}
	t.restoring = true
	s := saved{kind: key[0], version: data[0], own: true, serial: binary.BigEndian.Uint64(key[1:])}
	t.serial = max(t.serial, s.serial)
	if s.kind == 'C' {
		return t.restoreAside(s.serial, data)
	}
	// reading it now tells damage while the caller can still say where
	s.data = data[1:]
	if !t.try(&s) {
		return errDamaged
	}
	if s.kind != 'M' && s.kind != 'O' {
		s.data, s.baseIs = slices.Clone(s.data), t.coder.base
		t.pending = append(t.pending, s)
	}
	return nil
}

// try reads a value to see whether that is possible. What it says of no object
// is taken.
func (t *Tracer) try(s *saved) bool {
	c := &t.coder
	c.read(s)
	switch s.kind {
	case 'M':
		t.restoreMeta(c)
	case 'O':
		t.codeOwners(c)
	case 'L':
		(&leg{}).code(c)
	case 'S':
		(&session{}).code(c)
	case 'A':
		(&scan{}).code(c)
	case 'N':
		(&note{}).code(c)
	case 'F':
		(&front{}).code(c)
	case 'R':
		(&refusal{}).code(c)
	case 'T':
		(&grave{}).code(c, func(tomb) {})
	default:
		return false
	}
	return !c.bad
}

// restoreMeta takes back what belongs to no object.
func (t *Tracer) restoreMeta(c *coder) {
	serial := t.serial
	t.codeMeta(c)
	t.serial = max(t.serial, serial)
	if c.version < 2 {
		return
	}
	t.hasKey = true
	for _, n := range t.nodes {
		t.hashNode(n)
	}
}

// codeOwners codes the names of the instances that run a queue.
func (t *Tracer) codeOwners(c *coder) {
	if c.decoding {
		for n := c.count(0); n > 0 && !c.bad; n-- {
			var x *node
			if c.node(&x); x != nil && !c.bad {
				t.owns(x)
			}
		}
		return
	}
	var all []*node
	for _, n := range t.nodes {
		if n.owner {
			all = append(all, n)
		}
	}
	c.count(len(all))
	for _, n := range all {
		c.node(&n)
	}
}

// owns notes that an instance runs a queue.
func (t *Tracer) owns(n *node) {
	if !n.owner {
		n.owner, t.newOwner = true, true
	}
}

// Err is not nil when something that was put aside cannot be read back. The
// tracer does nothing more then: commit nothing of it, and start again from
// the saved state, which has it.
func (t *Tracer) Err() error { return t.err }
