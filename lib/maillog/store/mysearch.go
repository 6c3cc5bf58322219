package store

import (
	"database/sql/driver"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

const (
	myFewDays  = 1  // asked at once first, where many rows are expected
	myManyDays = 32 // and where few are
	myMostDays = 64
	myFewIDs   = 64 // asked of an arm and day first
	myMostIDs  = 4096
	myFewRows  = 16
	myMostRows = 256
	myScanRows = 4096 // of a scan, in one answer
	myWindow   = 3 * time.Hour
	myDay      = 24 * time.Hour
	myQuick    = 300 * time.Millisecond
	mySlow     = 2 * time.Second
	myCommits  = 8 // in one answer
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

// myIDs are ids of a day.
type myIDs struct {
	ids   []flat.ID // in the order of the search, each once
	whole bool      // these are all; otherwise all up to the last one
}

// myAhead are the ids of days that have been asked along with others.
type myAhead struct {
	c    *compiled
	days map[string]myIDs
	next int // how many days are asked next
}

// ids asks the index of each arm for some ids, many days at a time if need be.
func (v *myView) ids(c *compiled, day string, want int) iter.Seq2[flat.ID, error] {
	return func(yield func(flat.ID, error) bool) {
		limit := min(max(want, myFewIDs), myMostIDs)
		from, to := c.bounds()
		got, err := v.lookAhead(c, day, limit)
		for err == nil {
			for _, id := range got.ids {
				if !yield(id, nil) {
					return
				}
			}
			if got.whole {
				return
			}
			if last := got.ids[len(got.ids)-1]; c.q.OldestFirst {
				from = successor(last)
			} else {
				to = last
			}
			limit = min(4*limit, myMostIDs)
			var more map[string]myIDs
			more, err = v.askIDs(c, []string{day}, from, to, limit)
			got = more[day]
		}
		yield(flat.ID{}, err)
	}
}

// lookAhead gives the first ids of a day, and asks the following days with it:
// the more, the longer the search goes on.
func (v *myView) lookAhead(c *compiled, day string, limit int) (myIDs, error) {
	a := &v.ahead
	if a.c != c {
		*a = myAhead{c: c, next: myFewDays}
		if q := c.q; q.QueueID != "" || q.MessageID != "" || !q.ParentID.IsZero() {
			a.next = myManyDays
		}
	}
	if got, ok := a.days[day]; ok {
		return got, nil
	}
	var days []string
	all := c.daysOf(v.all)
	for _, d := range all[max(slices.Index(all, day), 0):] {
		if len(days) == a.next {
			break
		}
		if !slices.ContainsFunc(c.arms, func(a arm) bool { return !v.has(d, a.index) }) {
			days = append(days, d)
		}
	}
	if !slices.Contains(days, day) {
		days = []string{day}
	}
	from, to := c.bounds()
	got, err := v.askIDs(c, days, from, to, limit)
	if err != nil {
		return myIDs{}, err
	}
	a.days, a.next = got, min(4*a.next, myMostDays)
	return got[day], nil
}

// askIDs asks all arms of some days, each for at most limit ids.
func (v *myView) askIDs(c *compiled, days []string, from, to flat.ID, limit int) (map[string]myIDs, error) {
	var b strings.Builder
	var args []any
	for d, day := range days {
		for i := range c.arms {
			if b.Len() > 0 {
				b.WriteString(" UNION ALL ")
			}
			a := &c.arms[i]
			fmt.Fprintf(&b, "(%s LIMIT %d)", myIDsSQL(day, d*len(c.arms)+i, a)+order(c.q.OldestFirst), limit)
			args = append(mysqlWords.args(args, a.conds), from, to)
		}
	}
	parts := make([][]flat.ID, len(days)*len(c.arms))
	err := v.query(days, b.String(), args, func(row []driver.Value) error {
		n := int(myInt(row[0]))
		parts[n] = append(parts[n], myID(row[1]))
		return nil
	})
	if err != nil {
		return nil, err
	}
	got := map[string]myIDs{}
	for i, day := range days {
		got[day] = c.mergeIDs(parts[i*len(c.arms):][:len(c.arms)], limit)
	}
	return got, nil
}

// mergeIDs makes one list of what the arms gave when each was asked for at
// most limit ids.
func (c *compiled) mergeIDs(parts [][]flat.ID, limit int) myIDs {
	all := myIDs{whole: true}
	for _, ids := range parts {
		all.ids = append(all.ids, ids...)
	}
	c.sort(all.ids)
	all.ids = slices.Compact(all.ids)
	// Where an arm has more, nothing is known to be all behind its last id.
	for _, ids := range parts {
		if len(ids) < limit {
			continue
		}
		all.whole = false
		if n := slices.Index(all.ids, ids[len(ids)-1]); n >= 0 {
			all.ids = all.ids[:n+1]
		}
	}
	return all
}

// myIDsSQL selects the ids of an arm, with the number i.
func myIDsSQL(day string, i int, a *arm) string {
	return fmt.Sprintf("SELECT %d, id FROM %s FORCE INDEX (%s) WHERE %s AND id >= ? AND id < ?",
		i, dayTable(day), a.index, mysqlWords.join(a.conds, " AND "))
}

func (v *myView) span(c *compiled, day string) (ids []flat.ID, err error) {
	a := &c.arms[0]
	from, to := c.bounds()
	sql := fmt.Sprintf("%s LIMIT %d", myIDsSQL(day, 0, a), maxSpan+1)
	err = v.query([]string{day}, sql, append(mysqlWords.args(nil, a.conds), from, to), func(row []driver.Value) error {
		ids = append(ids, myID(row[1]))
		return nil
	})
	return ids, err
}

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
	if len(ids) == 0 {
		return true, nil
	}
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	found := make(map[flat.ID]*flat.Row, len(ids))
	err = v.query([]string{day}, c.myRowsSQL(day, len(ids)), mysqlWords.args(args, c.all), func(row []driver.Value) error {
		v.row.values = row
		r := v.row.row()
		found[r.ID] = r
		return v.row.err
	})
	if err != nil {
		return false, err
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
	for less(from, to) {
		lo, hi := from, to
		if c.q.OldestFirst {
			hi = minID(to, flat.MakeID(from.UnixMilli()+v.window.Milliseconds(), 0, 0))
		} else {
			lo = maxID(from, flat.MakeID(max(to.UnixMilli()-v.window.Milliseconds(), 0), 0, 0))
		}
		if v.window >= myDay || to == lastID {
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
