package store

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/lib/sysexits"
)

const (
	// lookRows is how many ids a statement asks for at most. From 1000 on MariaDB makes
	// a temporary table of such a list.
	lookRows = 500
	// lookAlways is up to how many rows the writer looks first what is there:
	// that costs less than being wrong. More are taken for new while this turns
	// out right, as in a replay.
	lookAlways = 200
	// loadFrom is from how many rows on LOAD DATA is worth its two more round
	// trips.
	loadFrom = 32
	// mysqlStatement is how long a statement gets at most, in bytes.
	mysqlStatement = 1 << 20
)

func compareIDs(a, b flat.ID) int { return slices.Compare(a[:], b[:]) }

// onePerID are the rows in the order of their ids, so that a day's table grows
// at its end. Of rows with the same id the one that would be there in the end.
func onePerID(rows []*flat.Row) []*flat.Row {
	sorted := true
	for i := 1; i < len(rows) && sorted; i++ {
		sorted = less(rows[i-1].ID, rows[i].ID)
	}
	if sorted {
		return rows
	}
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b *flat.Row) int { return compareIDs(a.ID, b.ID) })
	n := 0
	for _, r := range rows[1:] {
		switch {
		case r.ID != rows[n].ID:
			n++
			rows[n] = r
		case r.Lines >= rows[n].Lines:
			rows[n] = r
		}
	}
	return rows[:n+1]
}

// byDay cuts rows in the order of their ids into days.
func byDay(rows []*flat.Row) iter.Seq2[string, []*flat.Row] {
	number := func(r *flat.Row) int64 { return min(r.ID.UnixMilli(), maxTime) / dayMillis }
	return func(yield func(string, []*flat.Row) bool) {
		for len(rows) > 0 {
			day := number(rows[0])
			n := 1
			for n < len(rows) && number(rows[n]) == day {
				n++
			}
			if !yield(dayOfID(rows[0].ID), rows[:n]) {
				return
			}
			rows = rows[n:]
		}
	}
}

func (w *mysqlWriter) putRows(ctx context.Context, b *mysqlBatch) error {
	for day, rows := range byDay(b.rows) {
		if err := w.putDay(ctx, day, rows); err != nil {
			return err
		}
	}
	return nil
}

// putDay writes the rows of a day. Either they are taken for new, and if one
// is not the transaction is run again; or those that are there are read and
// compared first.
func (w *mysqlWriter) putDay(ctx context.Context, day string, rows []*flat.Row) error {
	if len(rows) > lookAlways && !w.look {
		n, err := w.write(ctx, day, rows, "IGNORE")
		if mysqlpool.Code(err) == codeDuplicate || err == nil && n < int64(len(rows)) {
			w.look = true
			return errRepeat
		}
		for _, r := range rows {
			w.note(r.ID, rowNew)
		}
		return w.altered(day, err)
	}
	differ, changed, err := w.compare(ctx, day, rows)
	if err != nil || len(differ) == 0 {
		return err
	}
	n, err := w.write(ctx, day, differ, "REPLACE")
	// One that replaces another counts twice, if the server finds that it
	// differs.
	if least := int64(len(differ)); err == nil && (n < least || n > least+int64(changed)) {
		return sysexits.Errorf(sysexits.Data,
			"%s: table %s: writing %d rows, %d of them again, affected %d; has it a trigger, or an index that is not the writer's?",
			w.db.where, dayTable(day), least, changed, n)
	}
	return w.altered(day, err)
}

// altered words the errors of a day's table whose columns are not what they
// were.
func (w *mysqlWriter) altered(day string, err error) error {
	switch mysqlpool.Code(err) {
	case 1048, codeBadField, 1264, 1265, 1292, 1364, 1366, 1406: // null, field, range, truncated, value, default, value, too long
		return sysexits.Errorf(sysexits.Data, "%s: table %s does not take a row as it is: %.200q; has somebody changed it?",
			w.db.where, dayTable(day), err.Error())
	}
	return err
}

// compare returns the rows that are to be written: those that are not there,
// and those that replace one, how many of them. A row replaces the one with its
// id only if it is made of at least as many log lines and differs.
func (w *mysqlWriter) compare(ctx context.Context, day string, rows []*flat.Row) (differ []*flat.Row, changed int, err error) {
	if len(rows) > lookAlways {
		w.looked += len(rows)
	}
	put := func(r *flat.Row, what byte) {
		differ = append(differ, r)
		w.note(r.ID, what)
	}
	for some := range slices.Chunk(rows, w.lookRows()) {
		i := 0
		err := w.old.each(ctx, w.c, w.byIDs("SELECT "+mysqlColumns+" FROM "+dayTable(day), len(some),
			func(i int) flat.ID { return some[i].ID }), func() {
			for ; i < len(some) && string(w.old.values[0]) != string(some[i].ID[:]); i++ {
				put(some[i], rowNew)
			}
			if i == len(some) {
				return
			}
			if w.old.replacedBy(some[i]) {
				put(some[i], rowChanged)
				changed++
			}
			w.found++
			i++
		})
		if err != nil {
			return nil, 0, err
		}
		for _, r := range some[i:] {
			put(r, rowNew)
		}
	}
	return differ, changed, nil
}

// lookRows is how many ids a statement asks for: an id has at most 42 bytes.
func (w *mysqlWriter) lookRows() int {
	return max(1, min(lookRows, (w.packet-len(mysqlColumns)-200)/42))
}

// byIDs is a statement about the rows with some ids, in their order.
func (w *mysqlWriter) byIDs(what string, n int, id func(int) flat.ID) string {
	e := &w.sql
	e.buf = append(e.buf[:0], what...)
	e.buf = append(e.buf, " WHERE id IN ("...)
	for i := range n {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		id := id(i)
		e.bytes(id[:])
	}
	e.buf = append(e.buf, ") ORDER BY id"...)
	return string(e.buf)
}

// oldRow is a row that is there.
type oldRow struct {
	values []sql.RawBytes
	into   []any
	e      encoder
}

// each calls f for each row that a query for mysqlColumns gives.
func (o *oldRow) each(ctx context.Context, c *mysqlpool.Conn, query string, f func()) error {
	if o.values == nil {
		o.values = make([]sql.RawBytes, len(flat.Columns))
		for i := range o.values {
			o.into = append(o.into, &o.values[i])
		}
		o.e.as = asText
	}
	rows, err := c.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(o.into...); err != nil {
			return err
		}
		f()
	}
	return rows.Err()
}

var linesColumn = columnAt("lines")

// replacedBy reports whether r replaces the row.
func (o *oldRow) replacedBy(r *flat.Row) bool {
	differs := false
	for i := range flat.Columns {
		c := &flat.Columns[i]
		old := o.values[i]
		if i == linesColumn {
			if n, err := strconv.ParseInt(string(old), 10, 64); err == nil && n > r.Lines {
				return false
			}
		}
		switch {
		case differs:
		case c.Null(r):
			differs = old != nil
		case c.Type == flat.Text:
			differs = o.e.clean(i, *c.Str(r)) != string(old)
		default:
			o.e.buf = o.e.buf[:0]
			o.e.column(i, r)
			differs = string(o.e.buf) != string(old)
		}
	}
	return differs
}

// write writes rows, by LOAD DATA if they are many and the server takes that.
// how is IGNORE, for rows that are new, or REPLACE. It returns the number of
// rows affected: 2 for one that was replaced.
func (w *mysqlWriter) write(ctx context.Context, day string, rows []*flat.Row, how string) (int64, error) {
	if w.local && (len(rows) >= loadFrom || w.packet < mysqlStatement) {
		n, err := w.loadData(ctx, day, rows, how)
		if !refusesLocal(err) {
			return n, err
		}
		w.local = false
	}
	verb := "INSERT"
	if how == "REPLACE" {
		verb = how
	}
	head := fmt.Sprintf("%s INTO %s (%s) VALUES ", verb, dayTable(day), mysqlColumns)
	return w.many(ctx, head, "", len(rows), func(i int) { w.sql.row(rows[i]) })
}

// loadData writes rows by LOAD DATA LOCAL. That makes warnings of errors, so
// there must be none but those of rows that IGNORE has left out.
func (w *mysqlWriter) loadData(ctx context.Context, day string, rows []*flat.Row, how string) (int64, error) {
	w.source.rows, w.source.next, w.source.e.buf, w.source.off = rows, 0, w.source.e.buf[:0], 0
	defer func() { w.source.rows = nil }()
	n, err := w.exec(ctx, "LOAD DATA LOCAL INFILE 'Reader::"+w.reader+"' "+how+" INTO TABLE "+dayTable(day)+
		` CHARACTER SET binary FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n' (`+mysqlColumns+")")
	if err != nil {
		return n, err
	}
	if how == "IGNORE" && n < int64(len(rows)) {
		return n, nil // to be looked at
	}
	var level, text string
	var code uint16
	switch err := w.c.QueryRowContext(ctx, "SHOW WARNINGS LIMIT 1").Scan(&level, &code, &text); err {
	case nil:
		return n, &mysql.MySQLError{Number: code, Message: text} // without LOCAL it would be one
	case sql.ErrNoRows:
		return n, nil
	default:
		return n, err
	}
}

func refusesLocal(err error) bool {
	switch mysqlpool.Code(err) {
	case 0:
		return false
	case 1148, 2068, 3948, 4166: // ER_NOT_ALLOWED_COMMAND, CR_LOAD_DATA_LOCAL_INFILE_REJECTED, MySQL's and MariaDB's own
		return true
	}
	return strings.Contains(err.Error(), "LOCAL INFILE") // a proxy
}

// rowSource gives rows as LOAD DATA reads them, encoded while the server works
// on those before.
type rowSource struct {
	e    encoder
	off  int // what of e.buf is read
	rows []*flat.Row
	next int
}

func (s *rowSource) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if s.off == len(s.e.buf) {
			if s.next == len(s.rows) {
				break
			}
			s.e.buf, s.off = s.e.buf[:0], 0
			s.e.row(s.rows[s.next])
			s.next++
		}
		m := copy(p[n:], s.e.buf[s.off:])
		n, s.off = n+m, s.off+m
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
