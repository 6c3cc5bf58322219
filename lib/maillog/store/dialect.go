package store

import (
	"strings"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// dialect is how a kind of database words conditions. Values are parameters,
// always.
type dialect struct {
	prefix     func(col string) string   // hasPrefix
	prefixArgs func(prefix string) []any // its parameters
}

// join is the conditions, with their parameters as ?.
func (d *dialect) join(conds []cond, sep string) string {
	var b strings.Builder
	for i := range conds {
		if i > 0 {
			b.WriteString(sep)
		}
		d.write(&b, &conds[i])
	}
	return b.String()
}

func (d *dialect) write(b *strings.Builder, c *cond) {
	switch c.op {
	case isIn:
		if b.WriteString(c.col); len(c.args) == 1 {
			b.WriteString(" = ?")
		} else {
			b.WriteString(" IN (?" + strings.Repeat(", ?", len(c.args)-1) + ")")
		}
	case hasPrefix:
		b.WriteString(d.prefix(c.col))
	case isNull:
		b.WriteString(c.col + " IS NULL")
	case notNull:
		b.WriteString(c.col + " IS NOT NULL")
	case anyOf:
		b.WriteString("(" + d.join(c.or, " OR ") + ")")
	}
}

// args appends the parameters of conditions, in their order, to list.
func (d *dialect) args(list []any, conds []cond) []any {
	for i := range conds {
		switch c := &conds[i]; c.op {
		case isIn:
			list = append(list, c.args...)
		case hasPrefix:
			list = append(list, d.prefixArgs(c.args[0].(string))...)
		case anyOf:
			list = d.args(list, c.or)
		}
	}
	return list
}

// either is the arms as one condition, with the word before it; nothing if
// there are none.
func (d *dialect) either(word string, arms []arm) string {
	if len(arms) == 0 {
		return ""
	}
	var all []string
	for i := range arms {
		all = append(all, "("+d.join(arms[i].conds, " AND ")+")")
	}
	return word + "(" + strings.Join(all, " OR ") + ")"
}

func order(oldest bool) string {
	if oldest {
		return " ORDER BY id"
	}
	return " ORDER BY id DESC"
}

// lastID is greater than every row's.
var lastID = flat.MakeID(1<<48-1, ^uint64(0), ^uint64(0))

// bounds are those of the ids looked for: from <= id < to.
func (c *compiled) bounds() (from, to flat.ID) {
	if c.to.IsZero() {
		return c.from, lastID
	}
	return c.from, c.to
}
