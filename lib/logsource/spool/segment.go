package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/safeio"
	"github.com/rolmail/rolmail/lib/sysexits"
)

const (
	segmentSuffix = ".seg"
	damagedSuffix = ".damaged"
	spareName     = "spare"
)

// segment is a file with blocks.
type segment struct {
	path string
	base int64 // logical offset of the first block
	prev int64 // where the segment before ended
	end  int64 // logical offset behind the last block
	head int64 // where in the file the first block is
}

// size is where in the file the last block ends.
func (g *segment) size() int64 { return g.head + g.end - g.base }

func segmentName(base int64) string { return fmt.Sprintf("%016x%s", base, segmentSuffix) }

// makeSegment makes a file with a header, complete and on the disk before it
// gets its name: a crash leaves no half segments.
//
// It is the spare file that becomes the segment, because that has its room
// already. Otherwise a full disk could not be emptied: the active segment is
// never released, so there must be another one.
func (s *Spool) makeSegment(base int64) (*os.File, segment, error) {
	b := s.header(base)
	seg := segment{path: filepath.Join(s.opt.Dir, segmentName(base)), base: base, prev: int64(le.Uint64(b[40:])), end: base, head: int64(len(b))}
	spare := filepath.Join(s.opt.Dir, spareName)
	f, err := os.OpenFile(spare, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, seg, sysexits.Wrap(sysexits.CannotMake, err)
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Truncate(int64(len(b)))
	}
	if err != nil {
		f.Close()
		return nil, seg, sysexits.Wrap(sysexits.IO, err)
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return nil, seg, s.fail(err)
	}
	if err := os.Rename(spare, seg.path); err != nil {
		f.Close()
		return nil, seg, sysexits.Wrap(sysexits.IO, err)
	}
	s.spare.Store(0)
	if err := safeio.SyncDir(s.opt.Dir); err != nil { // whether the name is on the disk is not known
		f.Close()
		return nil, seg, s.fail(err)
	}
	return f, seg, nil
}

// rotate begins a new segment. Whoever calls it has the turn.
func (s *Spool) rotate(base int64) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if err := s.syncActive(); err != nil {
		return err
	}
	if s.torn { // or the end of a segment that is read again would look damaged
		seg, _ := s.last()
		if err := s.cut(seg.size()); err != nil {
			return err
		}
	}
	f, seg, err := s.makeSegment(base)
	if err != nil {
		return err
	}
	s.active.Close()
	s.active = f
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments = append(s.segments, seg)
	s.bytes += seg.size()
	s.end.Store(base)
	s.synced.Store(base)
	return nil
}

// reclaim removes the segments that have been released, the oldest first, so
// that a crash leaves no hole.
func (s *Spool) reclaim() {
	s.reclaiming.Lock()
	defer s.reclaiming.Unlock()
	for s.removeFirst() {
	}
	s.keepSpare() // before the one who waits takes the room
	token(s.room)
}

// removeFirst removes the oldest segment, if it has been released. It returns
// whether there may be more.
func (s *Spool) removeFirst() bool {
	s.mu.Lock()
	seg := s.segments[0]
	old := len(s.segments) > 1 && seg.end <= s.released
	s.mu.Unlock()
	if !old {
		return false
	}
	if err := os.Remove(seg.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.opt.Log.Warn("a segment of the spool that is done with cannot be removed", "file", seg.path, "error", err.Error())
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments = slices.Delete(s.segments, 0, 1)
	s.bytes -= seg.size()
	return true
}

// keepSpare sees to it that the spare file has room for the next header. On a
// full disk it has not, until something is removed.
func (s *Spool) keepSpare() {
	s.mu.Lock()
	need := (headMin + s.table + 4095) &^ 4095
	s.mu.Unlock()
	if s.spare.Load() >= need {
		return
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if s.active == nil {
		return
	}
	need += 4096 // the table may grow
	f, err := os.OpenFile(filepath.Join(s.opt.Dir, spareName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, need)
	if err == unix.EOPNOTSUPP {
		_, err = f.WriteAt(make([]byte, need), 0)
	}
	if err == nil {
		s.spare.Store(need)
	}
}
