package store

import (
	"database/sql/driver"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// myColumns are the columns of a day in the order of flat.Columns, quoted:
// "lines" is a word of MySQL's.
var myColumns = "`" + strings.ReplaceAll(columnList, ", ", "`, `") + "`"

// myRow is a row as it came over the network.
type myRow struct {
	values []driver.Value // of myColumns
	buf    []byte
	ends   []int
	err    error // the first value that was not what it should be
}

func (r *myRow) id() (id flat.ID) {
	copy(id[:], r.text(0))
	return id
}

func (r *myRow) text(col int) []byte {
	b, _ := r.values[col].([]byte)
	return b
}

// row turns the values into a flat row. The texts are one allocation.
func (r *myRow) row() *flat.Row {
	f := &flat.Row{}
	f.Clear()
	r.buf, r.ends = r.buf[:0], r.ends[:0]
	for i := range flat.Columns {
		c := &flat.Columns[i]
		v := r.values[i]
		switch {
		case c.Type == flat.Text:
			r.buf = append(r.buf, r.text(i)...)
			r.ends = append(r.ends, len(r.buf))
		case v == nil:
		case c.Type == flat.Time:
			*c.Int(f) = r.time(c, v)
		case c.Type == flat.Int:
			*c.Int(f) = r.int(c, v)
		case c.Type == flat.Bool:
			*c.Bool(f) = r.int(c, v) != 0
		case c.Type == flat.Float:
			*c.Float(f) = r.float(c, v)
		case c.Type == flat.RowID:
			copy(c.ID(f)[:], r.text(i))
		}
	}
	all, n, begin := string(r.buf), 0, 0
	for i := range flat.Columns {
		if c := &flat.Columns[i]; c.Type == flat.Text {
			*c.Str(f) = all[begin:r.ends[n]]
			begin = r.ends[n]
			n++
		}
	}
	return f
}

// wrong notes that a column has another type than the one it was made with.
func (r *myRow) wrong(c *flat.Column, v any) {
	if r.err == nil {
		r.err = fmt.Errorf("column %s: %.40q is no %s", c.Name, fmt.Sprint(v), myTypeName[c.Type])
	}
}

var myTypeName = map[flat.Type]string{flat.Int: "whole number", flat.Bool: "whole number", flat.Float: "number", flat.Time: "time"}

// asNumber reads a number, which the driver may have left as text.
func asNumber[T any](r *myRow, c *flat.Column, v driver.Value, parse func(string) (T, error)) T {
	if b, ok := v.([]byte); ok {
		if n, err := parse(string(b)); err == nil {
			return n
		}
	}
	r.wrong(c, v)
	var zero T
	return zero
}

func (r *myRow) int(c *flat.Column, v driver.Value) int64 {
	if n, ok := v.(int64); ok {
		return n
	}
	return asNumber(r, c, v, func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) })
}

func (r *myRow) float(c *flat.Column, v driver.Value) float64 {
	switch n := v.(type) {
	case float64:
		return n
	case int64:
		return float64(n)
	}
	return asNumber(r, c, v, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) })
}

func (r *myRow) time(c *flat.Column, v driver.Value) int64 {
	switch t := v.(type) {
	case time.Time:
		return t.UnixMilli()
	case []byte:
		if ms, ok := parseDateTime(t); ok {
			return ms
		}
	}
	r.wrong(c, v)
	return 0
}

// parseDateTime reads 2006-01-02 15:04:05 with up to six decimals, of UTC.
func parseDateTime(b []byte) (ms int64, ok bool) {
	const form = "0000-00-00 00:00:00"
	if len(b) < len(form) || len(b) > len(form)+7 {
		return 0, false
	}
	var field [6]int
	n := 0
	for i := range form {
		switch {
		case form[i] != '0':
			if b[i] != form[i] {
				return 0, false
			}
			n++
		case b[i] < '0' || b[i] > '9':
			return 0, false
		default:
			field[n] = field[n]*10 + int(b[i]-'0')
		}
	}
	milli, scale := 0, 100
	for i, d := range b[len(form):] {
		if i == 0 {
			if d != '.' {
				return 0, false
			}
			continue
		}
		if d < '0' || d > '9' {
			return 0, false
		}
		milli += int(d-'0') * scale
		scale /= 10
	}
	if field[1] < 1 || field[1] > 12 || field[2] < 1 || field[2] > 31 || field[3] > 23 || field[4] > 59 || field[5] > 59 {
		return 0, false // also MySQL's 0000-00-00
	}
	t := time.Date(field[0], time.Month(field[1]), field[2], field[3], field[4], field[5], 0, time.UTC)
	return t.UnixMilli() + int64(milli), true
}

// keptRow is a row that has been read already.
type keptRow struct{ *flat.Row }

func (r keptRow) id() flat.ID    { return r.ID }
func (r keptRow) row() *flat.Row { return r.Row }

func (r keptRow) text(col int) []byte { return []byte(*flat.Columns[col].Str(r.Row)) }
