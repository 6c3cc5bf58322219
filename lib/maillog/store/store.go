// Package store keeps the flat maillog: it takes the rows that package trace
// finds and finds them again.
//
// # What it holds
//
// A database: a SQLite file, or tables in MariaDB or MySQL; a backend each,
// and everything that decides what is found is common to them. A table
// maillog_YYYYMMDD for each UTC day that has rows, with the columns of
// flat.Columns, clustered by id. The id begins with the time of the row's
// first line, so a table grows at its end, rows of a time span lie together,
// and "newest first" is a walk backwards. Beside the days: positions (how far
// each input has been read), state (what the tracer has open), changes (which
// rows the last commits have touched, for followers) and meta (the version of
// all this). In MySQL their names begin with maillog_ too, as other programs
// may have tables in the same database.
//
// # What bounds it
//
// Day tables grow until somebody drops them; whoever searches finds out which
// there are. Positions are pruned to the newest maxPositions, changes to the
// last keepCommits. A search holds a page of rows and at most maxSpan ids,
// however many rows it passes, and no transaction for longer than it takes to
// read a page, some two seconds where nothing is found.
//
// # What happens on restart
//
// A Batch is one transaction: rows, deletions, open state and input positions
// are there together or not at all, so a writer that was killed goes on where
// its last batch ended. Searches and the writer do not wait for each other:
// SQLite's journal is a write-ahead log, and MySQL's searches read a snapshot.
// Each commit is synced: what was committed survives a power failure, and an
// input that is acknowledged after the commit may be thrown away. For SQLite
// that is synchronous=FULL, which at 5,000 rows a commit costs less than a
// tenth; for MySQL it is the server's innodb_flush_log_at_trx_commit=1, its
// default.
//
// One process at a time writes to a database; a second one is refused.
//
// A new day's table has only those secondary indexes that hold few rows until
// Finish, which sorts the others once instead of growing them row by row. A
// search of a day without them reads all of it; a day that a killed run left
// so is completed by the next Finish. Days that have their indexes keep them.
//
// # What a tenant sees
//
// Query.Domain is a boundary, not a filter for convenience: everything that
// leaves this package for a query with a domain has passed tenant.view, in
// compiled.take. A backend only gives candidates.
package store

import (
	"context"
	"log/slog"
	"strings"
	"sync"

	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// Mode says what a database is opened for.
type Mode int

const (
	// ReadOnly never creates or changes anything, and works on a read-only
	// medium.
	ReadOnly Mode = iota
	// ReadWrite creates the database if it is not there, and keeps other
	// writers out until Close.
	ReadWrite
)

// ErrMoved is what Commit returns, wrapped, when the database is not where
// this writer left it: somebody else has written to it, or a failover has led
// to a host that is behind or ahead. Nothing of the batch is written. Load
// tells where the database is now; what was given out behind that must be
// committed again. Status TryAgain.
var ErrMoved = sysexits.Errorf(sysexits.TryAgain, "the database is not where this writer left it")

// DB is a database of flat rows. One goroutine at a time may write (Load,
// Commit, Finish); any number may search meanwhile.
type DB struct {
	where string
	mu    sync.Mutex // the writer's
	b     backend
}

// Open opens the database at where: "sqlite:/path" or a path alone, or
// "mysql:/file", a file in the syntax of mysql_table(5) that names the hosts,
// the user and the database. ReadWrite refuses a database that another
// process is writing to (status TryAgain).
func Open(where string, mode Mode) (*DB, error) {
	return OpenLogged(where, mode, slog.New(slog.DiscardHandler))
}

// OpenLogged is Open with a log for what is doubtful about the way to the
// database, such as a password that others may read, and, when it is opened
// for writing, for what befalls its hosts.
func OpenLogged(where string, mode Mode, log *slog.Logger) (*DB, error) {
	typ, name, err := Split(where)
	if err != nil {
		return nil, err
	}
	db := &DB{where: where}
	if typ == "mysql" {
		m, err := openMySQLWith(name, mode, mysqlpool.Options{Log: log})
		if err != nil {
			return nil, err
		}
		db.b = m
		return db, nil
	}
	s, err := openSQLite(name, mode)
	if err != nil {
		return nil, err
	}
	db.b = s
	return db, nil
}

// DDL is all SQL that makes a database of the kind of where, with the table of
// one day as an example: for people who make it themselves, or want to know.
// The database need not exist, nor the file that where names.
func DDL(where string) (string, error) {
	typ, _, err := Split(where)
	if err != nil {
		return "", err
	}
	if typ == "mysql" {
		return mysqlDDL(), nil
	}
	return sqliteDDL(), nil
}

// exampleDay is the day whose table DDL shows.
const exampleDay = "20261123"

// Split takes type:where apart. What names no type is an SQLite file.
func Split(where string) (typ, name string, err error) {
	typ, name, ok := strings.Cut(where, ":")
	switch {
	case !ok || strings.Contains(typ, "/"):
		typ, name = "sqlite", where
	case typ != "sqlite" && typ != "mysql":
		return "", "", sysexits.Errorf(sysexits.Config,
			"database %.200q: type %.40q is not known; want sqlite:/path or mysql:/file", where, typ)
	}
	if name == "" {
		want := map[string]string{"sqlite": "sqlite:/path", "mysql": "mysql:/etc/rol/maillog.cf"}[typ]
		return "", "", sysexits.Errorf(sysexits.Config, "database %q: a path is missing; want %s", where, want)
	}
	if strings.ContainsRune(name, 0) {
		return "", "", sysexits.Errorf(sysexits.Config, "database %.200q: a path cannot hold a NUL", where)
	}
	return typ, name, nil
}

// Where is what the database was opened by.
func (db *DB) Where() string { return db.where }

// Close closes the database. Searches must have ended.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.b.close()
}

// writer locks the writer's part of the database, if it is open for writing.
func (db *DB) writer() (unlock func(), err error) {
	db.mu.Lock()
	if !db.b.writes() {
		db.mu.Unlock()
		return nil, sysexits.Errorf(sysexits.Bug, "%s: not open for writing", db.where)
	}
	return db.mu.Unlock, nil
}

// Load returns the input positions, and hands every piece of open state to
// state; key and data are valid during the call only.
func (db *DB) Load(ctx context.Context, state func(key, data []byte) error) ([]Position, error) {
	unlock, err := db.writer()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return db.b.load(ctx, state)
}

// Commit writes a batch. A row replaces the one with its id only if it is made
// of at least as many log lines and differs, so that writing the same rows
// again changes nothing.
func (db *DB) Commit(ctx context.Context, b *Batch) error {
	unlock, err := db.writer()
	if err != nil {
		return err
	}
	defer unlock()
	return db.b.commit(ctx, b)
}

// Finish does what bulk loading has put off: it builds the indexes that days
// lack because their tables are new, also those that an earlier run left.
// With nothing to do it is cheap: a writer that follows a log calls it
// whenever it has caught up.
func (db *DB) Finish(ctx context.Context) error {
	unlock, err := db.writer()
	if err != nil {
		return err
	}
	defer unlock()
	return db.b.finish(ctx)
}
