package logpipe

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"os"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// Shelf is a trace.Shelf in a file without a name: what the tracer has put
// aside costs disk, not memory, and is gone with the process.
//
// The file is divided into extents of a mebibyte, an extent into slots of one
// size. There are four sizes to each power of two, so that a slot is at most a
// quarter larger than what it holds. Slots that were dropped are used again
// before new ones, and extents without a used slot for any other size; what is
// at the end of the file goes back to the filesystem. Put, Get and Drop take
// one system call at most, however much is there; and most Puts none, since
// slots that follow each other are written together. What could not be written
// yet is in memory, and Put fails until it could.
//
// It is for one goroutine.
type Shelf struct {
	f       *os.File
	dir     string
	extents []extent
	open    [shelfClasses]int32     // the first extent with room, of each size; -1: none
	empty   []int32                 // extents without a size
	tails   [shelfClasses]unwritten // written last, of each size
	used    int64                   // bytes of what is kept
	buf     []byte
}

// extent is a part of the file. Those of one size that have room are a list.
type extent struct {
	class      int8 // -1: none
	used       int32
	free       []uint64 // a bit for each slot
	prev, next int32    // with room; -1: none
	listed     bool
}

// unwritten are slots of one size that follow each other in an extent.
type unwritten struct {
	at int64
	b  []byte
}

const (
	shelfTail    = 16 << 10 // of unwritten; larger slots are written at once
	shelfExtent  = 1 << 20
	shelfHead    = 8   // of a slot: length and checksum
	shelfLeast   = 256 // bytes, the smallest slot
	shelfClasses = 4*11 + 1
	// MaxShelved is what Put takes at most, bytes: two slots to an extent.
	MaxShelved = shelfExtent/2 - shelfHead
)

var shelfSum = crc32.MakeTable(crc32.Castagnoli)

// NewShelf makes a shelf in a directory, which needs room for what is put
// there: about a kilobyte and a half for each mail that waits.
func NewShelf(dir string) (*Shelf, error) {
	f, err := os.CreateTemp(dir, "aside-*")
	if err != nil {
		return nil, sysexits.Wrap(sysexits.CannotMake, fmt.Errorf("file for mails that wait: %w", err))
	}
	if err := os.Remove(f.Name()); err != nil { // it lives as long as it is open
		f.Close()
		return nil, sysexits.Wrap(sysexits.CannotMake, fmt.Errorf("file for mails that wait: %w", err))
	}
	s := &Shelf{f: f, dir: dir}
	for i := range s.open {
		s.open[i] = -1
	}
	return s, nil
}

// Close gives the room back.
func (s *Shelf) Close() error { return s.f.Close() }

// Size is how large the file is, and how much of that is in use, bytes.
func (s *Shelf) Size() (file, used int64) { return int64(len(s.extents)) * shelfExtent, s.used }

// classOf is the number of the smallest slot that holds n bytes.
func classOf(n int) int {
	if n <= shelfLeast {
		return 0
	}
	// n-1 in [2^k, 2^(k+1)) is in one of four quarters
	k := bits.Len(uint(n-1)) - 1
	return (k-8)*4 + (n-1)>>(k-2)&3 + 1
}

// slotSize is how large the slots of a class are.
func slotSize(class int) int64 {
	if class == 0 {
		return shelfLeast
	}
	k := (class - 1) / 4
	return int64(shelfLeast/4*(4+(class-1)%4+1)) << k
}

// Put keeps a copy of data.
func (s *Shelf) Put(data []byte) (int64, error) {
	if len(data) > MaxShelved {
		return 0, fmt.Errorf("%d bytes are too many to put aside", len(data))
	}
	class := classOf(len(data) + shelfHead)
	e, err := s.room(class)
	if err != nil {
		return 0, err
	}
	x := &s.extents[e]
	slot := x.first()
	at := int64(e)*shelfExtent + int64(slot)*slotSize(class)
	if err := s.write(class, at, data); err != nil {
		s.settle(e)
		return 0, fmt.Errorf("mails that wait cannot be put aside in %s: %w", s.dir, err)
	}
	x.free[slot/64] &^= 1 << (slot % 64)
	x.used++
	s.used += slotSize(class)
	s.settle(e)
	return at, nil
}

// write fills a slot.
func (s *Shelf) write(class int, at int64, data []byte) error {
	size := slotSize(class)
	w := &s.tails[class]
	if size > shelfTail {
		s.buf = append(s.buf[:0], make([]byte, shelfHead)...)
		s.buf = append(s.buf, data...)
		fillHead(s.buf, data)
		_, err := s.f.WriteAt(s.buf, at)
		return err
	}
	pos := at - w.at
	if len(w.b) == 0 || pos < 0 || pos > int64(len(w.b)) || pos+size > shelfTail || at/shelfExtent != w.at/shelfExtent {
		if err := s.flush(w); err != nil {
			return err
		}
		w.at, pos = at, 0
	}
	if w.b == nil {
		w.b = make([]byte, 0, shelfTail)
	}
	w.b = w.b[:max(int64(len(w.b)), pos+size)]
	slot := w.b[pos : pos+size]
	copy(slot[shelfHead:], data)
	fillHead(slot, data)
	return nil
}

func fillHead(slot, data []byte) {
	binary.LittleEndian.PutUint32(slot, uint32(len(data)))
	binary.LittleEndian.PutUint32(slot[4:], crc32.Checksum(data, shelfSum))
}

// flush writes what is in memory only.
func (s *Shelf) flush(w *unwritten) error {
	if len(w.b) > 0 {
		if _, err := s.f.WriteAt(w.b, w.at); err != nil {
			return err
		}
	}
	w.b = w.b[:0]
	return nil
}

// Get gives back what is at a place.
func (s *Shelf) Get(at int64, buf []byte) ([]byte, error) {
	class, ok := s.classAt(at)
	if !ok {
		return nil, fmt.Errorf("file for mails that wait: nothing at %d", at)
	}
	size := int(slotSize(class))
	var b []byte
	n := size
	if w := &s.tails[class]; at >= w.at && at < w.at+int64(len(w.b)) {
		b = w.b[at-w.at:][:size]
	} else {
		if cap(s.buf) < size {
			s.buf = make([]byte, size)
		}
		b = s.buf[:size]
		var err error
		if n, err = s.f.ReadAt(b, at); n < shelfHead {
			return nil, fmt.Errorf("file for mails that wait in %s: %w", s.dir, err)
		}
	}
	want := int(binary.LittleEndian.Uint32(b)) // the last slot of the file may be short
	if want > n-shelfHead || crc32.Checksum(b[shelfHead:shelfHead+want], shelfSum) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, fmt.Errorf("file for mails that wait in %s: what is at %d is damaged: look at the disk", s.dir, at)
	}
	return append(buf[:0], b[shelfHead:shelfHead+want]...), nil
}

// Drop makes a place free.
func (s *Shelf) Drop(at int64) {
	class, ok := s.classAt(at)
	if !ok {
		return
	}
	e := int32(at / shelfExtent)
	slot := at % shelfExtent / slotSize(class)
	x := &s.extents[e]
	x.free[slot/64] |= 1 << (slot % 64)
	x.used--
	s.used -= slotSize(class)
	s.settle(e)
}

// classAt is the class of the slot in use at a place.
func (s *Shelf) classAt(at int64) (int, bool) {
	e := at / shelfExtent
	if at < 0 || e >= int64(len(s.extents)) || s.extents[e].class < 0 {
		return 0, false
	}
	class := int(s.extents[e].class)
	slot := at % shelfExtent / slotSize(class)
	return class, at%shelfExtent%slotSize(class) == 0 && slot < shelfExtent/slotSize(class) && s.extents[e].free[slot/64]>>(slot%64)&1 == 0
}

// room finds or makes an extent with a free slot of a class.
func (s *Shelf) room(class int) (int32, error) {
	if e := s.open[class]; e >= 0 {
		return e, nil
	}
	var e int32
	if n := len(s.empty); n > 0 {
		e, s.empty = s.empty[n-1], s.empty[:n-1]
	} else {
		e = int32(len(s.extents))
		s.extents = append(s.extents, extent{})
	}
	n := int(shelfExtent / slotSize(class))
	x := extent{class: int8(class), free: make([]uint64, (n+63)/64), prev: -1, next: -1}
	for i := range n {
		x.free[i/64] |= 1 << (i % 64)
	}
	s.extents[e] = x
	s.list(e)
	return e, nil
}

// first is the first free slot.
func (x *extent) first() int {
	for i, w := range x.free {
		if w != 0 {
			return i*64 + bits.TrailingZeros64(w)
		}
	}
	return -1
}

// settle puts an extent where it belongs after a change: on the list of those
// with room, off it, or among the empty ones.
func (s *Shelf) settle(e int32) {
	x := &s.extents[e]
	switch full := int64(x.used) == shelfExtent/slotSize(int(x.class)); {
	case x.used == 0:
		s.unlist(e)
		if w := &s.tails[x.class]; int32(w.at/shelfExtent) == e {
			w.b = w.b[:0] // nobody wants it
		}
		x.class, x.free = -1, nil
		s.empty = append(s.empty, e)
		s.shorten()
	case full:
		s.unlist(e)
	case !x.listed:
		s.list(e)
	}
}

func (s *Shelf) list(e int32) {
	x := &s.extents[e]
	x.prev, x.next, x.listed = -1, s.open[x.class], true
	if x.next >= 0 {
		s.extents[x.next].prev = e
	}
	s.open[x.class] = e
}

func (s *Shelf) unlist(e int32) {
	x := &s.extents[e]
	if !x.listed {
		return
	}
	if x.prev >= 0 {
		s.extents[x.prev].next = x.next
	} else {
		s.open[x.class] = x.next
	}
	if x.next >= 0 {
		s.extents[x.next].prev = x.prev
	}
	x.listed = false
}

// shorten cuts empty extents off the end of the file, when they are many: a
// fourth of it.
func (s *Shelf) shorten() {
	n := len(s.extents)
	for n > 0 && s.extents[n-1].class < 0 {
		n--
	}
	if cut := len(s.extents) - n; cut < 16 || cut < len(s.extents)/4 {
		return
	}
	if s.f.Truncate(int64(n)*shelfExtent) != nil {
		return // then the room is used again later
	}
	s.extents = s.extents[:n]
	kept := s.empty[:0]
	for _, e := range s.empty {
		if int(e) < n {
			kept = append(kept, e)
		}
	}
	s.empty = kept
}
