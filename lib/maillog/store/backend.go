package store

import (
	"context"
	"iter"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// backend is one kind of database. What it promises is what DB's methods of
// the same names promise. DB lets one goroutine at a time write.
//
// Errors that leave it are worded for people and have a status; so are those
// of read, unless f itself returned one that is.
type backend interface {
	// writes reports whether it was opened for writing.
	writes() bool

	load(ctx context.Context, state func(key, data []byte) error) ([]Position, error)
	commit(ctx context.Context, b *Batch) error
	finish(ctx context.Context) error

	// read runs f on one consistent view of the database. It may run f again
	// when that view turns out to have been none, so f must begin anew each
	// time. Any number of goroutines may read, also while one writes.
	read(ctx context.Context, f func(session) error) error

	// passes reports whether an error of read's may pass by itself, as that of
	// a server that is restarted.
	passes(err error) bool

	// asStored is a text of a query as the database would have kept it.
	asStored(s string) string

	// close gives everything back, the writer's lock last.
	close() error
}

// session is one consistent view of a database.
//
// It knows nothing of tenants: it gives candidates, as rawRows, and what of
// them may be seen is decided by compiled.take. Its conditions may let through
// more than what is asked, never less. A day whose table is dropped meanwhile
// has no rows.
type session interface {
	// days are the days that have a table, ascending.
	days() []string
	// has reports whether a day has an index, by index.name.
	has(day, index string) bool

	// scan goes over the rows of a day within c's bounds that meet c.all and
	// one of c.arms, in the order of the search, while look says so. want is
	// how many rows the caller wants: a hint. Where it goes piece by piece it
	// tells passed before which id, in that order, nothing is left, and ends
	// if passed says so.
	scan(c *compiled, day string, want int, look func(rawRow) bool, passed func(flat.ID) bool) error
	// ids are the candidates of a day by c.arms, which are all ordered: each
	// once, in the order of the search. It ends after an error.
	ids(c *compiled, day string, want int) iter.Seq2[flat.ID, error]
	// span are the candidates of a day by c.arms[0], which has no order, in
	// any order; maxSpan+1 are enough.
	span(c *compiled, day string) ([]flat.ID, error)
	// rows calls look for each of the ids, in their order, while look says so:
	// with the row, or nil if it is not there or does not meet c.all.
	rows(c *compiled, day string, want int, ids iter.Seq[flat.ID], look func(flat.ID, rawRow) bool) error

	// lastCommit is the greatest seq of table changes, 0 if there is none.
	lastCommit() (int64, error)
	// commits goes over table changes behind seq after, in order of seq, while
	// f says so.
	commits(after int64, f func(seq int64, ids []byte) bool) error
}

// rawRow is a row where the database has it: for the call only.
type rawRow interface {
	id() flat.ID
	text(col int) []byte // of a text column, by its place in flat.Columns
	row() *flat.Row      // a copy, the caller's
}
