package logsource

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
)

// find looks what stands under the log's name now and what became of its
// older incarnations, and holds what is to be read. Files are known by their
// content; names and times only tell which of the unknown are newer than the
// known, because only those are new.
func (s *series) find() error {
	for range 3 {
		for _, b := range s.bodies { // what nothing was read of has no other mark
			if b.off == 0 && len(b.first) == 0 && b.look() == nil && b.peek() != nil {
				b.first = nil
			}
		}
		all, err := siblings(s.path)
		if err != nil || len(all) == 0 {
			return err
		}
		lost, err := s.identify(all)
		again, err2 := siblings(s.path)
		if err == nil && err2 == nil && sameFiles(all, again) && !slices.ContainsFunc(all, sibling.hasBegun) {
			return s.adopt(all, lost)
		}
		for _, c := range all {
			if c.body != nil {
				c.body.close()
			}
		}
		if err != nil && err2 == nil && sameFiles(all, again) {
			return err
		}
	}
	return nil // files are being renamed: the next look will tell
}

// identify decides which siblings are to be read and from where, and returns
// what was not found again.
func (s *series) identify(all []sibling) (lost []ident, err error) {
	m := matcher{s: s, all: all, lost: slices.Clone(s.lost), known: -1, done: len(all), refilled: -1}
	for i := range all {
		if s.holds(&all[i]) {
			m.known = i
		}
		if slices.Contains(s.refilled, all[i].inode()) {
			m.refilled = i
		}
	}
	m.byInode()
	for i := range all {
		if !m.enough(i) && all[i].from < 0 && s.f.owner[all[i].inode()] == nil {
			if err := s.open(&all[i]); err == nil {
				m.byContent(i)
			} else if all[i].live {
				return nil, err
			}
		}
	}
	if m.known < 0 && m.done < len(all) {
		m.known = m.done
	}
	m.copies()
	m.shortened()
	m.fresh()
	return m.lost, nil
}

// matcher finds out which siblings are known.
type matcher struct {
	s        *series
	all      []sibling // newest first
	lost     []ident   // not found yet
	known    int       // the oldest sibling that is being read: what is newer and unknown is new
	done     int       // the newest that was read to its end
	refilled int       // the oldest that was truncated and may have been copied before; -1 if nothing older is to be looked for
}

// byInode finds what is where it was.
func (m *matcher) byInode() {
	for k := 0; k < len(m.lost); {
		id := &m.lost[k]
		i := slices.IndexFunc(m.all, func(c sibling) bool {
			return c.dev == id.dev && c.ino == id.ino && c.from < 0 && m.s.f.owner[c.inode()] == nil
		})
		if i < 0 || m.s.open(&m.all[i]) != nil || m.all[i].body.fits(id) != fitWhole {
			k++
			continue
		}
		m.found(k, i)
	}
}

// found notes that a sibling is what was lost.
func (m *matcher) found(k, i int) {
	m.all[i].from, m.all[i].skip, m.known = m.lost[k].off, m.lost[k].skip, max(m.known, i)
	if i > m.refilled {
		m.refilled = -1
	}
	m.lost = slices.Delete(m.lost, k, k+1)
}

// enough tells that a sibling is older than all that matters.
func (m *matcher) enough(i int) bool {
	return i > m.known && i > m.refilled && m.refilled < 0 && len(m.lost) == 0 && (m.known >= 0 || m.done < i)
}

// byContent finds what a sibling is.
func (m *matcher) byContent(i int) {
	c := &m.all[i]
	if k := bestFit(c.body, m.lost); k >= 0 {
		if m.found(k, i); m.s.first {
			m.lost = nil // a database knows all that was read before as well
		}
		return
	}
	if id := m.s.f.knows(c); id != nil {
		c.copy, m.done = true, min(m.done, i)
		if c.live || c.body.src == nil && c.body.size() > id.off && id.done {
			c.from, c.skip = id.off, id.skip
		}
		if m.refilled >= 0 && i > m.refilled {
			m.known, m.refilled = max(m.known, i), -1
		}
		return
	}
	// A copy of what was found elsewhere, such as copytruncate makes.
	c.copy = !c.live && slices.ContainsFunc(m.s.lost, func(id ident) bool { return c.body.fits(&id) != fitNone })
}

// holds tells whether a sibling is held and was read, so that everything behind
// it is older. One of which nothing was read may have been truncated, and its
// copy is to be read.
func (s *series) holds(c *sibling) bool {
	return slices.ContainsFunc(s.bodies, func(b *body) bool {
		return b.off > 0 && c.inode() == inode{b.dev, b.ino}
	})
}

// bestFit is which of some idents a body is, the one read furthest; -1 if none.
func bestFit(b *body, ids []ident) int {
	best := -1
	for k := range ids {
		if (best < 0 || ids[k].off > ids[best].off) && b.fits(&ids[k]) == fitWhole {
			best = k
		}
	}
	return best
}

// copies finds what is the beginning of the live log: copytruncate has made a
// copy and not yet truncated. If nothing of the log was read yet, nothing else
// tells. A log rotated away may begin as the live one does; it is longer then,
// or soon differs.
func (m *matcher) copies() {
	live := &m.all[0]
	b := live.body
	if i := slices.IndexFunc(m.s.bodies, func(b *body) bool { return live.inode() == inode{b.dev, b.ino} }); i >= 0 {
		b = m.s.bodies[i]
	}
	if !live.live || live.from >= 0 || b == nil || b.off > 0 || b.src != nil || len(b.first) == 0 {
		return
	}
	for i := range m.all[1:] {
		c := &m.all[i+1]
		if c.body != nil && c.body.src == nil && len(c.body.first) > 0 && c.body.size() <= b.size() &&
			bytes.HasPrefix(b.first, c.body.first) {
			c.copy = true
		}
	}
}

// shortened finds logs that end before the position and begin the same: what
// a crash of the host or a restored backup left of them. All that they have
// was read, and what is written to them comes behind it.
func (m *matcher) shortened() {
	for k := 0; k < len(m.lost); {
		id := &m.lost[k]
		i := slices.IndexFunc(m.all, func(c sibling) bool {
			return c.body != nil && c.from < 0 && c.body.fits(id) == fitPrefix
		})
		if i < 0 {
			k++
			continue
		}
		c, off := &m.all[i], id.off
		m.found(k, i)
		if c.copy, c.from, c.skip = true, -1, false; c.body.src == nil {
			c.from = c.body.size()
			m.s.f.log.Warn("a log is shorter than what was read of it; going on at its end",
				"file", c.name, "size", c.from, "read", off)
		}
	}
}

// fresh has the unknown that are newer than the known read from their
// beginning. If none is known, a first run begins with what was named, and a
// later one with what changed since. An empty one may be a copy that is being
// made.
func (m *matcher) fresh() {
	since := m.s.seen
	for _, id := range slices.Concat(m.s.lost, m.s.done) {
		since = max(since, id.mtime)
	}
	for i := range m.all {
		c := &m.all[i]
		newer := i <= m.known || i <= m.refilled
		if !newer && (m.known < 0 || m.refilled >= 0) {
			newer = !m.s.first && c.mtime > since || m.s.first && m.s.f.named(c.name)
		}
		if c.body != nil && c.from < 0 && !c.copy && (c.live || newer && len(c.body.first) > 0) {
			c.from = 0
		}
	}
}

// open opens a sibling, once.
func (s *series) open(c *sibling) error {
	if c.tried {
		return c.err
	}
	c.tried = true
	if c.body, c.err = openBody(c.name); c.err != nil {
		if !errors.Is(c.err, fs.ErrNotExist) {
			s.say(c.err.Error(), "cannot read a rotated log", "file", c.name, "error", c.err)
		}
		return c.err
	}
	if c.inode() != (inode{c.body.dev, c.body.ino}) { // renamed meanwhile
		c.body.close()
		c.body, c.err = nil, fs.ErrNotExist
	}
	return c.err
}

// adopt holds what is to be read.
func (s *series) adopt(all []sibling, lost []ident) error {
	var bodies, old []*body
	for i := len(all) - 1; i >= 0; i-- {
		c := &all[i]
		s.seen = max(s.seen, c.mtime)
		s.f.log.Debug("looked at a log", "file", c.name, "inode", c.ino, "read from", c.from, "copy", c.copy)
		if k := slices.IndexFunc(s.bodies, func(b *body) bool { return c.inode() == inode{b.dev, b.ino} }); k >= 0 {
			s.bodies[k].name = c.name
			bodies = append(bodies, s.bodies[k])
		}
		if c.body == nil {
			continue
		}
		if c.from < 0 {
			c.body.close()
			continue
		}
		if err := s.hold(c); err != nil {
			return err
		}
		if !c.live {
			s.f.count.rotated.Add(1)
		}
		bodies = append(bodies, c.body)
	}
	for _, b := range s.bodies { // deleted, or renamed to elsewhere
		if !slices.Contains(bodies, b) {
			old = append(old, b)
		}
	}
	s.bodies = append(old, bodies...)
	for _, id := range lost {
		if !s.first {
			s.f.count.lost.Add(1)
			s.f.log.Error("a log that was read is gone; what was written to it since is lost, if anything was",
				"file", s.path, "read", id.off)
			s.remember(id)
		}
	}
	s.lost, s.first, s.looked, s.refilled = nil, false, true, nil
	return nil
}
