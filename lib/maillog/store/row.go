package store

import (
	"math"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
)

// clientIP is where flat.Columns has the column that is put in canonical form.
var clientIP = columnAt("client_ip")

func columnAt(name string) int {
	for i, c := range flat.Columns {
		if c.Name == name {
			return i
		}
	}
	panic("store: no column " + name)
}

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

const ellipsis = "…"

// cut shortens s to at most limit bytes, at a rune, and marks it.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	mark := ellipsis
	if limit < len(mark) {
		mark = ""
	}
	n := limit - len(mark)
	// Back to the begin of a rune, but not far: s may be no UTF-8 at all.
	for back := 0; back < utf8.UTFMax-1 && n > 0 && !utf8.RuneStart(s[n]); back++ {
		n--
	}
	if !utf8.RuneStart(s[n]) {
		n = limit - len(mark)
	}
	return s[:n] + mark
}

// canonicalIP is the one form of an address that a search looks for: IPv6 as
// RFC 5952 has it, IPv4 within IPv6 as IPv4. What is no address stays.
func canonicalIP(s string) string {
	if strings.IndexByte(s, ':') < 0 {
		return s
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return s
	}
	return a.Unmap().String()
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
