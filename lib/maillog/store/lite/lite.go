// Package lite is the few calls of SQLite that package store needs, straight
// on the translated library (modernc.org/sqlite/lib; no cgo).
//
// Why not database/sql: a day table has 54 columns. Through database/sql every
// value of every row becomes an interface, is checked, boxed, copied into a
// block from malloc of its own and bound, also where it is NULL. Here a row's
// texts are copied once into one buffer that SQLite reads in place, and what
// is NULL is not bound at all. The benchmarks beside package store have the
// figures.
//
// A Conn and its statements belong to one goroutine at a time; only Interrupt
// may be called from another one.
package lite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Flags say how a database is opened.
type Flags int32

// How to open a database.
const (
	ReadOnly Flags = sqlite3.SQLITE_OPEN_READONLY | sqlite3.SQLITE_OPEN_URI
	Existing Flags = sqlite3.SQLITE_OPEN_READWRITE | sqlite3.SQLITE_OPEN_URI
	Create   Flags = Existing | sqlite3.SQLITE_OPEN_CREATE
)

// Result codes that the store has an answer to. Of those with a long list of
// variants (IOErr) only the first byte is compared.
const (
	Perm       = sqlite3.SQLITE_PERM
	Busy       = sqlite3.SQLITE_BUSY
	Locked     = sqlite3.SQLITE_LOCKED
	NoMem      = sqlite3.SQLITE_NOMEM
	ReadOnlyDB = sqlite3.SQLITE_READONLY
	Interrupt  = sqlite3.SQLITE_INTERRUPT
	IOErr      = sqlite3.SQLITE_IOERR
	Corrupt    = sqlite3.SQLITE_CORRUPT
	Full       = sqlite3.SQLITE_FULL
	CantOpen   = sqlite3.SQLITE_CANTOPEN
	Auth       = sqlite3.SQLITE_AUTH
	NotADB     = sqlite3.SQLITE_NOTADB
	Generic    = sqlite3.SQLITE_ERROR // wrong SQL, a missing table
)

// Error is a failure that SQLite reports.
type Error struct {
	Code int32 // extended result code
	Text string
}

func (e *Error) Error() string { return e.Text }

// Primary is the result code without its variant.
func (e *Error) Primary() int32 { return e.Code & 0xff }

// Code returns the primary result code in err, 0 if it is none of SQLite's.
func Code(err error) int32 {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Primary()
	}
	return 0
}

// Conn is a connection to one database file.
type Conn struct {
	tls *libc.TLS
	db  uintptr // *sqlite3, 0 once closed

	mu   sync.Mutex // guards closing against interrupting
	itls *libc.TLS  // for interrupting
}

// Open opens the database that a file: URI names.
func Open(uri string, flags Flags) (*Conn, error) {
	c := &Conn{tls: libc.NewTLS(), itls: libc.NewTLS()}
	name, err := libc.CString(uri)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(c.tls, name)
	out := c.tls.Alloc(8)
	defer c.tls.Free(8)
	rc := sqlite3.Xsqlite3_open_v2(c.tls, name, out, int32(flags)|sqlite3.SQLITE_OPEN_NOMUTEX, 0)
	c.db = *(*uintptr)(pointer(out))
	if rc != sqlite3.SQLITE_OK {
		err := c.error(rc)
		_ = c.Close()
		return nil, err
	}
	sqlite3.Xsqlite3_extended_result_codes(c.tls, c.db, 1)
	return c, nil
}

// pointer turns an address in the library's memory, which the garbage
// collector does not know, into a pointer.
func pointer(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// Close closes the connection. Statements must be closed before.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tls == nil {
		return nil
	}
	var err error
	if c.db != 0 {
		if rc := sqlite3.Xsqlite3_close_v2(c.tls, c.db); rc != sqlite3.SQLITE_OK {
			err = &Error{Code: rc, Text: libc.GoString(sqlite3.Xsqlite3_errstr(c.tls, rc))}
		}
	}
	c.tls.Close()
	c.itls.Close()
	c.tls, c.itls, c.db = nil, nil, 0
	return err
}

// error makes an error of a result code, with the library's words.
func (c *Conn) error(rc int32) error {
	e := &Error{Code: rc}
	if c.db != 0 && sqlite3.Xsqlite3_extended_errcode(c.tls, c.db)&0xff == rc&0xff {
		e.Code = sqlite3.Xsqlite3_extended_errcode(c.tls, c.db)
		e.Text = libc.GoString(sqlite3.Xsqlite3_errmsg(c.tls, c.db))
	} else {
		e.Text = libc.GoString(sqlite3.Xsqlite3_errstr(c.tls, rc))
	}
	return e
}

// BusyTimeout is how long a statement waits for another process's lock.
func (c *Conn) BusyTimeout(d time.Duration) {
	sqlite3.Xsqlite3_busy_timeout(c.tls, c.db, int32(d.Milliseconds()))
}

// Changes is how many rows the last INSERT, UPDATE or DELETE changed.
func (c *Conn) Changes() int64 { return sqlite3.Xsqlite3_changes64(c.tls, c.db) }

// Autocommit reports whether no transaction is open.
func (c *Conn) Autocommit() bool { return sqlite3.Xsqlite3_get_autocommit(c.tls, c.db) != 0 }

// Interrupt ends the statement that is running, in another goroutine, with
// the result code Interrupt.
func (c *Conn) Interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.db != 0 {
		sqlite3.Xsqlite3_interrupt(c.itls, c.db)
	}
}

// Watch interrupts what c does as soon as ctx is done, until stop is called.
// After stop no interruption is on its way any more.
func (c *Conn) Watch(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(done)
		c.Interrupt()
	})
	return sync.OnceFunc(func() {
		if !cancel() {
			<-done
		}
	})
}

// Exec runs one statement to its end and drops what it returns.
func (c *Conn) Exec(sql string) error {
	s, err := c.Prepare(sql)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		if more, err := s.Step(); err != nil || !more {
			return err
		}
	}
}

// Int runs a statement that returns one number; 0 if it returns nothing.
func (c *Conn) Int(sql string) (int64, error) {
	s, err := c.Prepare(sql)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	more, err := s.Step()
	if err != nil || !more {
		return 0, err
	}
	return s.Int(0), nil
}

// Prepare compiles one statement.
func (c *Conn) Prepare(sql string) (*Stmt, error) {
	text, err := libc.CString(sql)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(c.tls, text)
	out := c.tls.Alloc(8)
	defer c.tls.Free(8)
	rc := sqlite3.Xsqlite3_prepare_v3(c.tls, c.db, text, int32(len(sql)+1), 0, out, 0)
	if rc != sqlite3.SQLITE_OK {
		return nil, fmt.Errorf("%w (in %.60q)", c.error(rc), sql)
	}
	return &Stmt{c: c, p: *(*uintptr)(pointer(out))}, nil
}
