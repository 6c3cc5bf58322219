package spool

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rolmail/rolmail/lib/safeio"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// candidate is a file that is named as a segment.
type candidate struct {
	segment
	file *os.File
	size int64
	h    *header // nil: err says why
	err  error
	id   [16]byte // where the header would have it
}

// load finds out what is on the disk. It is called before anything else.
func (s *Spool) load() error {
	all, strangers, err := s.list()
	defer closeAll(all)
	if err != nil {
		return err
	}
	if len(all) == 0 && len(strangers) > 0 {
		return sysexits.Errorf(sysexits.Config, "%s: no spool, but it has other files, such as %q; name an empty directory", s.opt.Dir, strangers[0])
	}
	if len(strangers) > 0 {
		s.opt.Log.Warn("the directory of the spool has other files", "dir", s.opt.Dir, "file", strangers[0], "files", len(strangers))
	}
	if err := s.identify(all); err != nil {
		return err
	}
	kept, base, err := s.sift(all)
	if err != nil {
		return err
	}
	if len(kept) == 0 {
		return s.first(base)
	}
	s.link(kept)
	if err := s.restoreStates(kept); err != nil {
		return err
	}
	return s.openLast(kept[len(kept)-1])
}

// list opens all files that are named as segments, in order, and names those
// that have no business here.
func (s *Spool) list() (all []*candidate, strangers []string, err error) {
	entries, err := os.ReadDir(s.opt.Dir) // sorted: the names have a fixed width
	if err != nil {
		return nil, nil, sysexits.Wrap(sysexits.IO, err)
	}
	for _, e := range entries {
		hex, isSegment := strings.CutSuffix(e.Name(), segmentSuffix)
		base, err := strconv.ParseInt(hex, 16, 64)
		switch {
		case isSegment && err == nil && segmentName(base) == e.Name():
			c, err := readCandidate(filepath.Join(s.opt.Dir, e.Name()), base)
			if errors.Is(err, fs.ErrNotExist) { // released since, by the process that Look looks at
				continue
			}
			if c != nil {
				all = append(all, c)
			}
			if err != nil {
				return all, nil, err
			}
		case strings.HasSuffix(e.Name(), damagedSuffix):
			s.stats.SetAside++
			if info, err := e.Info(); err == nil {
				s.aside += info.Size()
			}
		case slices.Contains(s.opt.Beside, e.Name()):
		case e.Name() != lockName && e.Name() != spareName && e.Name() != "lost+found":
			strangers = append(strangers, e.Name())
		}
	}
	return all, strangers, nil
}

func closeAll(all []*candidate) {
	for _, c := range all {
		c.file.Close()
	}
}

// readCandidate opens a file and reads its header.
func readCandidate(path string, base int64) (*candidate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, sysexits.Wrap(sysexits.IO, err)
	}
	c := &candidate{segment: segment{path: path, base: base}, file: f}
	info, err := f.Stat()
	if err != nil {
		return c, sysexits.Wrap(sysexits.IO, err)
	}
	if !info.Mode().IsRegular() {
		return c, sysexits.Errorf(sysexits.Config, "%s is no file; move it away", path)
	}
	c.size = info.Size()
	b := make([]byte, min(c.size, headMin))
	if _, err := f.ReadAt(b, 0); err != nil {
		return c, sysexits.Wrap(sysexits.IO, err)
	}
	if len(b) >= 32 {
		c.id = [16]byte(b[16:32])
	}
	n, err := headerLength(b)
	if err == nil && n <= c.size {
		b = make([]byte, n)
		if _, err := f.ReadAt(b, 0); err != nil {
			return c, sysexits.Wrap(sysexits.IO, err)
		}
	}
	c.h, c.err = parseHeader(b)
	if c.h != nil {
		c.id, c.head, c.prev = c.h.id, c.h.length, c.h.prev
	}
	return c, nil
}

// identify finds the spool's id, and refuses what cannot be one spool of ours.
func (s *Spool) identify(all []*candidate) error {
	found := false
	for _, c := range all {
		switch {
		case c.err == errVersion:
			return sysexits.Errorf(sysexits.Config, "%s is %w of this program; use the newer one, or another directory", c.path, c.err)
		case c.h == nil:
		case c.h.base != c.base:
			return sysexits.Errorf(sysexits.Config, "%s has been renamed: it was %s; give it that name again", c.path, segmentName(c.h.base))
		case found && c.id != s.id:
			return sysexits.Errorf(sysexits.Config, "%s is of another spool than the files before it; move those of one of the two away", c.path)
		default:
			s.id, found = c.id, true
		}
	}
	if !found && len(all) > 0 { // the blocks will show whether this is it
		s.id = all[len(all)-1].id
	}
	s.seed = seedOf(s.id)
	return nil
}

// sift leaves the files that have blocks, or room for them. base is where to
// go on if there are none.
func (s *Spool) sift(all []*candidate) (kept []*candidate, base int64, err error) {
	for _, c := range all {
		base = c.base
		if c.h != nil {
			kept = append(kept, c)
			continue
		}
		if c.head, err = findHead(c, s.seed); err != nil {
			return nil, 0, err
		}
		if c.head >= 0 {
			c.prev = c.base
			s.setAside(c.file, c.path, 0, c.head, "the header of a segment is damaged; its blocks are used")
			kept = append(kept, c)
			continue
		}
		if err := s.dropHeadless(c); err != nil {
			return nil, 0, err
		}
	}
	return kept, base, nil
}

// findHead finds where the blocks begin in a file whose header is damaged, -1
// if there are none.
func findHead(c *candidate, seed uint32) (int64, error) {
	cur := cursor{seed: seed}
	cur.place(c.file, c.base, -1, 0, c.size)
	if err := cur.resync(); err != nil {
		return -1, err
	}
	b, err := cur.peek()
	if b == nil || err != nil {
		return -1, err
	}
	return cur.at - (blockOffset(b) - c.base), nil
}

// dropHeadless puts a file away that has neither header nor blocks: the crash
// came when it was made, or all of it is damaged. What was never ours stays.
func (s *Spool) dropHeadless(c *candidate) error {
	empty, err := zeros(c.file, 0, c.size)
	if err != nil {
		return sysexits.Wrap(sysexits.IO, err)
	}
	if empty {
		s.opt.Log.Warn("an empty segment of the spool is removed", "file", c.path, "bytes", c.size)
		return sysexits.Wrap(sysexits.IO, os.Remove(c.path))
	}
	b := make([]byte, min(c.size, int64(len(magic))))
	if _, err := c.file.ReadAt(b, 0); err != nil {
		return sysexits.Wrap(sysexits.IO, err)
	}
	if !strings.HasPrefix(magic, string(b)) {
		return sysexits.Errorf(sysexits.Config, "%s is %w; move it away", c.path, errForeign)
	}
	return sysexits.Wrap(sysexits.IO, s.wholeAside(c.path, c.size, "a segment of the spool has no whole header and no blocks"))
}

// first makes the first segment of a new spool.
func (s *Spool) first(base int64) error {
	rand.Read(s.id[:])
	s.seed = seedOf(s.id)
	f, seg, err := s.makeSegment(base)
	if err != nil {
		return err
	}
	s.active, s.segments, s.bytes = f, []segment{seg}, seg.size()
	s.end.Store(base)
	s.synced.Store(base)
	s.released = base
	s.keepSpare()
	return nil
}

// link makes the list of segments, each as long as its file, but not beyond
// the beginning of the next.
func (s *Spool) link(kept []*candidate) {
	for i, c := range kept {
		c.end = c.base + c.size - c.head
		if i+1 < len(kept) {
			c.end = min(c.end, kept[i+1].base)
		}
		s.segments = append(s.segments, c.segment)
		s.bytes += c.segment.size()
	}
	s.released = kept[0].base
}

// restoreStates reads the states: the last header has them, and the blocks
// behind it newer ones, which openLast sees. If that header is damaged, an
// earlier one and all blocks since do.
func (s *Spool) restoreStates(kept []*candidate) error {
	i := len(kept) - 1
	for i > 0 && kept[i].h == nil {
		i--
	}
	if kept[i].h == nil {
		s.opt.Log.Warn("no segment of the spool has a whole header; sources that have put nothing since begin anew", "dir", s.opt.Dir)
	} else {
		s.states = kept[i].h.states
		for key, state := range s.states {
			s.table += entrySize(key, state)
		}
	}
	for ; i < len(kept)-1; i++ {
		c := kept[i]
		cur := cursor{seed: s.seed}
		cur.place(c.file, c.base, c.head, c.head, c.segment.size())
		for {
			if b, err := s.replay(&cur); err != nil {
				return err
			} else if b == nil {
				break
			}
		}
	}
	return nil
}

// replay takes the state of the next whole block; nil is the end.
func (s *Spool) replay(cur *cursor) ([]byte, error) {
	b, err := cur.next()
	for err == errDamaged { // a reader will say so
		if err = cur.resync(); err == nil {
			b, err = cur.next()
		}
	}
	if b != nil {
		key, state, _ := parts(b)
		s.remember(string(key), state)
	}
	return b, err
}

// openLast checks the last segment block by block, cuts its torn end off, and
// makes it the active one.
func (s *Spool) openLast(c *candidate) error {
	cur := cursor{seed: s.seed}
	cur.place(c.file, c.base, c.head, c.head, c.size)
	whole := cur.at
	for {
		b, err := s.replay(&cur)
		if err != nil {
			return err
		}
		if b == nil {
			break
		}
		whole = cur.at
	}
	f, err := os.OpenFile(c.path, os.O_RDWR, 0)
	if err != nil {
		return sysexits.Wrap(sysexits.IO, err)
	}
	s.active = f
	if err := s.cutTail(c, whole); err != nil {
		return err
	}
	s.bytes += whole - c.segment.size()
	last := &s.segments[len(s.segments)-1]
	last.end = last.base + whole - last.head
	s.end.Store(last.end)
	// Of what the process before wrote it is not known whether it is on the
	// disk. What is readable now counts, so it must be.
	if err := errors.Join(dataSync(f), safeio.SyncDir(s.opt.Dir)); err != nil {
		return sysexits.Wrap(sysexits.IO, err)
	}
	s.synced.Store(last.end)
	s.keepSpare()
	return nil
}

// cutTail cuts off what is behind the last whole block of the last segment.
func (s *Spool) cutTail(c *candidate, whole int64) error {
	if c.size == whole {
		return nil
	}
	empty, err := zeros(c.file, whole, c.size)
	if err != nil {
		return sysexits.Wrap(sysexits.IO, err)
	}
	if empty {
		s.opt.Log.Warn("room at the end of the spool that was never written to is cut off", "file", c.path, "at", whole, "bytes", c.size-whole)
	} else {
		s.setAside(c.file, c.path, whole, c.size, "the end of the spool is torn and cut off")
	}
	return sysexits.Wrap(sysexits.IO, s.active.Truncate(whole))
}
