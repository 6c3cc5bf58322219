package lite

import (
	"errors"
	"fmt"
	"unsafe"

	"modernc.org/libc"
	"modernc.org/libc/sys/types"
	sqlite3 "modernc.org/sqlite/lib"
)

// Stmt is a compiled statement. Parameters are numbered from 1 and columns
// from 0, as in SQLite. The order of use is: Bind..., Step until it says no,
// Reset, and again.
type Stmt struct {
	c *Conn
	p uintptr

	// The texts and blobs bound, in the library's memory: SQLite reads them
	// in place, so they stay until Reset.
	buf  uintptr
	used int
	room int
	more []uintptr // blocks of values that did not fit
	err  error     // of a Bind; Step reports it
}

// firstRoom is the size of a statement's buffer in bytes: enough for what
// almost every row holds.
const firstRoom = 4096

// Close frees the statement.
func (s *Stmt) Close() {
	if s.p == 0 {
		return
	}
	sqlite3.Xsqlite3_finalize(s.c.tls, s.p) // its result is that of the last Step
	s.p = 0
	s.free()
	if s.buf != 0 {
		libc.Xfree(s.c.tls, s.buf)
		s.buf = 0
	}
}

func (s *Stmt) free() {
	for _, p := range s.more {
		libc.Xfree(s.c.tls, p)
	}
	s.more, s.used = s.more[:0], 0
}

// Step runs the statement to its next row; false: it has ended.
func (s *Stmt) Step() (bool, error) {
	if s.err != nil {
		return false, s.err
	}
	switch rc := sqlite3.Xsqlite3_step(s.c.tls, s.p); rc {
	case sqlite3.SQLITE_ROW:
		return true, nil
	case sqlite3.SQLITE_DONE:
		return false, nil
	default:
		return false, s.c.error(rc)
	}
}

// Run steps a statement that returns nothing, and resets it.
func (s *Stmt) Run() error {
	_, err := s.Step()
	s.Reset()
	return err
}

// Reset makes the statement ready to be run again, with every parameter NULL.
func (s *Stmt) Reset() {
	sqlite3.Xsqlite3_reset(s.c.tls, s.p)
	sqlite3.Xsqlite3_clear_bindings(s.c.tls, s.p)
	s.free()
	s.err = nil
}

// keep copies a value to where SQLite may read it.
func (s *Stmt) keep(n int) uintptr {
	if s.buf == 0 {
		s.buf = libc.Xmalloc(s.c.tls, types.Size_t(firstRoom))
		s.room = firstRoom
		if s.buf == 0 {
			s.room = 0
		}
	}
	if n <= s.room-s.used {
		p := s.buf + uintptr(s.used)
		s.used += n
		return p
	}
	p := libc.Xmalloc(s.c.tls, types.Size_t(n))
	if p == 0 {
		s.err = &Error{Code: NoMem, Text: "out of memory"}
		return 0
	}
	s.more = append(s.more, p)
	return p
}

// maxValue is the longest value, in bytes; SQLite's own limit is near it.
const maxValue = 1 << 29

var errTooLong = errors.New("value too long")

func (s *Stmt) check(i int, rc int32) {
	if rc != sqlite3.SQLITE_OK && s.err == nil {
		s.err = fmt.Errorf("parameter %d: %w", i, s.c.error(rc))
	}
}

// empty is what an empty value points to: a null pointer would be NULL.
var empty = libc.Xmalloc(libc.NewTLS(), 1)

// place copies v, or returns 0 after an error.
func place[T string | []byte](s *Stmt, v T) uintptr {
	if len(v) == 0 {
		return empty
	}
	if len(v) > maxValue {
		s.err = errTooLong
		return 0
	}
	p := s.keep(len(v))
	if p != 0 {
		copy(unsafe.Slice((*byte)(pointer(p)), len(v)), v)
	}
	return p
}

// BindText binds a text of any bytes.
func (s *Stmt) BindText(i int, v string) {
	if p := place(s, v); p != 0 {
		s.check(i, sqlite3.Xsqlite3_bind_text(s.c.tls, s.p, int32(i), p, int32(len(v)), sqlite3.SQLITE_STATIC))
	}
}

// BindBlob binds bytes; an empty slice is an empty value, not NULL.
func (s *Stmt) BindBlob(i int, v []byte) {
	if p := place(s, v); p != 0 {
		s.check(i, sqlite3.Xsqlite3_bind_blob(s.c.tls, s.p, int32(i), p, int32(len(v)), sqlite3.SQLITE_STATIC))
	}
}

// BindInt binds a number.
func (s *Stmt) BindInt(i int, v int64) {
	s.check(i, sqlite3.Xsqlite3_bind_int64(s.c.tls, s.p, int32(i), v))
}

// BindFloat binds a number.
func (s *Stmt) BindFloat(i int, v float64) {
	s.check(i, sqlite3.Xsqlite3_bind_double(s.c.tls, s.p, int32(i), v))
}

// Null reports whether a column of the row is NULL.
func (s *Stmt) Null(col int) bool {
	return sqlite3.Xsqlite3_column_type(s.c.tls, s.p, int32(col)) == sqlite3.SQLITE_NULL
}

// Int returns a column as a number.
func (s *Stmt) Int(col int) int64 { return sqlite3.Xsqlite3_column_int64(s.c.tls, s.p, int32(col)) }

// Float returns a column as a number.
func (s *Stmt) Float(col int) float64 {
	return sqlite3.Xsqlite3_column_double(s.c.tls, s.p, int32(col))
}

// Bytes returns a column's text or blob where SQLite has it: it is gone with
// the next Step or Reset. nil for NULL and for an empty value.
func (s *Stmt) Bytes(col int) []byte {
	p := sqlite3.Xsqlite3_column_blob(s.c.tls, s.p, int32(col))
	if p == 0 {
		return nil
	}
	n := sqlite3.Xsqlite3_column_bytes(s.c.tls, s.p, int32(col))
	return unsafe.Slice((*byte)(pointer(p)), n)
}

// Text returns a column's text, copied.
func (s *Stmt) Text(col int) string { return string(s.Bytes(col)) }

// Columns is how many columns the statement returns.
func (s *Stmt) Columns() int { return int(sqlite3.Xsqlite3_column_count(s.c.tls, s.p)) }
