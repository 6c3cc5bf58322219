package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/maillog/store/lite"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// busyWait is how long a writer waits for another program's transaction.
// Building an index over a day of ten million rows takes about 20 s.
const busyWait = 60 * time.Second

// sqliteDB is the SQLite kind of database: one file.
type sqliteDB struct {
	path string
	wait time.Duration
	mode Mode

	w      *writer  // nil when opened read-only
	lock   *os.File // held by the writer; see lockFile
	closed bool

	idle readers
}

// openSQLite opens the database file at path.
func openSQLite(path string, mode Mode) (*sqliteDB, error) {
	db := &sqliteDB{path: path, wait: busyWait, mode: mode}
	if mode == ReadWrite {
		if err := db.openLocked(); err != nil {
			return nil, err
		}
		return db, nil
	}
	r, err := db.openReader()
	if err != nil {
		return nil, err
	}
	db.idle.put(r)
	return db, nil
}

// openLocked opens the database for writing, with the lock that keeps others
// from it.
func (db *sqliteDB) openLocked() error {
	f, err := db.writable()
	if err == nil {
		err = db.lockFile(f)
	}
	if err == nil {
		err = db.openWriter()
	}
	if err != nil && f != nil {
		_ = f.Close()
		return err
	}
	db.lock = f
	return err
}

// lockFile keeps a second writer out of a database: both would go on from the
// same positions and open state, and the one that ends last would take the
// other's back. Readers do not care.
//
// It is flock(2) on the database's file, which is independent of the fcntl(2)
// locks that SQLite takes on it. Those end when any descriptor of the file is
// closed, so this one is closed after the database, also when there is an
// error.
func (db *sqliteDB) lockFile(f *os.File) error {
	// A file system that has no such locks gives another error: better without
	// one than not at all.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		return sysexits.Errorf(sysexits.TryAgain,
			"%s: another rol-logpipe is writing to it; try again when that has ended", db.path)
	}
	return nil
}

// moved reports whether another file, or none, stands where the writer has
// opened one: what is written then nobody would find.
func (db *sqliteDB) moved() error {
	is, err := os.Stat(db.path)
	if err == nil && db.lock != nil {
		var was os.FileInfo
		if was, err = db.lock.Stat(); err == nil && os.SameFile(was, is) {
			return nil
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return sysexits.Errorf(sysexits.IO, "%w", err)
	}
	return sysexits.Errorf(sysexits.TryAgain, "%s: the file was moved away or removed while it was open: %w", db.path, ErrMoved)
}

// reopen opens what stands at the path now.
func (db *sqliteDB) reopen() error {
	if db.w != nil {
		// What the file that went away lacks is in a log that still has the old
		// name, and would not be copied by closing.
		_ = db.w.c.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	}
	if err := db.closeWriter(); err != nil {
		return db.fail(context.Background(), "closing", err)
	}
	return db.openLocked()
}

// closeWriter closes the writer, and then its lock.
func (db *sqliteDB) closeWriter() (err error) {
	if db.w != nil {
		err = db.w.close()
		db.w = nil
	}
	if db.lock != nil {
		err = errors.Join(err, db.lock.Close())
		db.lock = nil
	}
	return err
}

func (db *sqliteDB) writes() bool { return db.mode == ReadWrite && !db.closed }

func (db *sqliteDB) passes(error) bool { return false }

// asStored is s: SQLite keeps any bytes.
func (db *sqliteDB) asStored(s string) string { return s }

func (db *sqliteDB) close() error {
	db.closed = true
	return errors.Join(db.idle.close(), db.closeWriter())
}

// uri is the file: URI of a path.
func uri(path, query string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		abs = path
	}
	return (&url.URL{Scheme: "file", Path: abs, RawQuery: query}).String()
}

// checkMagic looks whether a file that is not empty is a database. SQLite
// takes a very short one for empty, and would write over it.
func (db *sqliteDB) checkMagic(f *os.File, size int64) error {
	const magic = "SQLite format 3\x00"
	var b [len(magic)]byte
	if n, err := f.ReadAt(b[:], 0); size > 0 && string(b[:n]) != magic {
		if err != nil && err != io.EOF {
			return sysexits.Errorf(sysexits.IO, "%w", err)
		}
		return sysexits.Errorf(sysexits.Data, "%s: file is not a database; name another file", db.path)
	}
	return nil
}

// fail words an error of SQLite's for people and gives it a status.
func (db *sqliteDB) fail(ctx context.Context, doing string, err error) error {
	if err == nil || sysexits.Status(err) != sysexits.Bug {
		return err
	}
	code := lite.Code(err)
	if ctx.Err() != nil && (code == lite.Interrupt || errors.Is(err, context.Cause(ctx))) {
		return context.Cause(ctx)
	}
	status, advice := sysexits.Bug, ""
	switch code {
	case lite.Full:
		status, advice = sysexits.IO, "; nothing is half-written: make room there and for temporary files, and run the same command again"
	case lite.IOErr:
		status, advice = sysexits.IO, "; nothing is half-written: see to the disk and run the same command again"
	case lite.NoMem:
		status = sysexits.TryAgain
	case lite.Busy, lite.Locked:
		status = sysexits.TryAgain
		advice = fmt.Sprintf("; another program has been writing for %v: try again", db.wait)
	case lite.Perm, lite.Auth, lite.ReadOnlyDB:
		status, advice = sysexits.NoPerm, "; see to the permissions of the file and its directory"
	case lite.CantOpen:
		status = sysexits.CannotMake
	case lite.NotADB:
		return sysexits.Errorf(sysexits.Data, "%s: %w; name another file", db.path, err)
	case lite.Corrupt:
		status, advice = sysexits.Data, "; the file is damaged: move it away and make it anew from the logs with rol-logpipe(8)"
	}
	return sysexits.Errorf(status, "%s: %s: %w%s", db.path, doing, err, advice)
}

// missing words the error of a database that cannot be opened by its file.
func (db *sqliteDB) missing(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist):
		return sysexits.Errorf(sysexits.Unavailable,
			"%s: no such database; rol-logpipe --db %[1]s LOGFILE makes one", db.path)
	case errors.Is(err, os.ErrPermission):
		return sysexits.Errorf(sysexits.NoPerm, "%s: permission denied; see to the permissions of the file and its directory", db.path)
	}
	return sysexits.Errorf(sysexits.IO, "%w", err)
}
