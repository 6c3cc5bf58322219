package store

import (
	"fmt"
	"strings"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
)

// The three statements of a search. They have no functions on columns and no
// joins, and name the index they use: the plan never depends on statistics.

// sqliteWords are SQLite's words for conditions. A prefix is a range, which an
// index can answer: of texts in lower case, or in binary order.
var sqliteWords = dialect{
	prefix: func(col string) string { return col + " >= ? AND " + col + " < ?" },
	prefixArgs: func(prefix string) []any {
		end := []byte(prefix)
		end[len(end)-1]++ // ASCII
		return []any{prefix, string(end)}
	},
}

// idsSQL selects the ids of an arm.
func idsSQL(day string, a *arm, oldest bool) string {
	sql := fmt.Sprintf("SELECT id FROM %s INDEXED BY %s WHERE %s AND id >= ? AND id < ?",
		dayTable(day), indexName(day, a.index), sqliteWords.join(a.conds, " AND "))
	if a.ordered {
		return sql + order(oldest)
	}
	return sql + fmt.Sprintf(" LIMIT %d", maxSpan+1)
}

// scanSQL selects rows of a day in the order they lie in. (NOT INDEXED does not
// keep SQLite from other indexes where the table itself is one.)
func (c *compiled) scanSQL(day string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "SELECT %s FROM %s INDEXED BY %s WHERE id >= ? AND id < ?", columnList, dayTable(day), primaryKey(day))
	if len(c.all) > 0 {
		b.WriteString(" AND " + sqliteWords.join(c.all, " AND "))
	}
	return b.String() + sqliteWords.either(" AND ", c.arms) + order(c.q.OldestFirst)
}

// rowSQL selects the row of an id, if it meets the conditions.
func (c *compiled) rowSQL(day string) string {
	sql := fmt.Sprintf("SELECT %s FROM %s WHERE id = ?", columnList, dayTable(day))
	if len(c.all) > 0 {
		sql += " AND " + sqliteWords.join(c.all, " AND ")
	}
	return sql
}

// binder binds parameters one after another.
type binder struct {
	s *lite.Stmt
	n int
}

func (b *binder) id(id flat.ID) {
	b.n++
	b.s.BindBlob(b.n, id[:])
}

func (b *binder) bounds(c *compiled) {
	from, to := c.bounds()
	b.id(from)
	b.id(to)
}

func (b *binder) conds(conds []cond) {
	for _, a := range sqliteWords.args(nil, conds) {
		switch v := a.(type) {
		case string:
			b.n++
			b.s.BindText(b.n, v)
		case flat.ID:
			b.id(v)
		default:
			panic(fmt.Sprintf("store: cannot bind a %T", a))
		}
	}
}
