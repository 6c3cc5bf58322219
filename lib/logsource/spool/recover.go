package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// recover finds out what an earlier process left.
func (s *Spool) recover() error {
	bases, err := s.list()
	if err != nil {
		return err
	}
	for _, base := range bases {
		if err := s.adopt(base); err != nil {
			return err
		}
	}
	for len(s.segs) > 0 {
		ok, err := s.reopen()
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
	}
	s.id = newID()
	if err := s.next(0); err != nil {
		return fail(s.o.Dir, sysexits.CannotMake, err)
	}
	return nil
}

// list returns the segments' bases, ascending. A directory with other things
// in it, and none of ours, is none.
func (s *Spool) list() (bases []int64, err error) {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return nil, fail(s.o.Dir, sysexits.IO, err)
	}
	strange := ""
	for _, e := range entries {
		name := e.Name()
		hex, ok := strings.CutSuffix(name, suffix)
		base, err := strconv.ParseUint(hex, 16, 63)
		switch {
		case ok && err == nil && len(hex) == 16:
			bases = append(bases, int64(base))
		case name != "lock" && !strings.HasSuffix(name, ".torn") && !strings.HasPrefix(name, ".") &&
			!strings.HasSuffix(name, ".json") && !strings.HasSuffix(name, ".sock"):
			strange = name
		}
	}
	if len(bases) == 0 && strange != "" {
		return nil, sysexits.Errorf(sysexits.Config, "spool %s: holds %.60q and is no spool; name a directory of its own", s.o.Dir, strange)
	}
	slices.Sort(bases)
	return bases, nil
}

// adopt takes a segment in, if it is one of this spool.
func (s *Spool) adopt(base int64) error {
	path := s.path(base)
	f, err := os.Open(path)
	if err != nil {
		return fail(path, sysexits.IO, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fail(path, sysexits.IO, err)
	}
	b := make([]byte, headerLen)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return fail(path, sysexits.IO, err)
	}
	id, at, ok, err := parseHeader(b[:n])
	if err != nil {
		return sysexits.Errorf(sysexits.Data, "spool %s: %w", path, err)
	}
	switch last := len(s.segs) - 1; {
	case !ok || at != base:
		return s.setFileAside(base, "it has no header of a segment")
	case last >= 0 && id != s.id:
		return sysexits.Errorf(sysexits.Data, "spool %s: it belongs to another spool; move it away", path)
	case last >= 0 && base < s.segs[last].end:
		// It was to be the next one and could not be made, nor removed.
		return s.setFileAside(base, "it was begun and never used")
	}
	s.id = id
	s.segs = append(s.segs, segment{base, base + st.Size()})
	return nil
}

// setFileAside renames a segment that cannot be used.
func (s *Spool) setFileAside(base int64, why string) error {
	path := s.path(base)
	to := strings.TrimSuffix(path, suffix) + ".torn"
	st, err := os.Stat(path)
	if err == nil && st.Size() == 0 {
		err = os.Remove(path)
		if err != nil {
			return fail(path, sysexits.IO, err)
		}
		return nil
	}
	if err == nil {
		err = os.Rename(path, to)
	}
	if err != nil {
		return fail(path, sysexits.IO, err)
	}
	s.aside++
	s.o.Log.Warn("a file of the spool cannot be used and was set aside", "file", to, "bytes", st.Size(), "reason", why)
	return nil
}

// reopen makes the last segment the active one. ok is false if it has not even
// a whole table of states, which a segment gets before it is used; then it is
// gone.
func (s *Spool) reopen() (ok bool, err error) {
	g := &s.segs[len(s.segs)-1]
	path := s.path(g.base)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false, fail(path, sysexits.IO, err)
	}
	defer func() {
		if !ok {
			f.Close()
		}
	}()
	data := make([]byte, g.end-g.base)
	if _, err := f.ReadAt(data, 0); err != nil {
		return false, fail(path, sysexits.IO, err)
	}
	end := headerLen
	for end < len(data) {
		x, _, whole := parseBlock(data[end:])
		if !whole {
			break
		}
		if x.typ != withoutState {
			s.keepState(string(x.key), x.state)
		}
		end += x.size
	}
	if end < len(data) {
		if err := s.cutTail(f, g.base, data, end); err != nil {
			return false, err
		}
	}
	// What the process before wrote may be in the page cache only.
	if err := f.Sync(); err != nil {
		return false, fail(path, sysexits.IO, err)
	}
	g.end = g.base + int64(end)
	s.file = f
	return true, nil
}

// cutTail sets aside what follows the last whole block. If whole blocks follow
// the damage, they are kept: they stand in a segment of their own then.
func (s *Spool) cutTail(f *os.File, base int64, data []byte, end int) error {
	path := s.path(base)
	to := s.setAside(base+int64(end), data[end:])
	s.o.Log.Warn("the end of the spool was damaged, as after a crash; what is whole is used",
		"file", path, "bytes", len(data)-end, "set_aside", to)
	if err := f.Truncate(int64(end)); err != nil {
		return fail(path, sysexits.IO, err)
	}
	return nil
}

// setAside keeps damaged bytes for whoever wants to look, and returns where.
func (s *Spool) setAside(at int64, data []byte) string {
	s.aside++
	name := filepath.Join(s.o.Dir, fmt.Sprintf("%016x.torn", at))
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err == nil {
		_, err = f.Write(data)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return "nowhere: " + err.Error()
	}
	return name
}
