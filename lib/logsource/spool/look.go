package spool

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// Info is what can be seen of a spool from outside.
type Info struct {
	ID         [16]byte
	Begin, End int64 // logical offsets; End may count a block that is just being written, or torn
	Segments   int
	Bytes      int64 // of the segments' files
	SetAside   int   // files *.damaged
	Process    int   // the id of the process that has it; 0: none has
}

// Look looks at a spool that another process may be using: it takes no lock
// and changes nothing. Where there is no spool, the error is fs.ErrNotExist.
func Look(dir string) (Info, error) {
	var in Info
	s := Spool{opt: Options{Dir: dir}}
	all, _, err := s.list()
	defer closeAll(all)
	if err != nil {
		return in, err
	}
	if len(all) == 0 {
		return in, sysexits.Wrap(sysexits.Unavailable, fmt.Errorf("%s: no spool: %w", dir, fs.ErrNotExist))
	}
	if err := s.identify(all); err != nil {
		return in, err
	}
	in = Info{ID: s.id, Begin: all[0].base, Segments: len(all), SetAside: s.stats.SetAside}
	for _, c := range all {
		in.Bytes += c.size
		in.End = max(in.End, c.base+c.size-c.head)
	}
	in.Process = user(filepath.Join(dir, lockName))
	return in, nil
}

// user is the id of the process that has a lock.
func user(path string) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	// A shared lock, so that several who look do not see each other. Who opens
	// the spool at this moment tries again.
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != unix.EWOULDBLOCK {
		return 0
	}
	return signed(f)
}
