package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
	"github.com/rolmail/rolmail/lib/sysexits"
)

const (
	walPages     = 8 << 20 / pageSize // the write-ahead log is copied home at this size
	walKeep      = 64 << 20           // and cut to this, in bytes
	cacheKiB     = 24 << 10           // page cache
	sortKiB      = 4 << 10            // and while indexes are built, which are sorted in as much
	maxPositions = 10000
	keepCommits  = 128   // of changes
	maxChanged   = 16384 // ids kept of one commit
	maxDayStmts  = 16    // days with statements at hand
	busyPoll     = 20 * time.Millisecond
)

// writer is the connection that writes.
type writer struct {
	c      *lite.Conn
	schema *schema
	days   map[string]*dayStmts
	other  map[string]*lite.Stmt // by SQL

	changed []byte // what this commit has touched, for table changes
}

// dayStmts are the statements for one day's table.
type dayStmts struct {
	insert, update, remove *lite.Stmt
}

func (d *dayStmts) close() {
	for _, s := range []*lite.Stmt{d.insert, d.update, d.remove} {
		if s != nil {
			s.Close()
		}
	}
}

// openWriter opens, and if need be makes, the database.
func (db *sqliteDB) openWriter() error {
	c, err := lite.Open(uri(db.path, ""), lite.Create)
	if err != nil {
		return db.fail(context.Background(), "opening", err)
	}
	w := &writer{c: c, days: map[string]*dayStmts{}, other: map[string]*lite.Stmt{}}
	if err := db.setUp(w); err != nil {
		_ = w.close()
		return db.fail(context.Background(), "opening", err)
	}
	db.w = w
	return nil
}

// writable opens the file, and looks at what SQLite would only call "unable to
// open".
func (db *sqliteDB) writable() (*os.File, error) {
	f, err := os.OpenFile(db.path, os.O_RDWR|os.O_CREATE, 0o640)
	if err == nil {
		st, err := f.Stat()
		if err != nil || !st.Mode().IsRegular() {
			return f, sysexits.Errorf(sysexits.CannotMake, "%s: not a file; name a file in a directory that exists", db.path)
		}
		return f, db.checkMagic(f, st.Size())
	}
	status, advice := sysexits.CannotMake, "name a file in a directory that exists"
	if errors.Is(err, os.ErrPermission) {
		status, advice = sysexits.NoPerm, "see to the permissions of the file and its directory"
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return nil, sysexits.Errorf(status, "%s: cannot open the database for writing: %w; %s", db.path, err, advice)
}

// setUp brings a new connection, and a new file, into the state it works in.
func (db *sqliteDB) setUp(w *writer) error {
	c := w.c
	c.BusyTimeout(db.wait)
	empty, err := db.checkVersion(c)
	if err != nil {
		return err
	}
	pragmas := []string{
		"PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA temp_store = FILE",
		fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", walPages),
		fmt.Sprintf("PRAGMA journal_size_limit = %d", walKeep),
	}
	if empty {
		pragmas = append([]string{fmt.Sprintf("PRAGMA page_size = %d", pageSize)}, pragmas...)
	}
	for _, p := range pragmas {
		if err := c.Exec(p); err != nil {
			return err
		}
	}
	if err := w.cache(cacheKiB); err != nil || !empty {
		return err
	}
	return w.transaction(context.Background(), db.wait, func() error {
		if empty, err := db.checkVersion(c); err != nil || !empty {
			return err // another writer was quicker
		}
		for _, sql := range sqliteTables {
			if err := c.Exec(sql); err != nil {
				return err
			}
		}
		return c.Exec(fmt.Sprintf("INSERT INTO meta VALUES ('schema', %d)", sqliteVersion))
	})
}

// cache sets how much of the file is kept in memory.
func (w *writer) cache(kib int) error { return w.c.Exec(fmt.Sprintf("PRAGMA cache_size = -%d", kib)) }

func (w *writer) close() error {
	w.forget()
	for _, s := range w.other {
		s.Close()
	}
	return w.c.Close()
}

// forget closes the days' statements.
func (w *writer) forget() {
	for day, d := range w.days {
		d.close()
		delete(w.days, day)
	}
}

// transaction runs f in a transaction. It waits for another process's.
func (w *writer) transaction(ctx context.Context, wait time.Duration, f func() error) error {
	if err := w.begin(ctx, wait); err != nil {
		return err
	}
	stop := w.c.Watch(ctx)
	defer stop()
	s, err := readSchema(w.c, w.schema)
	if err == nil {
		if s != w.schema { // a day was made or dropped, perhaps by somebody else
			w.forget()
			w.schema = s
		}
		err = f()
	}
	if err == nil {
		err = w.c.Exec("COMMIT")
	}
	if err != nil {
		stop()
		w.forget()
		w.schema = nil
		if !w.c.Autocommit() {
			if rerr := w.c.Exec("ROLLBACK"); rerr != nil {
				return errors.Join(err, rerr)
			}
		}
	}
	return err
}

// begin takes the write lock. It asks again by itself, and not by SQLite's
// busy timeout, to hear of ctx meanwhile.
func (w *writer) begin(ctx context.Context, wait time.Duration) error {
	w.c.BusyTimeout(0)
	defer w.c.BusyTimeout(wait)
	deadline := time.Now().Add(wait)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := w.c.Exec("BEGIN IMMEDIATE")
		if code := lite.Code(err); code != lite.Busy && code != lite.Locked || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(busyPoll):
		}
	}
}

// stmt returns a statement that is kept.
func (w *writer) stmt(sql string) (*lite.Stmt, error) {
	if s := w.other[sql]; s != nil {
		return s, nil
	}
	s, err := w.c.Prepare(sql)
	if err == nil {
		w.other[sql] = s
	}
	return s, err
}

func (db *sqliteDB) commit(ctx context.Context, b *Batch) error {
	if err := db.moved(); err != nil {
		return err
	}
	w := db.w
	err := w.transaction(ctx, db.wait, func() error {
		w.changed = w.changed[:0]
		for _, put := range []func(*Batch) error{w.putRows, w.deleteRows, w.putState, w.putPositions} {
			if err := put(b); err != nil {
				return err
			}
		}
		return w.logChanges()
	})
	return db.fail(ctx, "writing", err)
}

// putRows inserts or updates rows, in the order of their ids: a day's table
// grows at its end.
func (w *writer) putRows(b *Batch) error {
	rows := b.Rows
	byID := func(a, b *flat.Row) int { return slices.Compare(a.ID[:], b.ID[:]) }
	if !slices.IsSortedFunc(rows, byID) {
		rows = slices.Clone(rows)
		slices.SortStableFunc(rows, byID)
	}
	var d *dayStmts
	var err error
	last := int64(-1)
	for _, r := range rows {
		if n := r.ID.UnixMilli() / 86400000; n != last || d == nil {
			if d, err = w.day(dayOfID(r.ID), true); err != nil {
				return err
			}
			last = n
		}
		bindRow(d.insert, r)
		if err := d.insert.Run(); err != nil {
			return err
		}
		if w.c.Changes() > 0 {
			w.note(r.ID, rowNew)
			continue
		}
		bindRow(d.update, r)
		if err := d.update.Run(); err != nil {
			return err
		}
		if w.c.Changes() > 0 {
			w.note(r.ID, rowChanged)
		}
	}
	return nil
}

// day returns the statements for a day, whose table is made if need be. nil:
// there is none, and none is to be made.
func (w *writer) day(day string, create bool) (*dayStmts, error) {
	if d := w.days[day]; d != nil {
		return d, nil
	}
	if !slices.Contains(w.schema.days, day) {
		if !create {
			return nil, nil
		}
		for _, sql := range newDay(day) {
			if err := w.c.Exec(sql); err != nil {
				return nil, err
			}
		}
		w.schema = w.schema.added(day)
	}
	if len(w.days) >= maxDayStmts {
		w.forget()
	}
	d := &dayStmts{}
	for _, p := range []struct {
		s   **lite.Stmt
		sql string
	}{
		{&d.insert, insertRow(day)},
		{&d.update, updateRow(day)},
		{&d.remove, "DELETE FROM " + dayTable(day) + " WHERE id = ?1"},
	} {
		s, err := w.c.Prepare(p.sql)
		if err != nil {
			d.close()
			return nil, err
		}
		*p.s = s
	}
	w.days[day] = d
	return d, nil
}

func (w *writer) deleteRows(b *Batch) error {
	for _, id := range b.Delete {
		d, err := w.day(dayOfID(id), false)
		if err != nil {
			return err
		}
		if d == nil {
			continue
		}
		d.remove.BindBlob(1, id[:])
		if err := d.remove.Run(); err != nil {
			return err
		}
		if w.c.Changes() > 0 {
			w.note(id, rowGone)
		}
	}
	return nil
}

func (w *writer) putState(b *Batch) error {
	for _, ch := range b.State {
		sql := "INSERT INTO state VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET data = ?2 WHERE data IS NOT ?2"
		if ch.Data == nil {
			sql = "DELETE FROM state WHERE key = ?1"
		}
		s, err := w.stmt(sql)
		if err != nil {
			return err
		}
		s.BindBlob(1, ch.Key)
		if ch.Data != nil {
			s.BindBlob(2, ch.Data)
		}
		if err := s.Run(); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) putPositions(b *Batch) error {
	for _, p := range b.Positions {
		s, err := w.stmt(`INSERT INTO positions VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (prefix) DO UPDATE
			SET prefix_len = ?2, byte_offset = ?3, name = ?4, updated = ?5
			WHERE prefix_len <> ?2 OR byte_offset <> ?3 OR name IS NOT ?4`)
		if err != nil {
			return err
		}
		s.BindBlob(1, p.Prefix[:])
		s.BindInt(2, p.PrefixLen)
		s.BindInt(3, p.Offset)
		s.BindText(4, p.Name)
		s.BindInt(5, p.Updated)
		if err := s.Run(); err != nil {
			return err
		}
	}
	return nil
}

// What happened to a row, in table changes.
const (
	rowNew     = 'n'
	rowChanged = 'c'
	rowGone    = 'd'
)

const changeLen = 1 + len(flat.ID{})

func (w *writer) note(id flat.ID, what byte) {
	w.changed = append(append(w.changed, what), id[:]...)
}

// logChanges writes which rows the transaction has touched: one value for all
// of them, and only the last commits', so that it costs next to nothing. Of a
// huge commit the newest are kept; that some are missing is told by the gap
// in seq.
func (w *writer) logChanges() error {
	if len(w.changed) == 0 {
		return nil
	}
	step := int64(1)
	if len(w.changed) > maxChanged*changeLen {
		w.changed = w.changed[len(w.changed)-maxChanged*changeLen:]
		step = 2
	}
	last, err := w.c.Int("SELECT max(seq) FROM changes")
	if err != nil {
		return err
	}
	s, err := w.stmt("INSERT INTO changes VALUES (?1, ?2)")
	if err != nil {
		return err
	}
	s.BindInt(1, last+step)
	s.BindBlob(2, w.changed)
	if err := s.Run(); err != nil {
		return err
	}
	s, err = w.stmt("DELETE FROM changes WHERE seq <= ?1")
	if err != nil {
		return err
	}
	s.BindInt(1, last+step-keepCommits)
	return s.Run()
}
