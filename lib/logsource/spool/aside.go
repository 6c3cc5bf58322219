package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxMet bounds the damaged places that are remembered, so that several
// readers count each once.
const maxMet = 10000

// setAside copies a damaged part of a segment's file, file positions from to
// to, into a file beside it, counts it, and says what, once. It does its best:
// no copy because of a full disk is no reason not to go on.
func (s *Spool) setAside(f *os.File, path string, from, to int64, what string) {
	aside := fmt.Sprintf("%s-%08x%s", strings.TrimSuffix(path, segmentSuffix), from, damagedSuffix)
	s.mu.Lock()
	known := s.met[aside]
	if !known {
		s.stats.Damages++
		if len(s.met) < maxMet {
			s.met[aside] = true
		}
	}
	room := s.opt.MaxBytes/8 - s.aside
	s.mu.Unlock()
	if known {
		return
	}
	n, err := int64(0), errors.New("enough has been set aside")
	if to-from <= room {
		n, err = copyAside(f, aside, from, to)
	}
	if errors.Is(err, fs.ErrExist) { // by an earlier process, which said so
		return
	}
	if err != nil {
		s.opt.Log.Warn(what+"; it could not be set aside", "file", path, "at", from, "bytes", to-from, "error", err.Error())
		return
	}
	s.mu.Lock()
	s.stats.SetAside++
	s.aside += n
	s.mu.Unlock()
	s.opt.Log.Warn(what, "file", path, "at", from, "bytes", to-from, "set_aside", aside)
}

func copyAside(f *os.File, aside string, from, to int64) (n int64, err error) {
	out, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(out, io.NewSectionReader(f, from, to-from))
	if err == nil {
		err = out.Sync()
	}
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(aside)
	}
	return n, err
}

// wholeAside sets a whole file aside, by its name: that needs no room.
func (s *Spool) wholeAside(path string, size int64, what string) error {
	aside := strings.TrimSuffix(path, segmentSuffix) + damagedSuffix
	for i := 1; ; i++ {
		err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, aside, unix.RENAME_NOREPLACE)
		if err == unix.EINVAL || err == unix.ENOSYS { // a file system that does not know the flag
			err = os.Rename(path, aside)
		}
		if err == nil {
			break
		}
		if err != unix.EEXIST {
			return &os.PathError{Op: "rename", Path: path, Err: err}
		}
		aside = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(path, segmentSuffix), i, damagedSuffix)
	}
	s.stats.Damages++
	s.stats.SetAside++
	s.aside += size
	s.opt.Log.Warn(what, "file", path, "bytes", size, "set_aside", filepath.Base(aside))
	return nil
}

// zeros reports whether a part of a file, or what there is of it, has nothing
// but zeros: room that was never written to.
func zeros(f io.ReaderAt, from, to int64) (bool, error) {
	b := make([]byte, 64<<10)
	r := io.NewSectionReader(f, from, to-from)
	for {
		n, err := r.Read(b)
		for _, c := range b[:n] {
			if c != 0 {
				return false, nil
			}
		}
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}
