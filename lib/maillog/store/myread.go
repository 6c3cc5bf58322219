package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// Reading MySQL and MariaDB. Each piece of work is a read-only transaction
// with a snapshot, on a session of the pool's. It needs SELECT and nothing
// else.
//
// A network is between: what counts is how many questions are asked one after
// another. The days there are and what they lack are therefore remembered, a
// question goes to many days at once where few rows are expected, and rows
// come in batches.

const (
	myTries    = 4               // of a piece of work, when the session is lost or a table changes under it
	myLacks    = 5 * time.Second // how long a day is thought to lack its indexes
	myDaysLast = time.Minute     // how long the list of days is used without a commit
	myEnd      = 5 * time.Second // for the end of a transaction whose context is done
	noTable    = 1146            // ER_NO_SUCH_TABLE
	noKey      = 1176            // ER_KEY_DOES_NOT_EXITS: the index that is to be used is not there
	newTable   = 1412            // ER_TABLE_DEF_CHANGED: the table was made or altered after the snapshot
)

// myKnown is what readers know of the tables. The zero value knows nothing.
type myKnown struct {
	mu    sync.Mutex
	host  string
	seq   int64 // the newest commit when days was read
	read  time.Time
	days  []string             // nil: not known
	lacks map[string]myLacking // by day
}

// myLacking are the indexes that a day does not have.
type myLacking struct {
	names []string
	until time.Time
}

func (k *myKnown) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.days = nil
}

// myConn is what a connection of the driver's can do.
type myConn interface {
	driver.ExecerContext
	driver.QueryerContext
}

// myView is one read-only transaction.
type myView struct {
	ctx   context.Context
	conn  myConn
	known *myKnown

	seq    int64
	all    []string // days, ascending
	asked  []string // the days of the last question
	ahead  myAhead
	window time.Duration // see scan
	row    myRow
}

// openMySQLReader looks whether the database is one of ours.
func (db *mysqlDB) openMySQLReader(ctx context.Context) error {
	c, err := db.pool.Conn(ctx)
	if err != nil {
		return db.fail(ctx, "opening", err)
	}
	defer c.Close()
	version, err := mysqlCheck(ctx, c, db.where, mysqlVersion)
	if err == nil && version == 0 {
		err = sysexits.Errorf(sysexits.Unavailable,
			"%s: no maillog in database %.64q on %s; rol-logpipe --db mysql:%[1]s LOGFILE makes one", db.where, db.name, c.Host())
	}
	if err != nil {
		return db.fail(ctx, "opening", err)
	}
	return nil
}

// read runs f on a snapshot. f is run again, on a new one, when the session
// is lost, when a day is dropped under it, or when one is made or altered.
func (db *mysqlDB) read(ctx context.Context, f func(session) error) error {
	var err error
	for range myTries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var conn *mysqlpool.Conn
		if conn, err = db.pool.Conn(ctx); err != nil {
			break
		}
		err = conn.Raw(func(dc any) error {
			return db.once(ctx, dc.(myConn), conn.Host(), f)
		})
		_ = conn.Close()
		if err == nil {
			return nil
		}
		if !mysqlpool.Lost(err) && !slices.Contains([]uint16{noTable, noKey, newTable}, mysqlpool.Code(err)) {
			break
		}
	}
	if mysqlpool.Code(err) == noTable && ctx.Err() == nil {
		return sysexits.Errorf(sysexits.Data, "%w: restore it from a backup, or drop all tables that begin with %s and read the logs again",
			db.fail(ctx, "searching", err), dayPrefix)
	}
	return db.fail(ctx, "searching", err)
}

func (db *mysqlDB) passes(err error) bool { return mysqlpool.Again(err) }

// once runs f in one transaction.
func (db *mysqlDB) once(ctx context.Context, conn myConn, host string, f func(session) error) error {
	v := &myView{ctx: ctx, conn: conn, known: &db.known}
	if err := v.exec(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"); err != nil {
		return err
	}
	err := v.look(host)
	if err == nil {
		err = f(v)
	}
	if err == nil {
		err = v.row.err
	}
	switch mysqlpool.Code(err) {
	case noTable, newTable:
		v.known.forget()
	case noKey:
		if lerr := v.learn(); lerr != nil {
			err = lerr
		}
	}
	// A transaction must not outlive its piece of work, whatever ctx says.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), myEnd)
	defer cancel()
	if cerr := v.exec(end, "COMMIT"); cerr != nil {
		if err == nil {
			err = cerr
		}
		err = fmt.Errorf("%w (%w)", err, driver.ErrBadConn) // the session is not given back
	}
	return err
}

func (v *myView) exec(ctx context.Context, sql string) error {
	_, err := v.conn.ExecContext(ctx, sql, nil)
	return err
}

// errEnough ends the reading of a question's answer.
var errEnough = errors.New("enough")

// query asks about some days, and calls f for each row of the answer, whose
// values are f's for the call only. An error of f's ends the reading.
func (v *myView) query(days []string, sql string, args []any, f func([]driver.Value) error) (err error) {
	v.asked = days
	named := make([]driver.NamedValue, len(args))
	for i, a := range args {
		if id, ok := a.(flat.ID); ok {
			a = id[:]
		}
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	rows, err := v.conn.QueryContext(v.ctx, sql, named)
	if err != nil {
		return err
	}
	defer func() {
		// Closing reads what is left of the answer.
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	values := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(values); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		if err := f(values); err != nil {
			if err == errEnough {
				return nil
			}
			return err
		}
	}
}

// look finds out what there is to read. Days are made with a commit, so as
// long as there is no new one the list that is known holds; one that is
// dropped is found out by asking it.
func (v *myView) look(host string) error {
	err := v.query(nil, "SELECT MAX(seq) FROM "+mysqlChanges, nil, func(row []driver.Value) error {
		v.seq = myInt(row[0])
		return nil
	})
	if err != nil {
		return err
	}
	k := v.known
	k.mu.Lock()
	if k.days != nil && k.host == host && k.seq == v.seq && time.Since(k.read) < myDaysLast {
		v.all = k.days
	}
	k.mu.Unlock()
	if v.all != nil {
		return nil
	}
	v.all = []string{}
	err = v.query(nil, "SHOW TABLES LIKE '"+dayPrefix+"%'", nil, func(row []driver.Value) error {
		if day := dayOf(myText(row[0])); day != "" {
			v.all = append(v.all, day)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(v.all)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.host != host {
		k.lacks = nil
	}
	k.host, k.seq, k.read, k.days = host, v.seq, time.Now(), v.all
	return nil
}

// learn finds out which indexes the days that were asked do not have. Usually
// a day has all, and nobody asks.
func (v *myView) learn() error {
	days := v.asked
	if len(days) == 0 {
		return nil
	}
	names := make([]any, len(days))
	for i, day := range days {
		names[i] = dayTable(day)
	}
	has := map[string][]string{}
	err := v.query(nil, "SELECT TABLE_NAME, INDEX_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()"+
		" AND SEQ_IN_INDEX = 1 AND TABLE_NAME IN (?"+strings.Repeat(", ?", len(days)-1)+")", names, func(row []driver.Value) error {
		day := dayOf(myText(row[0]))
		has[day] = append(has[day], myText(row[1]))
		return nil
	})
	if err != nil {
		return err
	}
	k := v.known
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lacks == nil {
		k.lacks = map[string]myLacking{}
	}
	for _, day := range days {
		var lack []string
		for _, x := range indexes {
			if !slices.Contains(has[day], x.name) {
				lack = append(lack, x.name)
			}
		}
		delete(k.lacks, day)
		if lack != nil {
			k.lacks[day] = myLacking{lack, time.Now().Add(myLacks)}
		}
	}
	return nil
}

func (v *myView) days() []string { return v.all }

// has says yes unless it is known better: who uses an index that is not there
// finds out.
func (v *myView) has(day, index string) bool {
	v.known.mu.Lock()
	defer v.known.mu.Unlock()
	lack, ok := v.known.lacks[day]
	return !ok || time.Now().After(lack.until) || !slices.Contains(lack.names, index)
}

func myID(v driver.Value) (id flat.ID) {
	b, _ := v.([]byte)
	copy(id[:], b)
	return id
}

func myInt(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}

func myText(v driver.Value) string {
	switch s := v.(type) {
	case []byte:
		return string(s)
	case string:
		return s
	}
	return ""
}
