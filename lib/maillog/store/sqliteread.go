package store

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/store/lite"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// reader is a connection that reads. While a write-ahead log lies beside the
// database it is an ordinary read-only one. Without one nobody has changed the
// file since it was closed, and SQLite would make the log's files just to
// read; so the file is opened as immutable, which makes nothing and works on
// a read-only medium, and each piece of work is looked at afterwards: had the
// file stayed as it was?
type reader struct {
	c       *lite.Conn
	schema  *schema
	rawRows rowReader

	file   os.FileInfo
	frozen bool // opened as immutable
}

// readWait is how long a reader waits for a lock. With a write-ahead log that
// is but for moments, as when the log is recovered after a crash.
const readWait = 5 * time.Second

// maxIdle is how many readers are kept open between searches.
const maxIdle = 4

// readers are those that nobody uses at the moment.
type readers struct {
	mu   sync.Mutex
	all  []*reader
	shut bool
}

func (p *readers) get() *reader {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.all)
	if n == 0 {
		return nil
	}
	r := p.all[n-1]
	p.all = p.all[:n-1]
	return r
}

func (p *readers) put(r *reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut || len(p.all) >= maxIdle {
		_ = r.c.Close()
		return
	}
	p.all = append(p.all, r)
}

func (p *readers) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = true
	var err error
	for _, r := range p.all {
		err = errors.Join(err, r.c.Close())
	}
	p.all = nil
	return err
}

// hasLog reports whether there is a write-ahead log with something in it.
func (db *sqliteDB) hasLog() bool {
	st, err := os.Stat(db.path + "-wal")
	return err == nil && st.Size() > 0
}

// openReader opens the database for reading, and looks whether it is one.
func (db *sqliteDB) openReader() (*reader, error) {
	st, err := os.Stat(db.path)
	if err != nil {
		return nil, db.missing(err)
	}
	if !st.Mode().IsRegular() {
		return nil, sysexits.Errorf(sysexits.Data, "%s: not a file; name a database file", db.path)
	}
	if err := db.looksRight(st.Size()); err != nil {
		return nil, err
	}
	if st.Size() == 0 && !db.hasLog() {
		return nil, sysexits.Errorf(sysexits.Data,
			"%s: an empty file, no database; rol-logpipe --db %[1]s LOGFILE makes one", db.path)
	}
	r := &reader{file: st, frozen: !db.hasLog()}
	query := "mode=ro"
	if r.frozen {
		query = "mode=ro&immutable=1"
	}
	if r.c, err = lite.Open(uri(db.path, query), lite.ReadOnly); err == nil {
		r.c.BusyTimeout(readWait)
		err = r.setUp(db)
	}
	if err == nil {
		return r, nil
	}
	if r.c != nil {
		_ = r.c.Close()
	}
	if code := lite.Code(err); code == lite.CantOpen || code == lite.ReadOnlyDB {
		return nil, sysexits.Errorf(sysexits.NoPerm,
			"%s: opening: %w; what lies in %[1]s-wal is not yet in the file and the directory is not writable: "+
				"run this as the user who writes the database, or copy both to a writable directory", db.path, err)
	}
	return nil, db.fail(context.Background(), "opening", err)
}

// looksRight looks at the file before SQLite does. A writer has done so; it
// must not open and close the file once more, which would end its own locks.
func (db *sqliteDB) looksRight(size int64) error {
	if db.mode == ReadWrite {
		return nil
	}
	f, err := os.Open(db.path)
	if err != nil {
		return db.missing(err)
	}
	defer f.Close()
	return db.checkMagic(f, size)
}

func (r *reader) setUp(db *sqliteDB) error {
	for _, p := range []string{"PRAGMA query_only = 1", "PRAGMA cache_size = -16384"} {
		if err := r.c.Exec(p); err != nil {
			return err
		}
	}
	empty, err := db.checkVersion(r.c)
	if err != nil {
		return err
	}
	if empty {
		return sysexits.Errorf(sysexits.Data,
			"%s: an SQLite database without tables; rol-logpipe --db %[1]s LOGFILE fills it", db.path)
	}
	return nil
}

// current reports whether r still shows the database as it is.
func (db *sqliteDB) current(r *reader) bool {
	st, err := os.Stat(db.path)
	if err != nil || !os.SameFile(st, r.file) {
		return false
	}
	return !r.frozen || !db.hasLog() && st.Size() == r.file.Size() && st.ModTime().Equal(r.file.ModTime())
}

// maxRetries is how often a piece of work is repeated because a writer began
// in the middle of it; a writer begins once and then has its log.
const maxRetries = 10

// read runs f on a reader, in one transaction that sees the database at one
// moment. f is run again if that moment turns out to have been none, so it
// must begin anew each time.
func (db *sqliteDB) read(ctx context.Context, f func(session) error) error {
	for range maxRetries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r := db.idle.get()
		if r != nil && !db.current(r) {
			_ = r.c.Close()
			r = nil
		}
		if r == nil {
			var err error
			if r, err = db.openReader(); err != nil {
				return err
			}
		}
		err := r.once(ctx, f)
		if !r.frozen || db.current(r) {
			if err != nil {
				_ = r.c.Close()
				return db.fail(ctx, "searching", err)
			}
			db.idle.put(r)
			return nil
		}
		_ = r.c.Close()
	}
	return sysexits.Errorf(sysexits.TryAgain, "%s: changes all the time; try again", db.path)
}

// once runs f in a read transaction.
func (r *reader) once(ctx context.Context, f func(session) error) error {
	stop := r.c.Watch(ctx)
	defer stop()
	if err := r.c.Exec("BEGIN"); err != nil {
		return err
	}
	s, err := readSchema(r.c, r.schema)
	if err == nil {
		r.schema = s
		err = f(r)
	}
	if cerr := r.c.Exec("COMMIT"); err == nil {
		err = cerr
	}
	return err
}
