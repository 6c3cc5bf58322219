package store

import (
	"database/sql/driver"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

const (
	myFewRows  = 16 // asked by their ids at once first
	myMostRows = 256
	myScanRows = 4096 // of a scan, in one answer
	myCommits  = 8    // in one answer

	myWindow = 3 * time.Hour // of a scan, in one answer, first
	myDay    = 24 * time.Hour
	myQuick  = 300 * time.Millisecond // an answer after which the next window is longer
	mySlow   = 2 * time.Second        // and shorter
)

// mysqlWords are MySQL's words for conditions. A prefix is a pattern: in the
// order of a collation that ignores case, a range would be another one.
//
// An answer may hold more than what was asked: MySQL takes a for ä in a column
// that ignores case, and pays no heed to spaces at the end.
var mysqlWords = dialect{
	prefix:     func(col string) string { return col + " LIKE ? ESCAPE '!'" },
	prefixArgs: func(prefix string) []any { return []any{myLike.Replace(prefix) + "%"} },
}

var myLike = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")

// rows reads rows in batches.
func (v *myView) rows(c *compiled, day string, want int, ids iter.Seq[flat.ID], look func(flat.ID, rawRow) bool) error {
	size := min(max(want, myFewRows), myMostRows)
	var batch []flat.ID
	for id := range ids {
		if batch = append(batch, id); len(batch) < size {
			continue
		}
		goOn, err := v.batch(c, day, batch, look)
		if err != nil || !goOn {
			return err
		}
		batch, size = batch[:0], min(2*size, myMostRows)
	}
	_, err := v.batch(c, day, batch, look)
	return err
}

func (v *myView) batch(c *compiled, day string, ids []flat.ID, look func(flat.ID, rawRow) bool) (goOn bool, err error) {
	found := map[flat.ID]*flat.Row{}
	var ask []flat.ID
	for _, id := range ids {
		r, known := v.ahead.rows[id]
		if known && v.ahead.c == c {
			found[id] = r
		} else {
			ask = append(ask, id)
		}
	}
	if len(ask) > 0 {
		if err := v.readRows(c, []string{day}, [][]flat.ID{ask}, found); err != nil {
			return false, err
		}
	}
	for _, id := range ids {
		if r := found[id]; r == nil {
			goOn = look(id, nil)
		} else {
			goOn = look(id, keptRow{r})
		}
		if !goOn {
			return false, nil
		}
	}
	return true, nil
}

// readRows reads the rows of ids of some days that meet c.all.
func (v *myView) readRows(c *compiled, days []string, ids [][]flat.ID, found map[flat.ID]*flat.Row) error {
	var parts []string
	var args []any
	for i, day := range days {
		parts = append(parts, c.myRowsSQL(day, len(ids[i])))
		for _, id := range ids[i] {
			args = append(args, id)
		}
		args = mysqlWords.args(args, c.all)
	}
	return v.query(days, union(parts), args, func(row []driver.Value) error {
		v.row.values = row
		r := v.row.row()
		found[r.ID] = r
		return v.row.err
	})
}

// union is several questions as one.
func union(parts []string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	return "(" + strings.Join(parts, ") UNION ALL (") + ")"
}

// myRowsSQL selects the rows of n ids that meet the conditions.
func (c *compiled) myRowsSQL(day string, n int) string {
	sql := fmt.Sprintf("SELECT %s FROM %s FORCE INDEX (PRIMARY) WHERE id IN (?%s)", myColumns, dayTable(day), strings.Repeat(", ?", n-1))
	if len(c.all) > 0 {
		sql += " AND " + mysqlWords.join(c.all, " AND ")
	}
	return sql
}

// scan reads a day in order of id, by pieces of time that are longer the less
// they take: the server must not be silent for long, and a search that is
// given up must not leave it working.
func (v *myView) scan(c *compiled, day string, want int, look func(rawRow) bool, passed func(flat.ID) bool) error {
	from, to := dayBounds(day)
	first, last := c.bounds()
	from, to = maxID(from, first), minID(to, last)
	if v.window == 0 {
		v.window = myWindow
	}
	limit := min(max(want, myFewIDs), myScanRows)
	free := len(c.all)+len(c.arms) == 0 // the limit alone says how long it takes
	for less(from, to) {
		lo, hi := from, to
		if c.q.OldestFirst {
			hi = minID(to, flat.MakeID(from.UnixMilli()+v.window.Milliseconds(), 0, 0))
		} else {
			lo = maxID(from, flat.MakeID(max(to.UnixMilli()-v.window.Milliseconds(), 0), 0, 0))
		}
		if free || v.window >= myDay || to == lastID {
			lo, hi = from, to
		}
		begun := time.Now()
		n, seen, goOn, err := v.piece(c, day, lo, hi, limit, look)
		if err != nil || !goOn {
			return err
		}
		switch took := time.Since(begun); {
		case took < myQuick:
			v.window = min(4*v.window, myDay)
		case took > mySlow:
			v.window = max(v.window/4, time.Minute)
		}
		whole := n < limit
		limit = min(4*limit, myScanRows)
		edge := &from
		switch {
		case c.q.OldestFirst && whole:
			from = hi
		case c.q.OldestFirst:
			from = successor(seen)
		case whole:
			to, edge = lo, &to
		default:
			to, edge = seen, &to
		}
		if !passed(*edge) {
			return nil
		}
	}
	return nil
}

// piece reads at most limit rows between two ids: how many, and the last one.
func (v *myView) piece(c *compiled, day string, lo, hi flat.ID, limit int, look func(rawRow) bool) (
	n int, seen flat.ID, goOn bool, err error,
) {
	args := mysqlWords.args([]any{lo, hi}, c.all)
	for i := range c.arms {
		args = mysqlWords.args(args, c.arms[i].conds)
	}
	goOn = true
	err = v.query([]string{day}, c.myScanSQL(day, limit), args, func(row []driver.Value) error {
		v.row.values = row
		n, seen = n+1, v.row.id()
		if goOn = look(&v.row); !goOn {
			return errEnough
		}
		return v.row.err
	})
	return n, seen, goOn, err
}

// myScanSQL selects rows of a day in the order they lie in.
func (c *compiled) myScanSQL(day string, limit int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "SELECT %s FROM %s FORCE INDEX (PRIMARY) WHERE id >= ? AND id < ?", myColumns, dayTable(day))
	if len(c.all) > 0 {
		b.WriteString(" AND " + mysqlWords.join(c.all, " AND "))
	}
	b.WriteString(mysqlWords.either(" AND ", c.arms) + order(c.q.OldestFirst))
	fmt.Fprintf(&b, " LIMIT %d", limit)
	return b.String()
}

func (v *myView) lastCommit() (int64, error) { return v.seq, nil }

func (v *myView) commits(after int64, f func(seq int64, ids []byte) bool) error {
	for {
		n, goOn := 0, true
		sql := fmt.Sprintf("SELECT seq, ids FROM %s WHERE seq > ? ORDER BY seq LIMIT %d", mysqlChanges, myCommits)
		err := v.query(nil, sql, []any{after}, func(row []driver.Value) error {
			n, after = n+1, myInt(row[0])
			ids, _ := row[1].([]byte)
			if goOn = f(after, ids); !goOn {
				return errEnough
			}
			return nil
		})
		if err != nil || !goOn || n < myCommits {
			return err
		}
	}
}
