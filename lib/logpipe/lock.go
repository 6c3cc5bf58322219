package logpipe

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// lock keeps a second run out of a database: both would go on from the same
// positions and open state, and the one that ends last would take the other's
// back. Readers do not care.
//
// It is flock(2) on the database's file, which is independent of the fcntl(2)
// locks that SQLite takes on it. These end when any descriptor of the file is
// closed, so unlock must come after the database was closed, also when there
// is an error.
func lock(path string) (unlock func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return func() {}, sysexits.Wrap(sysexits.IO, err)
	}
	// A file system that has no such locks gives another error: better without
	// one than not at all.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		return func() { f.Close() }, sysexits.Errorf(sysexits.TryAgain,
			"%s: another rol-logpipe is writing to it; try again when that has ended", path)
	}
	return func() { f.Close() }, nil
}
