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
	lost = slices.Clone(s.lost)
	known := -1 // the oldest sibling that is being read: what is newer and unknown is new
	for i := range all {
		if s.holds(&all[i]) || !all[i].live && slices.Contains(s.refilled, all[i].inode()) {
			known = i
		}
	}
	for k := 0; k < len(lost); { // who is where it was
		i := slices.IndexFunc(all, func(c sibling) bool {
			return c.dev == lost[k].dev && c.ino == lost[k].ino && c.from < 0 && s.f.owner[c.inode()] == nil
		})
		if i < 0 || s.open(&all[i]) != nil || all[i].body.fits(&lost[k]) != fitWhole {
			k++
			continue
		}
		all[i].from, known = lost[k].off, max(known, i)
		lost = slices.Delete(lost, k, k+1)
	}
	done := len(all) // the newest that was read to its end
	for i := range all {
		c := &all[i]
		if c.from >= 0 || s.f.owner[c.inode()] != nil {
			continue
		}
		if i > known && len(lost) == 0 && (known >= 0 || done < i) {
			break
		}
		if err := s.open(c); err != nil {
			if c.live {
				return nil, err
			}
			continue
		}
		if k := bestFit(c.body, lost); k >= 0 {
			c.from, known = lost[k].off, max(known, i)
			if lost = slices.Delete(lost, k, k+1); s.first {
				lost = nil // a database knows all that was read before as well
			}
		} else if id := s.f.knows(c); id != nil {
			c.copy, done = true, min(done, i)
			if c.live || c.body.src == nil && c.body.size() > id.off && id.done {
				c.from = id.off
			}
		}
	}
	if known < 0 && done < len(all) {
		known = done
	}
	s.copies(all)
	lost, known = s.shortened(all, lost, known)
	s.fresh(all, known)
	return lost, nil
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
func (s *series) copies(all []sibling) {
	live := &all[0]
	var b *body
	if i := slices.IndexFunc(s.bodies, func(b *body) bool { return live.inode() == inode{b.dev, b.ino} }); i >= 0 {
		b = s.bodies[i]
	} else if b = live.body; b == nil || live.from >= 0 {
		return
	}
	if !live.live || b.off > 0 || b.src != nil || len(b.first) == 0 {
		return
	}
	for i := range all[1:] {
		c := &all[i+1]
		if c.body != nil && c.body.src == nil && len(c.body.first) > 0 && c.body.size() <= b.size() &&
			bytes.HasPrefix(b.first, c.body.first) {
			c.copy = true
		}
	}
}

// shortened finds logs that end before the position and begin the same: what
// a crash of the host or a restored backup left of them. All that they have
// was read, and what is written to them comes behind it.
func (s *series) shortened(all []sibling, lost []ident, known int) ([]ident, int) {
	for k := 0; k < len(lost); {
		i := slices.IndexFunc(all, func(c sibling) bool {
			return c.body != nil && c.from < 0 && !c.copy && c.body.fits(&lost[k]) == fitPrefix
		})
		if i < 0 {
			k++
			continue
		}
		c := &all[i]
		c.copy, known = true, max(known, i)
		if c.body.src == nil {
			c.from = c.body.size()
			s.f.log.Warn("a log is shorter than what was read of it; going on at its end",
				"file", c.name, "size", c.body.size(), "read", lost[k].off)
		}
		lost = slices.Delete(lost, k, k+1)
	}
	return lost, known
}

// fresh has the unknown that are newer than the known read from their
// beginning. If none is known, a first run begins with what was named, and a
// later one with what changed since.
func (s *series) fresh(all []sibling, known int) {
	since := s.seen
	for _, id := range slices.Concat(s.lost, s.done) {
		since = max(since, id.mtime)
	}
	for i := range all {
		c := &all[i]
		switch {
		case c.body == nil || c.from >= 0 || c.copy || len(c.body.first) == 0 && !c.live: // a copy that is being made for one
		case c.live, i <= known, known < 0 && s.first && s.f.named(c.name), known < 0 && !s.first && c.mtime > since:
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
		if err := s.hold(c.body, c.from); err != nil {
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
