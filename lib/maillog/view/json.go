package view

import (
	"encoding/csv"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// timeFormat is how programs get times: RFC 3339, UTC, milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// jsonWriter writes an object a line: every column by its name, null where
// the log says nothing, complete as 1 or 0, ids in hexadecimal digits.
type jsonWriter struct {
	w   io.Writer
	buf []byte
}

// flushAt is how many bytes are gathered before they are written.
const flushAt = 32 << 10

func (j *jsonWriter) row(r *flat.Row) error {
	j.buf = append(appendJSON(append(j.buf, '{'), r), '}', '\n')
	if len(j.buf) < flushAt {
		return nil
	}
	return j.flush()
}

func (j *jsonWriter) flush() error {
	_, err := j.w.Write(j.buf)
	j.buf = j.buf[:0]
	return err
}

func (j *jsonWriter) close() error {
	if len(j.buf) == 0 {
		return nil
	}
	return j.flush()
}

// appendJSON appends the members of a row's object.
func appendJSON(b []byte, r *flat.Row) []byte {
	for i := range flat.Columns {
		c := &flat.Columns[i]
		b = append(b, jsonKeys[i]...)
		b = appendValue(b, c, r)
	}
	return b
}

// jsonKeys are the keys, each with what stands around it.
var jsonKeys = func() (keys []string) {
	for i := range flat.Columns {
		keys = append(keys, []string{"", ","}[min(i, 1)]+`"`+flat.Columns[i].Name+`":`)
	}
	return keys
}()

func appendValue(b []byte, c *flat.Column, r *flat.Row) []byte {
	if c.Null(r) {
		return append(b, "null"...)
	}
	switch c.Type {
	case flat.Text:
		return appendString(b, *c.Str(r))
	case flat.Int:
		return strconv.AppendInt(b, *c.Int(r), 10)
	case flat.Float:
		f := *c.Float(r)
		if math.IsInf(f, 0) { // JSON has none
			return append(b, "null"...)
		}
		return strconv.AppendFloat(b, f, 'f', -1, 64)
	case flat.Time:
		b = append(b, '"')
		return append(time.UnixMilli(*c.Int(r)).UTC().AppendFormat(b, timeFormat), '"')
	case flat.Bool:
		if *c.Bool(r) {
			return append(b, '1')
		}
		return append(b, '0')
	default:
		return append(append(append(b, '"'), c.ID(r).String()...), '"')
	}
}

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string. Bytes that are no UTF-8 become U+FFFD;
// what could act on a terminal is escaped, so that JSON is safe to look at.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		plain := i
		for i < len(s) && ' ' <= s[i] && s[i] < 0x7f && s[i] != '"' && s[i] != '\\' {
			i++
		}
		if b = append(b, s[plain:i]...); i == len(s) {
			break
		}
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			b = appendRune(b, r)
			i += n
			continue
		}
		if c == '"' || c == '\\' {
			b = append(b, '\\', c)
		} else {
			b = appendUnit(b, rune(c))
		}
		i++
	}
	return append(b, '"')
}

func appendRune(b []byte, r rune) []byte {
	if unicode.IsPrint(r) || r == utf8.RuneError {
		return utf8.AppendRune(b, r)
	}
	if r > 0xffff {
		r -= 0x10000
		return appendUnit(appendUnit(b, 0xd800+r>>10), 0xdc00+r&0x3ff)
	}
	return appendUnit(b, r)
}

func appendUnit(b []byte, u rune) []byte {
	return append(b, '\\', 'u', hexDigits[u>>12&15], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}

// csvWriter writes RFC 4180: a header, and every column of each row as in
// JSON; null is empty.
//
// A spreadsheet takes a cell that begins with = + - or @ for a formula, and
// these texts come from strangers: such a cell gets an apostrophe in front.
// What must be exact is to be had as JSON.
type csvWriter struct {
	w     *csv.Writer
	cells []string
	begun bool
}

func newCSVWriter(w io.Writer) *csvWriter {
	c := csv.NewWriter(w)
	c.UseCRLF = true
	return &csvWriter{w: c, cells: make([]string, len(flat.Columns))}
}

func (c *csvWriter) header() error {
	if c.begun {
		return nil
	}
	c.begun = true
	for i := range flat.Columns {
		c.cells[i] = flat.Columns[i].Name
	}
	return c.w.Write(c.cells)
}

func (c *csvWriter) row(r *flat.Row) error {
	if err := c.header(); err != nil {
		return err
	}
	var buf []byte
	for i := range flat.Columns {
		col := &flat.Columns[i]
		switch {
		case col.Null(r):
			c.cells[i] = ""
		case col.Type == flat.Text:
			c.cells[i] = harmless(*col.Str(r))
		default:
			buf = appendValue(buf[:0], col, r)
			c.cells[i] = strings.Trim(string(buf), `"`)
		}
	}
	return c.w.Write(c.cells)
}

func (c *csvWriter) close() error {
	if err := c.header(); err != nil {
		return err
	}
	c.w.Flush()
	return c.w.Error()
}

// harmless is a text as a CSV cell.
func harmless(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
	if s != "" && strings.IndexByte("=+-@\t\r", s[0]) >= 0 {
		return "'" + s
	}
	return s
}
