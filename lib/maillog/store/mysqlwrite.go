package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-sql-driver/mysql"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// Writing MariaDB and MySQL. A network is between, and a server that may end,
// hang or be another one the next moment.
//
// A commit is one transaction on the writer's session. It begins by moving the
// mark, the number of the last commit and its token, from what this writer
// left there: so no two writers, and no two attempts of one of them, can both
// succeed, and whoever does not find his mark learns from it whether a commit
// whose answer was lost was made. Everything else in it is absolute (rows
// replace rows, values replace values), so running it again is harmless.
//
// Many rows go by LOAD DATA LOCAL, encoded while the server reads them; where
// that is refused, by statements of at most mysqlStatement bytes. Beside a
// batch the writer holds no more than that, the ids of the rows it has touched
// and the names of the days.
//
// DDL cannot be part of a transaction: tables are made before it, indexes
// after it, and each statement is right whether it was run before or not.

const (
	// mysqlLockWait is how long the server lets a statement wait for a row's or
	// a table's lock, in seconds: less than the session may be silent.
	mysqlLockWait = 10
	// mysqlOpenWait is how long Open waits for another writer, in seconds: the
	// server may still be ending the session of one that was killed.
	mysqlOpenWait = 3
)

// mysqlMark is where a database's history is: the number of the last commit,
// and a random token of its own. The same number with another token is another
// history: that of a host which took over without this commit.
type mysqlMark struct {
	seq   int64
	token [16]byte
}

// mysqlWriter is the session that writes. It has at most one transaction open,
// within commit, and keeps nothing of a batch between two calls.
type mysqlWriter struct {
	db    *mysqlDB
	c     *mysqlpool.Conn // nil: there is none, the next use makes one
	steps []mysqlStep

	mark    mysqlMark
	lastSeq int64                // of table changes
	pending []mysqlMark          // commits without an answer: one of them may be there
	days    map[string]*mysqlDay // those that have a table

	local  bool // the server takes LOAD DATA LOCAL
	packet int  // bytes that a statement may have: what the server takes, and at most
	most   int  // this
	look   bool // large batches hold rows that are there: look before writing
	looked int  // rows of such batches in this transaction
	found  int  // rows that were there
	reader string
	source rowSource
	sql    encoder
	old    oldRow

	changed []byte // what this commit has touched
}

// mysqlDay is what the writer knows of a day's table.
type mysqlDay struct {
	ours    bool // its columns are those it should have
	indexed bool // it has all its indexes
}

var mysqlReaders atomic.Int64

func newMySQLWriter(db *mysqlDB) *mysqlWriter {
	w := &mysqlWriter{db: db, steps: mysqlSteps, local: true, most: mysqlStatement, sql: encoder{as: asSQL}}
	// The driver knows what LOAD DATA LOCAL reads by a name of the process.
	w.reader = fmt.Sprintf("rol-%d", mysqlReaders.Add(1))
	mysql.RegisterReaderHandler(w.reader, func() io.Reader { return &w.source })
	return w
}

// open makes the first session and finds out where the database is.
func (w *mysqlWriter) open(ctx context.Context) error {
	err := w.connect(ctx, mysqlOpenWait)
	if err == nil {
		err = w.sync(ctx)
	}
	if err != nil {
		return w.db.fail(ctx, "opening", err)
	}
	return nil
}

func (w *mysqlWriter) close() {
	w.drop()
	mysql.DeregisterReaderHandler(w.reader)
}

// ready makes a session if there is none, or if sessions are made on another
// host by now.
func (w *mysqlWriter) ready(ctx context.Context) error {
	if w.c != nil && w.c.Stale() {
		w.drop()
	}
	if w.c != nil {
		return nil
	}
	return w.connect(ctx, 0)
}

// connect makes a session, and the tables if need be. With a wait, in seconds,
// it insists on being the only writer.
func (w *mysqlWriter) connect(ctx context.Context, wait int) (err error) {
	if w.c, err = w.db.pool.Conn(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			w.drop()
		}
	}()
	for _, set := range []string{
		// Not READ COMMITTED: a server with binlog_format=STATEMENT refuses
		// writes in it.
		"SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
		fmt.Sprintf("SET SESSION autocommit = 1, sql_notes = 0, innodb_lock_wait_timeout = %d, lock_wait_timeout = %[1]d", mysqlLockWait),
	} {
		if _, err = w.exec(ctx, set); err != nil {
			return err
		}
	}
	if err = w.c.QueryRowContext(ctx, "SELECT @@max_allowed_packet").Scan(&w.packet); err != nil {
		return err
	}
	w.packet = min(w.packet-16, w.most) // the driver keeps a little for itself
	for _, step := range []func(context.Context) error{
		w.splits, func(ctx context.Context) error { return w.lock(ctx, wait) }, w.prepare, w.listDays,
	} {
		if err = step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// splits does without LOAD DATA where a Galera cluster commits in the middle
// of it.
func (w *mysqlWriter) splits(ctx context.Context) error {
	var name, value string
	err := w.c.QueryRowContext(ctx, "SHOW VARIABLES LIKE 'wsrep_load_data_splitting'").Scan(&name, &value)
	if err == sql.ErrNoRows {
		return nil
	}
	w.local = w.local && value != "ON"
	return err
}

// drop ends the session, and with it its locks and its transaction.
func (w *mysqlWriter) drop() {
	if w.c == nil {
		return
	}
	_ = w.c.Raw(func(any) error { return driver.ErrBadConn })
	_ = w.c.Close()
	w.c = nil
}

// lock takes the lock by which writers notice each other early. What protects
// the database is the number of the last commit: a server that has no such
// locks, as some in a cluster, and a session that is only presumed dead do no
// harm.
func (w *mysqlWriter) lock(ctx context.Context, wait int) error {
	name := fmt.Sprintf("rol-logpipe:%.40s:%08x", w.db.name, crc32.ChecksumIEEE([]byte(w.db.name)))
	var got sql.NullInt64
	err := w.c.QueryRowContext(ctx, "SELECT GET_LOCK(?, ?)", name, wait).Scan(&got)
	switch {
	case err != nil && (mysqlpool.Code(err) == 0 || mysqlpool.Lost(err)):
		return err
	case err == nil && got.Valid && got.Int64 == 0 && wait > 0:
		return sysexits.Errorf(sysexits.TryAgain,
			"%s: another rol-logpipe is writing to database %.64q on %s; try again when that has ended",
			w.db.where, w.db.name, w.c.Host())
	}
	return nil
}

// exec runs a statement and returns how many rows it has affected.
func (w *mysqlWriter) exec(ctx context.Context, query string) (int64, error) {
	res, err := w.c.ExecContext(ctx, query)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// readMark reads where the database is.
func (db *mysqlDB) readMark(ctx context.Context, c *mysqlpool.Conn) (m mysqlMark, err error) {
	var token []byte
	err = c.QueryRowContext(ctx, "SELECT value, token FROM "+mysqlMeta+" WHERE name = 'commit'").Scan(&m.seq, &token)
	if err == sql.ErrNoRows {
		err = sysexits.Errorf(sysexits.Data, "%s: table %s has lost its row %q: restore it from a backup", db.where, mysqlMeta, "commit")
	}
	copy(m.token[:], token)
	return m, err
}

// sync takes the database as it is for where this writer goes on.
func (w *mysqlWriter) sync(ctx context.Context) error {
	m, err := w.db.readMark(ctx, w.c)
	if err != nil {
		return err
	}
	err = w.c.QueryRowContext(ctx, "SELECT COALESCE(MAX(seq), 0) FROM "+mysqlChanges).Scan(&w.lastSeq)
	if err == nil {
		w.at(m)
	}
	return err
}

func (w *mysqlWriter) at(m mysqlMark) {
	w.mark, w.pending = m, nil
	w.db.mark.Store(&m)
}

// listDays reads which days have a table.
func (w *mysqlWriter) listDays(ctx context.Context) error {
	rows, err := w.c.QueryContext(ctx, "SHOW TABLES LIKE '"+mysqlDays+"'")
	if err != nil {
		return err
	}
	defer rows.Close()
	w.days = map[string]*mysqlDay{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		if day := dayOf(name); day != "" {
			w.days[day] = &mysqlDay{}
		}
	}
	return rows.Err()
}

// makeDay makes a day's table if there is none, and looks at one that was there
// before. It must not be called in a transaction, which it would commit.
func (w *mysqlWriter) makeDay(ctx context.Context, day string) error {
	d := w.days[day]
	if d != nil && d.ours {
		return nil
	}
	if d == nil {
		if _, err := w.exec(ctx, mysqlCreateDay(day)); err != nil {
			return err
		}
	}
	have, err := w.columns(ctx, dayTable(day))
	if err != nil {
		return err
	}
	for i := range flat.Columns {
		name := flat.Columns[i].Name
		if !slices.Contains(have[dayTable(day)], name) {
			return sysexits.Errorf(sysexits.Data,
				"%s: table %s has no column %s, so it is another program's: rename it, or name another database",
				w.db.where, dayTable(day), name)
		}
	}
	if d == nil {
		d = &mysqlDay{}
		w.days[day] = d
	}
	d.ours = true
	return nil
}

// columns reads the columns that tables have, those that exist.
func (w *mysqlWriter) columns(ctx context.Context, tables ...string) (map[string][]string, error) {
	rows, err := w.c.QueryContext(ctx, "SELECT table_name, column_name FROM information_schema.columns "+
		"WHERE table_schema = DATABASE() AND table_name IN ('"+strings.Join(tables, "', '")+"') ORDER BY table_name, ordinal_position")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	have := map[string][]string{}
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			return nil, err
		}
		have[table] = append(have[table], column)
	}
	return have, rows.Err()
}
