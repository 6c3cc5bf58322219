package spool

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// How long a Put that finds the disk full waits before it tries again: other
// programs make room without telling.
const (
	firstRetry = 20 * time.Millisecond
	lastRetry  = time.Second
)

// errBound: the segments have MaxBytes.
var errBound = errors.New("the spool has its full size")

// waiting is a Put that waits for room.
type waiting struct {
	since time.Time // zero: none does
	disk  bool      // the disk is full
}

// take waits for its turn to write.
func (s *Spool) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	default:
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return s.why()
		}
	}
	if err := s.why(); err != nil {
		s.give()
		return err
	}
	return nil
}

func (s *Spool) give() { <-s.turn }

// Put writes a chunk. When it returns nil, the chunk survives kill -9. It
// waits while there is no room until ctx is done. When it returns an error,
// the chunk is not there, unless it is an fsync that has failed.
//
// A chunk without a state makes the spool forget that of its source.
func (s *Spool) Put(ctx context.Context, c *logsource.Chunk) error {
	if err := proper(c); err != nil {
		return err
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	to, err := s.put(ctx, c)
	s.give()
	if err == nil && s.opt.SyncEach { // others write meanwhile: one sync is for all of them
		err = s.SyncTo(to)
	}
	return err
}

func proper(c *logsource.Chunk) error {
	switch n := len(c.Lines); {
	case len(c.Key) == 0 || len(c.Key) > logsource.MaxKey:
		return sysexits.Errorf(sysexits.Bug, "a source's name has %d bytes, not 1 to %d", len(c.Key), logsource.MaxKey)
	case len(c.State) > logsource.MaxState:
		return sysexits.Errorf(sysexits.Bug, "source %q: a state of %d bytes; %d are allowed", c.Key, len(c.State), logsource.MaxState)
	case n > logsource.MaxChunk:
		return sysexits.Errorf(sysexits.Bug, "source %q: a chunk of %d bytes; %d are allowed", c.Key, n, logsource.MaxChunk)
	case n > 0 && c.Lines[n-1] != '\n':
		return sysexits.Errorf(sysexits.Bug, "source %q: a chunk that ends within a line", c.Key)
	}
	return nil
}

// put writes a chunk as soon as there is room, and returns where it ends.
func (s *Spool) put(ctx context.Context, c *logsource.Chunk) (int64, error) {
	if err := s.tableFits(c); err != nil {
		return 0, err
	}
	from := s.End()
	s.block = appendBlock(s.block[:0], s.seed, from, c)
	err := s.tryPut(c)
	for delay := firstRetry; isFull(err); delay = min(2*delay, lastRetry) {
		s.beginWait(err)
		if again := s.makeRoom(); again {
			err = s.tryPut(c)
			continue
		}
		if err = s.waitRoom(ctx, delay); err == nil {
			err = s.tryPut(c)
		}
	}
	s.endWait()
	return from + int64(len(s.block)), err
}

// tableFits says whether the states, with that of the chunk, fit a header.
func (s *Spool) tableFits(c *logsource.Chunk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.states[c.Key]
	if known && len(c.State) <= len(old) {
		return nil
	}
	most := min(headMax-headMin, s.opt.MaxBytes/8)
	if s.table+entrySize(c.Key, c.State) <= most {
		return nil
	}
	return sysexits.Errorf(sysexits.Unavailable, "%s: no room for the state of source %q: those of %d sources have %d bytes of %d",
		s.opt.Dir, c.Key, len(s.states), s.table, most)
}

// tryPut writes the block, into a new segment if need be, and makes it known.
func (s *Spool) tryPut(c *logsource.Chunk) error {
	n := int64(len(s.block))
	seg, bytes := s.last()
	if bytes+n > s.opt.MaxBytes {
		return errBound
	}
	if seg.end > seg.base && seg.size()+n > s.opt.SegmentBytes {
		if err := s.rotate(seg.end); err != nil {
			return err
		}
		seg, _ = s.last()
	}
	if err := s.write(seg.size()); err != nil {
		return err
	}
	s.publish(c, n)
	return nil
}

// write writes the block at a place in the active segment. If it cannot, what
// was half written is cut off again.
func (s *Spool) write(at int64) error {
	if s.torn {
		if err := s.cut(at); err != nil {
			return err
		}
	}
	_, err := s.active.WriteAt(s.block, at)
	if err == nil {
		return nil
	}
	_ = s.cut(at)
	return sysexits.Wrap(sysexits.IO, err)
}

// cut cuts the active segment off at its end. Where that fails, it is torn
// until a later cut does not.
func (s *Spool) cut(at int64) error {
	err := s.active.Truncate(at)
	s.torn = err != nil
	return sysexits.Wrap(sysexits.IO, err)
}

// publish makes a block of n bytes known that has been written.
func (s *Spool) publish(c *logsource.Chunk, n int64) {
	s.mu.Lock()
	seg := &s.segments[len(s.segments)-1]
	seg.end += n
	s.bytes += n
	s.stats.Puts++
	s.remember(c.Key, c.State)
	s.end.Store(seg.end)
	for _, r := range s.readers {
		r.poke()
	}
	s.mu.Unlock()
	token(s.dirty)
}

// remember keeps the state of a source.
func (s *Spool) remember(key string, state []byte) {
	old, known := s.states[key]
	if known {
		s.table -= entrySize(key, old)
	}
	if len(state) == 0 {
		delete(s.states, key)
		return
	}
	s.table += entrySize(key, state)
	if known && len(old) == len(state) { // in place: no allocation for a map entry
		copy(old, state)
		return
	}
	s.states[key] = append(old[:0], state...)
}

// last is the active segment, and how many bytes all have.
func (s *Spool) last() (segment, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.segments[len(s.segments)-1], s.bytes
}

// isFull reports whether an error goes away when there is room.
func isFull(err error) bool {
	return err != nil && (err == errBound || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && !errors.Is(err, errFinal)
}

// makeRoom is for the case that all that is there has been released, and the
// active segment alone is what fills the disk or the bound: then a new one is
// begun. It returns whether there may be room now.
func (s *Spool) makeRoom() bool {
	s.mu.Lock()
	seg := s.segments[len(s.segments)-1]
	use := s.released == seg.end && seg.end > seg.base
	s.mu.Unlock()
	if !use || s.rotate(seg.end) != nil {
		return false
	}
	s.reclaim()
	return true
}

// beginWait says once that Put waits, and why.
func (s *Spool) beginWait(why error) {
	disk := why != errBound
	s.mu.Lock()
	first := s.wait.since.IsZero()
	changed := !first && s.wait.disk != disk
	if first {
		s.wait.since = time.Now()
		s.stats.Waits++
	}
	s.wait.disk = disk
	bytes := s.bytes
	s.mu.Unlock()
	switch {
	case !first && !changed:
	case disk:
		s.opt.Log.Warn("the disk of the spool is full; the sources wait for room", "dir", s.opt.Dir, "spool_bytes", bytes, "error", why.Error())
	default:
		s.opt.Log.Warn("the spool has its full size; the sources wait for the databases", "dir", s.opt.Dir, "spool_bytes", bytes)
	}
}

func (s *Spool) endWait() {
	s.mu.Lock()
	since := s.wait.since
	if since.IsZero() {
		s.mu.Unlock()
		return
	}
	took := time.Since(since)
	s.wait = waiting{}
	s.stats.WaitTime += took
	s.mu.Unlock()
	s.opt.Log.Info("the sources no longer wait for room in the spool", "dir", s.opt.Dir, "seconds", took.Seconds())
}

// waitRoom waits until something was released, or delay is over.
func (s *Spool) waitRoom(ctx context.Context, delay time.Duration) error {
	if s.timer == nil {
		s.timer = time.NewTimer(delay)
	} else {
		s.timer.Reset(delay)
	}
	defer s.timer.Stop()
	select {
	case <-s.room:
	case <-s.timer.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return s.why()
	}
	return nil
}

// token puts a token where there is none.
func token(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// header is the header of the next segment.
func (s *Spool) header(base int64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	prev := base
	if len(s.segments) > 0 {
		prev = s.segments[len(s.segments)-1].end
	}
	return appendHeader(slices.Grow([]byte(nil), headMin+int(s.table)), &header{id: s.id, base: base, prev: prev, states: s.states})
}
