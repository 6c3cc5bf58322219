package store

import (
	"math"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
)

// bindRow binds a row's values to the parameters of insertRow and updateRow.
// What is NULL stays unbound.
func bindRow(s *lite.Stmt, r *flat.Row) {
	for i := range flat.Columns {
		c := &flat.Columns[i]
		switch c.Type {
		case flat.Text:
			if v := *c.Str(r); v != "" {
				if i == clientIP {
					v = canonicalIP(v)
				}
				if len(v) > c.Max {
					v = cut(v, c.Max)
				}
				s.BindText(i+1, v)
			}
		case flat.Int:
			if v := *c.Int(r); v != flat.NoInt {
				s.BindInt(i+1, v)
			}
		case flat.Time:
			if v := *c.Int(r); v != 0 {
				s.BindInt(i+1, v)
			}
		case flat.Float:
			if v := *c.Float(r); !math.IsNaN(v) {
				s.BindFloat(i+1, v)
			}
		case flat.Bool:
			v := int64(0)
			if *c.Bool(r) {
				v = 1
			}
			s.BindInt(i+1, v)
		case flat.RowID:
			if id := c.ID(r); !id.IsZero() {
				s.BindBlob(i+1, id[:])
			}
		}
	}
}

// rowReader turns a statement's rows into flat ones.
type rowReader struct {
	buf  []byte
	ends []int
}

// read reads the columns of columnList. The texts are one allocation.
func (rr *rowReader) read(s *lite.Stmt) *flat.Row {
	r := &flat.Row{}
	r.Clear()
	rr.buf, rr.ends = rr.buf[:0], rr.ends[:0]
	for i := range flat.Columns {
		c := &flat.Columns[i]
		if c.Type == flat.Text {
			rr.buf = append(rr.buf, s.Bytes(i)...)
			rr.ends = append(rr.ends, len(rr.buf))
			continue
		}
		if s.Null(i) {
			continue
		}
		switch c.Type {
		case flat.Int, flat.Time:
			*c.Int(r) = s.Int(i)
		case flat.Float:
			*c.Float(r) = s.Float(i)
		case flat.Bool:
			*c.Bool(r) = s.Int(i) != 0
		case flat.RowID:
			copy(c.ID(r)[:], s.Bytes(i))
		}
	}
	all, n, begin := string(rr.buf), 0, 0
	for i := range flat.Columns {
		if c := &flat.Columns[i]; c.Type == flat.Text {
			*c.Str(r) = all[begin:rr.ends[n]]
			begin = rr.ends[n]
			n++
		}
	}
	return r
}
