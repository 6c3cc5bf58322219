package logsource

import (
	"io"
	"math"
)

// Merger gives out the lines of several sources in the order of their times.
// The order within a source is never changed. Of lines with the same time,
// that of the source named first comes first; a line without a readable time
// goes with the line before it.
//
// A log that is given twice, plain and compressed for one, is read once: where
// the first copy ends the second continues.
type Merger struct {
	slots []slot
	heap  []int // slots with a line, the one to give out first at [0]
	last  int   // the slot whose line was given out last, -1 before the first
	key   Key
}

// Key reads the time of a line of a slot. It is called once a line, in the
// order of the source, and before the line is given out.
type Key func(slot int, line []byte) (time int64, ok bool)

type slot struct {
	src  *Source
	line []byte
	time int64
	err  error
}

// NewMerger merges sources. A slot is a source, or several copies of one log.
func NewMerger(sources []*Source, key Key) *Merger {
	m := &Merger{last: -1, key: key}
next:
	for _, s := range sources {
		for i := range m.slots {
			if same(m.slots[i].src, s) {
				tail := m.slots[i].src
				for tail.twin != nil {
					tail = tail.twin
				}
				tail.twin = s
				continue next
			}
		}
		m.slots = append(m.slots, slot{src: s, time: math.MinInt64})
	}
	return m
}

// Slots is how many slots there are.
func (m *Merger) Slots() int { return len(m.slots) }

// Source is the source that a slot reads now, or has read last.
func (m *Merger) Source(slot int) *Source { return m.slots[slot].src }

// Err is what broke the reading of a slot off.
func (m *Merger) Err(slot int) error { return m.slots[slot].err }

// Mark is how far a slot has been read, counting the line that Next returned
// last.
func (m *Merger) Mark(slot int) (Mark, bool) {
	return m.slots[slot].src.Mark(slot == m.last || m.slots[slot].line == nil)
}

// Next returns the next line and its slot, or io.EOF when all have ended. The
// line, and what key kept of it, is valid until the next call.
func (m *Merger) Next() (int, []byte, error) {
	if m.last < 0 {
		m.begin()
	} else if m.advance(m.last) {
		m.down(0)
	} else {
		m.drop()
	}
	if len(m.heap) == 0 {
		return 0, nil, io.EOF
	}
	m.last = m.heap[0]
	return m.last, m.slots[m.last].line, nil
}

func (m *Merger) begin() {
	m.last = 0
	for i := range m.slots {
		if m.advance(i) {
			m.heap = append(m.heap, i)
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
}

// advance reads the next line of a slot. It returns false at its end.
func (m *Merger) advance(i int) bool {
	s := &m.slots[i]
	for {
		line, err := s.src.Next()
		if err != nil && err != io.EOF && s.err == nil {
			s.err = err
		}
		if twin := s.src.twin; twin != nil && (err != nil || s.src.Partial()) {
			twin.skip(s.src.after)
			s.src.Close()
			s.src = twin
			continue
		}
		if err != nil {
			s.line = nil
			s.src.Close()
			return false
		}
		s.line = line
		if t, ok := m.key(i, line); ok {
			s.time = t
		}
		return true
	}
}

func (m *Merger) less(a, b int) bool {
	x, y := m.slots[a].time, m.slots[b].time
	return x < y || x == y && a < b
}

// drop takes the first slot off the heap.
func (m *Merger) drop() {
	n := len(m.heap) - 1
	if n < 0 {
		return
	}
	m.heap[0] = m.heap[n]
	m.heap = m.heap[:n]
	m.down(0)
}

// down moves the slot at i of the heap to its place.
func (m *Merger) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(m.heap) {
			return
		}
		if c+1 < len(m.heap) && m.less(m.heap[c+1], m.heap[c]) {
			c++
		}
		if !m.less(m.heap[c], m.heap[i]) {
			return
		}
		m.heap[i], m.heap[c] = m.heap[c], m.heap[i]
		i = c
	}
}

// Skipped is how many bytes of a slot had been read by earlier runs, before
// any Next.
func (m *Merger) Skipped(slot int) int64 { return m.slots[slot].src.off }
