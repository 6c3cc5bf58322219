// Package store keeps the flat maillog: it takes the rows that package trace
// finds and finds them again.
//
// # What it holds
//
// One SQLite file. A table maillog_YYYYMMDD for each UTC day that has rows,
// with the columns of flat.Columns, clustered by id. The id begins with the
// time of the row's first line, so a table grows at its end, rows of a time
// span lie together, and "newest first" is a walk backwards. Beside the days:
// positions (how far each input has been read), state (what the tracer has
// open), changes (which rows the last commits have touched, for followers) and
// meta (the version of all this).
//
// # What bounds it
//
// Day tables grow until somebody drops them; whoever searches finds out from
// sqlite_schema which there are. Positions are pruned to the newest
// maxPositions, changes to the last keepCommits. A search holds a page of rows
// and at most maxSpan ids, however many rows it passes.
//
// # What happens on restart
//
// A Batch is one transaction: rows, deletions, open state and input positions
// are there together or not at all, so a writer that was killed goes on where
// its last batch ended. The journal is a write-ahead log, so that searches and
// the writer do not wait for each other, and each commit is synced
// (synchronous=FULL): what was committed survives a power failure, and an
// input that is acknowledged after the commit may be thrown away. At 5,000
// rows a commit the sync costs less than a tenth.
//
// A new day's table has only those secondary indexes that hold few rows until
// Finish, which sorts the others once instead of growing them row by row. A search of a day without them
// reads all of it; a day that a killed run left so is completed by the next
// Finish. Days that have their indexes keep them.
//
// # What a tenant sees
//
// Query.Domain is a boundary, not a filter for convenience: everything that
// leaves this package for a query with a domain has passed tenant.view.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/store/lite"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// Mode says what a database is opened for.
type Mode int

const (
	// ReadOnly never creates or changes anything, and works on a read-only
	// medium.
	ReadOnly Mode = iota
	// ReadWrite creates the database if it is not there.
	ReadWrite
)

// busyWait is how long a writer waits for another one. Building an index over
// a day of ten million rows takes about 20 s.
const busyWait = 60 * time.Second

// DB is a database of flat rows. One goroutine at a time may write (Commit,
// Finish); any number may search meanwhile.
type DB struct {
	path string
	wait time.Duration

	mu sync.Mutex // the writer's
	w  *writer    // nil when opened read-only

	idle readers
}

// Open opens the database at where: "sqlite:/path", or a path alone.
func Open(where string, mode Mode) (*DB, error) {
	path, err := sqlitePath(where)
	if err != nil {
		return nil, err
	}
	db := &DB{path: path, wait: busyWait}
	if mode == ReadWrite {
		if err := db.openWriter(); err != nil {
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

// Close closes the database. Searches must have ended.
func (db *DB) Close() error {
	err := db.idle.close()
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.w != nil {
		err = errors.Join(err, db.w.close())
		db.w = nil
	}
	return err
}

// Path is the database's file.
func (db *DB) Path() string { return db.path }

// sqlitePath takes the path out of type:where.
func sqlitePath(where string) (string, error) {
	path, ok := strings.CutPrefix(where, "sqlite:")
	if !ok {
		if typ, _, isType := strings.Cut(where, ":"); isType && !strings.Contains(typ, "/") {
			return "", sysexits.Errorf(sysexits.Config, "database %q: type %q is not known; want sqlite:/path", where, typ)
		}
	}
	if path == "" {
		return "", sysexits.Errorf(sysexits.Config, "database %q: a path is missing; want sqlite:/path", where)
	}
	if strings.ContainsRune(path, 0) {
		return "", sysexits.Errorf(sysexits.Config, "database %q: a path cannot hold a NUL", where)
	}
	return path, nil
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
func (db *DB) checkMagic(f *os.File, size int64) error {
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
func (db *DB) fail(ctx context.Context, doing string, err error) error {
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
func (db *DB) missing(err error) error {
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
