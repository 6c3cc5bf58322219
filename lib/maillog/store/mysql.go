package store

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// mysqlDB is the kind of database that MariaDB (10.6 and later) and MySQL (8)
// are: tables whose names begin with maillog_ in a database that may have
// others.
type mysqlDB struct {
	where string // the file that says how it is reached, for messages
	name  string // the database's name on the server
	pool  *mysqlpool.Pool
	w     *mysqlWriter // nil when opened read-only

	silence time.Duration // how long the server may be silent
	known   myKnown       // to those who read

	mark atomic.Pointer[mysqlMark] // the last commit that the writer knows of
}

// mysqlSilence is how long the server may work on a statement: longer than it
// lets one wait for a lock.
const mysqlSilence = 30 * time.Second

// openMySQLWith opens the database that a file in the syntax of mysql_table(5)
// names, with timeouts and a log of the caller's choice.
func openMySQLWith(where string, mode Mode, opt mysqlpool.Options) (*mysqlDB, error) {
	cfg, err := mysqlpool.ReadFile(where)
	if err != nil {
		return nil, err
	}
	if opt.Log != nil {
		for _, w := range cfg.Warnings {
			opt.Log.Warn(w)
		}
	}
	if mode == ReadOnly {
		opt.Log = nil // an error names all hosts that failed
	}
	opt.Read = cmp.Or(opt.Read, mysqlSilence)
	db := &mysqlDB{where: where, name: cfg.DBName, silence: opt.Read}
	opt.Interpolate = true
	opt.Grants = "SELECT"
	if mode == ReadWrite {
		opt.Writable = true
		opt.Grants = mysqlWriteGrants
		// A node of a Galera cluster waits until it has what another one has
		// committed before it says where the database is.
		opt.Params = map[string]string{"wsrep_sync_wait": "7"}
		opt.Fresh = func(ctx context.Context, c *mysqlpool.Conn) (bool, error) {
			is, err := db.readMark(ctx, c)
			at := db.mark.Load()
			return err == nil && (at == nil || is == *at), err
		}
	}
	if db.pool, err = mysqlpool.Open(cfg, opt); err != nil {
		return nil, err
	}
	if mode == ReadWrite {
		db.w = newMySQLWriter(db)
		err = db.w.open(context.Background())
	} else {
		err = db.openMySQLReader(context.Background())
	}
	if err != nil {
		_ = db.close()
		return nil, err
	}
	return db, nil
}

func (db *mysqlDB) writes() bool { return db.w != nil }

func (db *mysqlDB) close() error {
	if db.w != nil {
		db.w.close()
		db.w = nil
	}
	return db.pool.Close()
}

func (db *mysqlDB) load(ctx context.Context, state func(key, data []byte) error) ([]Position, error) {
	return db.w.load(ctx, state)
}

func (db *mysqlDB) commit(ctx context.Context, b *Batch) error { return db.w.commit(ctx, b) }

func (db *mysqlDB) finish(ctx context.Context) error { return db.w.finish(ctx) }

// asStored is s as a column would keep it, but for its length.
func (db *mysqlDB) asStored(s string) string { return mysqlText(s) }

// fail words an error for people.
func (db *mysqlDB) fail(ctx context.Context, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && mysqlpool.Code(err) == 0:
		return context.Cause(ctx)
	case mysqlpool.Code(err) == 0 && sysexits.Status(err) != sysexits.Bug:
		return err // has its words
	}
	return db.pool.Word(err, doing)
}
