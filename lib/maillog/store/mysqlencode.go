package store

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// encoder writes values. It allocates nothing once its buffer has grown.
type encoder struct {
	buf  []byte
	as   encoding
	day  int64    // the day in date
	date [11]byte // "2006-01-02 "
}

type encoding uint8

const (
	asLoad encoding = iota // for LOAD DATA: a tab between fields, a newline behind a row, \N for NULL
	asSQL                  // literals, for a statement
	asText                 // as the server sends it, for one value alone
)

// DATETIME's range: what is outside is put at its end.
var (
	minDateTime = time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	maxDateTime = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() - 1
)

const dayMillis = 86400000

// row appends a row: a line of LOAD DATA, or the values between parentheses.
func (e *encoder) row(r *flat.Row) {
	sep, end := byte('\t'), byte('\n')
	if e.as == asSQL {
		sep, end = ',', ')'
		e.buf = append(e.buf, '(')
	}
	for i := range flat.Columns {
		if i > 0 {
			e.buf = append(e.buf, sep)
		}
		e.column(i, r)
	}
	e.buf = append(e.buf, end)
}

// column appends the value of the column flat.Columns[i].
func (e *encoder) column(i int, r *flat.Row) {
	c := &flat.Columns[i]
	switch c.Type {
	case flat.Text:
		if v := *c.Str(r); v != "" {
			e.string(e.clean(i, v))
			return
		}
	case flat.RowID:
		if id := c.ID(r); !id.IsZero() || i == 0 {
			e.bytes(id[:])
			return
		}
	case flat.Time:
		if v := *c.Int(r); v != 0 {
			e.quote()
			e.time(v)
			e.quote()
			return
		}
	case flat.Int:
		if v := *c.Int(r); v != flat.NoInt {
			e.buf = strconv.AppendInt(e.buf, v, 10)
			return
		}
	case flat.Float:
		if v := *c.Float(r); !math.IsNaN(v) {
			e.buf = strconv.AppendFloat(e.buf, finite(v), 'g', -1, 64)
			return
		}
	case flat.Bool:
		e.buf = append(e.buf, '0')
		if *c.Bool(r) {
			e.buf[len(e.buf)-1] = '1'
		}
		return
	}
	e.null()
}

// finite is the number next to v that a DOUBLE can hold. The server says 0 for
// the negative one.
func finite(v float64) float64 { return min(max(v, -math.MaxFloat64), math.MaxFloat64) + 0 }

func (e *encoder) null() {
	if e.as == asSQL {
		e.buf = append(e.buf, "NULL"...)
	} else {
		e.buf = append(e.buf, '\\', 'N')
	}
}

func (e *encoder) quote() {
	if e.as == asSQL {
		e.buf = append(e.buf, '\'')
	}
}

// clean is a text as the column keeps it: in UTF-8, and no longer than the
// column, in one form if it is an address.
func (e *encoder) clean(i int, v string) string {
	limit := flat.Columns[i].Max
	if i == clientIP {
		v = canonicalIP(v)
	}
	if !utf8.ValidString(v) {
		v = toUTF8(v, limit)
	}
	if len(v) > limit {
		v = cut(v, limit)
	}
	return v
}

// mysqlText is a text as a column keeps it, whatever its length.
func mysqlText(v string) string {
	if utf8.ValidString(v) {
		return v
	}
	return toUTF8(v, len(v)*utf8.UTFMax)
}

// toUTF8 replaces each byte that is not UTF-8, by about as much as is kept.
func toUTF8(v string, limit int) string {
	b := make([]byte, 0, limit+2*utf8.UTFMax)
	for _, r := range v {
		if len(b) > limit {
			break
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}

// special are the bytes that stand for something in LOAD DATA's format or in
// a quoted literal, and what follows the backslash.
var special = func() (t [256]byte) {
	t[0], t['\t'], t['\n'], t['\r'], t['\\'], t['\''] = '0', 't', 'n', 'r', '\\', '\''
	return t
}()

// string appends a text.
func (e *encoder) string(s string) {
	if e.as == asText {
		e.buf = append(e.buf, s...)
		return
	}
	e.quote()
	from := 0
	for i := 0; i < len(s); i++ {
		if to := special[s[i]]; to != 0 {
			e.buf = append(append(e.buf, s[from:i]...), '\\', to)
			from = i + 1
		}
	}
	e.buf = append(e.buf, s[from:]...)
	e.quote()
}

// bytes appends what is no text.
func (e *encoder) bytes(b []byte) {
	if e.as == asText {
		e.buf = append(e.buf, b...)
		return
	}
	if e.as == asSQL {
		e.buf = append(e.buf, "_binary"...)
	}
	e.quote()
	from := 0
	for i, c := range b {
		if to := special[c]; to != 0 {
			e.buf = append(append(e.buf, b[from:i]...), '\\', to)
			from = i + 1
		}
	}
	e.buf = append(e.buf, b[from:]...)
	e.quote()
}

// time appends a time: 2006-01-02 15:04:05.000.
func (e *encoder) time(ms int64) {
	ms = min(max(ms, minDateTime), maxDateTime)
	day, rest := ms/dayMillis, ms%dayMillis
	if rest < 0 {
		day, rest = day-1, rest+dayMillis
	}
	if day != e.day || e.date[0] == 0 {
		time.Unix(day*86400, 0).UTC().AppendFormat(e.date[:0], "2006-01-02 ")
		e.day = day
	}
	e.buf = append(e.buf, e.date[:]...)
	e.two(rest/3600000, ':')
	e.two(rest/60000%60, ':')
	e.two(rest/1000%60, '.')
	e.buf = append(e.buf, '0'+byte(rest/100%10), '0'+byte(rest/10%10), '0'+byte(rest%10))
}

func (e *encoder) two(n int64, sep byte) {
	e.buf = append(e.buf, '0'+byte(n/10), '0'+byte(n%10), sep)
}
