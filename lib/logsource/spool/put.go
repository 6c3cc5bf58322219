package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/safeio"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// Put writes a chunk. See logsource.Sink.
func (s *Spool) Put(ctx context.Context, c *logsource.Chunk) error {
	if err := checkChunk(c); err != nil {
		return err
	}
	end, err := s.put(ctx, c)
	if err == nil && s.o.SyncEach {
		err = s.SyncTo(end)
	}
	return err
}

func checkChunk(c *logsource.Chunk) error {
	n := len(c.Lines)
	switch {
	case len(c.Key) == 0 || len(c.Key) > logsource.MaxKey, len(c.State) > logsource.MaxState, n > logsource.MaxChunk,
		n > 0 && c.Lines[n-1] != '\n':
		return sysexits.Errorf(sysexits.Bug, "spool: a chunk of key %.40q with %d bytes of state and %d of lines", c.Key, len(c.State), n)
	}
	return nil
}

// put writes a chunk, when there is room.
func (s *Spool) put(ctx context.Context, c *logsource.Chunk) (end int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := s.usable(); err != nil {
			return 0, err
		}
		s.buf = appendChunk(s.buf[:0], c)
		why := s.write()
		if why == nil {
			break
		}
		if !noRoom(why) {
			return 0, fail(s.o.Dir, sysexits.IO, why)
		}
		if err := s.wait(ctx, why); err != nil {
			return 0, err
		}
	}
	if !s.waiting.IsZero() {
		s.o.Log.Info("the spool has room again", "waited", time.Since(s.waiting).Round(time.Second))
		s.waiting, s.why = time.Time{}, ""
	}
	if c.State != nil {
		s.keepState(c.Key, c.State)
	}
	select {
	case s.dirty <- struct{}{}:
	default:
	}
	if s.asleep {
		close(s.wake)
		s.wake, s.asleep = make(chan struct{}), false
	}
	return s.end(), nil
}

func (s *Spool) usable() error {
	if s.failed != nil {
		return s.failed
	}
	if s.closed {
		return sysexits.Wrap(sysexits.Unavailable, errClosed)
	}
	return nil
}

func (s *Spool) keepState(key string, state []byte) {
	if _, ok := s.states[key]; !ok && len(s.states) >= maxKeys {
		for old := range s.states { // any: so many sources are a mistake
			delete(s.states, old)
			break
		}
	}
	s.states[key] = append([]byte(nil), state...)
}

type boundError struct{ used, most int64 }

func (e boundError) Error() string {
	return fmt.Sprintf("%d MB are in use, and maillog_spool_size allows %d MB", e.used>>20, e.most>>20)
}

func noRoom(err error) bool {
	var b boundError
	return errors.As(err, &b) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// wait waits until there may be room. It gives the lock back meanwhile.
func (s *Spool) wait(ctx context.Context, why error) error {
	if s.waiting.IsZero() {
		s.waiting = time.Now()
		s.o.Log.Warn("the spool has no room: sources wait", "reason", why)
	}
	s.why = why.Error()
	room := s.room
	s.mu.Unlock()
	defer s.mu.Lock()
	t := time.NewTimer(roomRetry) // nobody tells when a disk has room again
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-room:
	case <-t.C:
	case <-s.stop:
	}
	return nil
}

// write writes s.buf as a block to the active segment, or to a new one. What
// could be written only in part is cut back.
func (s *Spool) write() error {
	active := &s.segs[len(s.segs)-1]
	if err := s.cutBack(); err != nil {
		return err
	}
	n := int64(len(s.buf))
	if n > s.o.MaxBytes/2 {
		return fmt.Errorf("a chunk of %d bytes is too much for a spool of %d", n, s.o.MaxBytes)
	}
	if used := s.bytes(); used+n > s.o.MaxBytes {
		return boundError{used, s.o.MaxBytes}
	}
	if active.end-active.base+n > s.o.SegmentBytes && active.end-active.base > s.o.SegmentBytes/2 {
		if err := s.next(active.end); err != nil {
			return err
		}
		active = &s.segs[len(s.segs)-1]
	}
	if _, err := s.file.WriteAt(s.buf, active.end-active.base); err != nil {
		s.torn = true
		return errors.Join(err, s.cutBack())
	}
	active.end += n
	return nil
}

// cutBack takes away what a failed write has left behind the end.
func (s *Spool) cutBack() error {
	if !s.torn {
		return nil
	}
	active := s.segs[len(s.segs)-1]
	if err := s.file.Truncate(active.end - active.base); err != nil {
		return err
	}
	s.torn = false
	return nil
}

func (s *Spool) bytes() (n int64) {
	for _, g := range s.segs {
		n += g.end - g.base
	}
	return n
}

func (s *Spool) path(base int64) string {
	return filepath.Join(s.o.Dir, fmt.Sprintf("%016x%s", base, suffix))
}

// next begins a new segment at base. Whatever fails, the old one stays the
// active one, and what was made of the new one is taken away, or is found to
// be empty by the next Open.
func (s *Spool) next(base int64) error {
	block := appendStates(appendHeader(nil, s.id, base), s.states)
	path := s.path(base)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(block, 0); err == nil && s.file != nil {
		err = s.file.Sync() // only the last segment may have a tail that is not synced
		s.noteSync(err)
	}
	if err == nil {
		err = f.Sync()
		s.noteSync(err)
	}
	if err == nil {
		err = safeio.SyncDir(s.o.Dir)
		s.noteSync(err)
	}
	if err != nil {
		f.Close()
		_ = os.Remove(path)
		if s.failed != nil {
			return s.failed
		}
		return err
	}
	if s.file != nil {
		s.file.Close()
	}
	s.file = f
	s.segs = append(s.segs, segment{base, base + int64(len(block))})
	s.synced = s.end()
	return nil
}
