package spool

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// errFinal: nothing may follow this error.
var errFinal = errors.New("the spool's state on the disk is not known; restart the program")

// syncLoop syncs what is put, SyncEvery after the first of it came.
func (s *Spool) syncLoop() {
	defer close(s.ended)
	timer := time.NewTimer(s.opt.SyncEvery)
	defer timer.Stop()
	for {
		select {
		case <-s.dirty:
		case <-s.done:
			return
		}
		timer.Reset(s.opt.SyncEvery)
		select {
		case <-timer.C:
		case <-s.done: // Close syncs
			return
		}
		if s.SyncTo(s.End()) != nil { // all calls say it
			return
		}
		s.keepSpare()
	}
}

// SyncTo returns when everything before an offset is on the disk.
func (s *Spool) SyncTo(offset int64) error {
	if offset <= s.synced.Load() {
		return nil
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if offset <= s.synced.Load() { // somebody else has, meanwhile
		return nil
	}
	if err := s.why(); err != nil {
		return err
	}
	if end := s.End(); offset > end {
		return sysexits.Wrap(sysexits.Data, &OffsetError{offset, s.Begin(), end, ErrAhead})
	}
	return s.syncActive()
}

// syncActive syncs the active segment. Whoever calls it has syncing.
func (s *Spool) syncActive() error {
	end := s.End()
	if end == s.synced.Load() {
		return nil
	}
	begun := time.Now()
	if err := dataSync(s.active); err != nil {
		return s.fail(err)
	}
	took := time.Since(begun)
	s.synced.Store(end)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Syncs++
	s.stats.SyncTime += took
	s.stats.SyncMax = max(s.stats.SyncMax, took)
	return nil
}

// fail ends everything because of an error after which it is not known what
// is on the disk.
func (s *Spool) fail(err error) error {
	err = sysexits.Errorf(sysexits.IO, "%s: %w; %w", s.opt.Dir, err, errFinal)
	if s.active != nil {
		// What the kernel could not write may still be in its cache, marked as
		// written. The next process must not take that for what is on the disk.
		_ = unix.Fadvise(int(s.active.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	if s.finish(err) {
		s.opt.Log.Error("the spool has failed", "error", err.Error())
	}
	return err
}

// dataSync is fdatasync(2), which includes the length of the file.
func dataSync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("fdatasync %s: %w", f.Name(), err)
		}
	}
}
