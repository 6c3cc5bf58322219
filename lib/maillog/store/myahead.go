package store

import (
	"database/sql/driver"
	"fmt"
	"iter"
	"slices"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// Candidates come by an index for each arm and day. Over a network each of
// these questions would cost as much as all together, so the days that follow
// are asked along, the more of them the longer the search goes on, and where
// that gave few ids, their rows are read at once too.

const (
	myFewDays  = 1  // asked at once first, where many rows are expected
	myManyDays = 32 // and where few are
	myMostDays = 64
	myFewIDs   = 64 // asked of an arm and day first
	mySpanIDs  = 512
	myMostIDs  = 4096
)

// myIDs are ids of a day.
type myIDs struct {
	ids   []flat.ID // in the order of the search, each once
	whole bool      // these are all; otherwise all up to the last one
}

// myAhead is what has been asked along.
type myAhead struct {
	c    *compiled
	days map[string]myIDs
	rows map[flat.ID]*flat.Row // nil: there is none that meets c.all
	next int                   // how many days are asked next
}

// ids asks the index of each arm.
func (v *myView) ids(c *compiled, day string, want int) iter.Seq2[flat.ID, error] {
	return func(yield func(flat.ID, error) bool) {
		limit := min(max(want, myFewIDs), myMostIDs)
		from, to := c.bounds()
		got, err := v.lookAhead(c, day, limit, want)
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

func (v *myView) span(c *compiled, day string) ([]flat.ID, error) {
	got, err := v.lookAhead(c, day, mySpanIDs, pageRows)
	if err != nil || got.whole {
		return got.ids, err
	}
	from, to := c.bounds()
	all, err := v.askIDs(c, []string{day}, from, to, maxSpan+1)
	return all[day].ids, err
}

// lookAhead gives the first ids of a day, and asks the following days with it.
func (v *myView) lookAhead(c *compiled, day string, limit, want int) (myIDs, error) {
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
	return got[day], v.readAhead(c, days, want)
}

// readAhead reads the rows of the first want ids, where these are of several
// days: rows of one day come in batches anyway.
func (v *myView) readAhead(c *compiled, days []string, want int) error {
	a := &v.ahead
	a.rows = nil
	var some []string
	var ids [][]flat.ID
	n := 0
	for _, day := range days {
		got := a.days[day]
		if n += len(got.ids); n > myMostRows {
			break
		}
		if len(got.ids) > 0 {
			some, ids = append(some, day), append(ids, got.ids)
		}
		if n >= want || !got.whole {
			break
		}
	}
	if len(some) < 2 {
		return nil
	}
	a.rows = map[flat.ID]*flat.Row{}
	for _, list := range ids {
		for _, id := range list {
			a.rows[id] = nil
		}
	}
	return v.readRows(c, some, ids, a.rows)
}

// askIDs asks all arms of some days, each for at most limit ids.
func (v *myView) askIDs(c *compiled, days []string, from, to flat.ID, limit int) (map[string]myIDs, error) {
	var questions []string
	var args []any
	for _, day := range days {
		for i := range c.arms {
			a := &c.arms[i]
			questions = append(questions, c.myIDsSQL(day, len(questions), a, limit))
			args = append(mysqlWords.args(args, a.conds), from, to)
		}
	}
	parts := make([][]flat.ID, len(days)*len(c.arms))
	err := v.query(days, union(questions), args, func(row []driver.Value) error {
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
	// Where an arm has more, nothing is known to be all behind its last id; of
	// one without order, nothing at all.
	for i, ids := range parts {
		if len(ids) < limit {
			continue
		}
		all.whole = false
		if n := slices.Index(all.ids, ids[len(ids)-1]); n >= 0 && c.arms[i].ordered {
			all.ids = all.ids[:n+1]
		}
	}
	return all
}

// myIDsSQL selects the ids of an arm, with the number n.
func (c *compiled) myIDsSQL(day string, n int, a *arm, limit int) string {
	sql := fmt.Sprintf("SELECT %d, id FROM %s FORCE INDEX (%s) WHERE %s AND id >= ? AND id < ?",
		n, dayTable(day), a.index, mysqlWords.join(a.conds, " AND "))
	if a.ordered {
		sql += order(c.q.OldestFirst)
	}
	return sql + fmt.Sprintf(" LIMIT %d", limit)
}
