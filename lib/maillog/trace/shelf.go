package trace

import (
	"errors"
	"slices"
)

// Shelf keeps what the tracer has put aside. It need not survive the process:
// the saved state does.
type Shelf interface {
	// Put keeps a copy of data and says where. An error means that there is no
	// room: the mail then stays in memory.
	Put(data []byte) (at int64, err error)
	// Get gives back what Put was given, in buf if it is large enough.
	Get(at int64, buf []byte) ([]byte, error)
	// Drop makes the place free.
	Drop(at int64)
}

// memShelf is a shelf in memory.
type memShelf struct {
	at   [][]byte
	free []int64
}

func (m *memShelf) Put(data []byte) (int64, error) {
	if n := len(m.free); n > 0 {
		at := m.free[n-1]
		m.free = m.free[:n-1]
		m.at[at] = slices.Clone(data)
		return at, nil
	}
	m.at = append(m.at, slices.Clone(data))
	return int64(len(m.at) - 1), nil
}

func (m *memShelf) Get(at int64, buf []byte) ([]byte, error) {
	if at < 0 || at >= int64(len(m.at)) || m.at[at] == nil {
		return nil, errors.New("nothing there")
	}
	return append(buf[:0], m.at[at]...), nil
}

func (m *memShelf) Drop(at int64) {
	m.at[at] = nil
	m.free = append(m.free, at)
}

// entry is what stays in memory of mails that are put aside together.
type entry struct {
	serial uint64 // of its value in the state
	at     int64  // logClock time when the leg that has waited longest was touched
	first  int64  // log time of the first line
	slot   int64  // on the shelf

	heapAt    int32 // place in shelved.heap
	unsavedAt int32 // place in shelved.unsaved, from 1
	legs      int32
	scans     int16
	old       bool // the saved state has a value under serial, this one or an earlier one
}

// shelved finds what is put aside: by the hashes of queue ids and of whatever
// else may name it, and the oldest first. It holds no pointers, so that the
// garbage collector has nothing to look at.
type shelved struct {
	entries [][]entry // pieces of entryPiece, which never move
	n       int
	legs    int
	scans   int
	free    []uint32
	heap    []uint32 // by entry.at
	unsaved []uint32 // not yet in the state
	index   fpTable
}

const entryPiece = 1024

func (s *shelved) entry(id uint32) *entry { return &s.entries[id/entryPiece][id%entryPiece] }

// add makes an entry.
func (s *shelved) add(e entry) uint32 {
	var id uint32
	if k := len(s.free); k > 0 {
		id, s.free = s.free[k-1], s.free[:k-1]
	} else {
		id = uint32(len(s.entries) * entryPiece)
		s.entries = append(s.entries, make([]entry, entryPiece))
		for i := uint32(entryPiece - 1); i > 0; i-- {
			s.free = append(s.free, id+i)
		}
	}
	s.n++
	s.legs += int(e.legs)
	s.scans += int(e.scans)
	e.heapAt, e.unsavedAt = int32(len(s.heap)), 0
	*s.entry(id) = e
	s.heap = append(s.heap, id)
	s.up(len(s.heap) - 1)
	return id
}

// remove forgets an entry, whose keys have been taken out of the index.
func (s *shelved) remove(id uint32) {
	s.saved(id)
	e := s.entry(id)
	last := len(s.heap) - 1
	i := int(e.heapAt)
	s.swap(i, last)
	s.heap = s.heap[:last]
	if i < last {
		s.down(i)
		s.up(i)
	}
	s.n--
	s.legs -= int(e.legs)
	s.scans -= int(e.scans)
	*e = entry{}
	s.free = append(s.free, id)
}

// unsave notes that an entry is not in the saved state.
func (s *shelved) unsave(id uint32) {
	s.unsaved = append(s.unsaved, id)
	s.entry(id).unsavedAt = int32(len(s.unsaved))
}

// saved takes an entry off the list of those that are not.
func (s *shelved) saved(id uint32) {
	e := s.entry(id)
	if e.unsavedAt == 0 {
		return
	}
	n := len(s.unsaved) - 1
	last := s.unsaved[n]
	s.unsaved[e.unsavedAt-1] = last
	s.entry(last).unsavedAt = e.unsavedAt
	s.unsaved = s.unsaved[:n]
	e.unsavedAt = 0
}

func (s *shelved) before(i, j int) bool { return s.entry(s.heap[i]).at < s.entry(s.heap[j]).at }

func (s *shelved) swap(i, j int) {
	s.heap[i], s.heap[j] = s.heap[j], s.heap[i]
	s.entry(s.heap[i]).heapAt, s.entry(s.heap[j]).heapAt = int32(i), int32(j)
}

func (s *shelved) up(i int) {
	for i > 0 && s.before(i, (i-1)/2) {
		s.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (s *shelved) down(i int) {
	for {
		c := 2*i + 1
		if c+1 < len(s.heap) && s.before(c+1, c) {
			c++
		}
		if c >= len(s.heap) || !s.before(c, i) {
			return
		}
		s.swap(i, c)
		i = c
	}
}

// fpTable finds entries by hash: an open table of 32-bit fingerprints, each
// with an entry's number. Fingerprints may agree where hashes do not: who asks
// looks at the entry before he believes it.
type fpTable struct {
	slots []fpSlot
	n     int
}

type fpSlot struct{ fp, id uint32 } // id from 1; 0: empty

const (
	minSlots = 1024
	maxSame  = 128 // entries with one fingerprint: then the table is not the place for more
)

func fingerprint(h uint64) uint32 {
	h ^= h >> 32
	return uint32(h * 0x9E3779B97F4A7C15 >> 32)
}

// home is where a fingerprint would like to be; it grows with the fingerprint.
func (f *fpTable) home(fp uint32) int { return int(uint64(fp) * uint64(len(f.slots)) >> 32) }

func (f *fpTable) next(i int) int {
	if i++; i < len(f.slots) {
		return i
	}
	return 0
}

// add reports false when there are too many with the same fingerprint.
func (f *fpTable) add(fp, id uint32) bool {
	if f.n >= len(f.slots)/5*4 {
		f.resize(max(minSlots, len(f.slots)+len(f.slots)/2))
	}
	same := 0
	i := f.home(fp)
	for ; f.slots[i].id != 0; i = f.next(i) {
		if f.slots[i].fp == fp {
			same++
		}
	}
	if same >= maxSame {
		return false
	}
	f.slots[i] = fpSlot{fp, id + 1}
	f.n++
	return true
}

// find appends to ids the entries with a fingerprint.
func (f *fpTable) find(fp uint32, ids []uint32) []uint32 {
	if f.n == 0 {
		return ids
	}
	for i := f.home(fp); f.slots[i].id != 0; i = f.next(i) {
		if f.slots[i].fp == fp {
			ids = append(ids, f.slots[i].id-1)
		}
	}
	return ids
}

// remove takes one out, and moves those behind it nearer to their homes.
func (f *fpTable) remove(fp, id uint32) {
	if f.n == 0 {
		return
	}
	i := f.home(fp)
	for f.slots[i] != (fpSlot{fp, id + 1}) {
		if f.slots[i].id == 0 {
			return
		}
		i = f.next(i)
	}
	f.n--
	for j := f.next(i); f.slots[j].id != 0; j = f.next(j) {
		// j may move to the gap at i unless its home lies behind the gap
		if home := f.home(f.slots[j].fp); (j-home+len(f.slots))%len(f.slots) >= (j-i+len(f.slots))%len(f.slots) {
			f.slots[i] = f.slots[j]
			i = j
		}
	}
	f.slots[i] = fpSlot{}
	if len(f.slots) > 64*minSlots && f.n < len(f.slots)/8 {
		f.resize(len(f.slots) / 4)
	}
}

func (f *fpTable) resize(n int) {
	old := f.slots
	f.slots = make([]fpSlot, n)
	for _, s := range old {
		if s.id == 0 {
			continue
		}
		i := f.home(s.fp)
		for f.slots[i].id != 0 {
			i = f.next(i)
		}
		f.slots[i] = s
	}
}
