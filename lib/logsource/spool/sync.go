package spool

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// SyncTo returns when all before an offset is on the disk.
func (s *Spool) SyncTo(offset int64) error {
	s.mu.Lock()
	done, err := s.synced >= offset, s.failed
	s.mu.Unlock()
	if done || err != nil {
		return err
	}
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.mu.Lock()
	f, end, base := s.file, s.end(), s.segs[len(s.segs)-1].base
	done, err = s.synced >= offset, s.failed
	s.mu.Unlock()
	if done || err != nil {
		return err
	}
	begun := time.Now()
	err = unix.Fdatasync(int(f.Fd()))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.segs[len(s.segs)-1].base != base {
		return s.failed // another segment was begun, which has synced this one
	}
	if err != nil {
		s.noteSync(err)
		return s.failed
	}
	s.syncs++
	s.syncTime += time.Since(begun)
	s.synced = max(s.synced, end)
	return nil
}

func (s *Spool) syncNowAndThen() {
	defer s.syncer.Done()
	t := time.NewTimer(s.o.SyncEvery)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.dirty:
		}
		t.Reset(s.o.SyncEvery)
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		if err := s.SyncTo(s.End()); err != nil {
			s.o.Log.Error("the spool fails", "reason", err)
			return
		}
	}
}

// noteSync makes the failure of a sync final.
func (s *Spool) noteSync(err error) {
	if err == nil || s.failed != nil || errors.Is(err, os.ErrClosed) {
		return
	}
	s.failed = sysexits.Errorf(sysexits.IO, "spool %s: %w: %w; what is on the disk counts after a restart", s.o.Dir, ErrFailed, err)
}
