package store

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
)

// loadLine reads a line as LOAD DATA does. A nil field is NULL.
func loadLine(line []byte) (fields [][]byte, rest []byte, err error) {
	field, null := []byte{}, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case '\t', '\n':
			if null {
				field = nil
			}
			fields = append(fields, field)
			if c == '\n' {
				return fields, line[i+1:], nil
			}
			field, null = []byte{}, false
		case '\\':
			if i++; i == len(line) {
				return nil, nil, fmt.Errorf("a backslash at the end")
			}
			switch e := line[i]; e {
			case 'N':
				null = true
			case '0':
				field = append(field, 0)
			case 't':
				field = append(field, '\t')
			case 'n':
				field = append(field, '\n')
			case 'r':
				field = append(field, '\r')
			case '\\', '\'':
				field = append(field, e)
			default:
				return nil, nil, fmt.Errorf("\\%c", e)
			}
		case 0:
			return nil, nil, fmt.Errorf("a plain NUL")
		default:
			field = append(field, c)
		}
	}
	return nil, nil, fmt.Errorf("no newline: %q", line)
}

// wantLine reports an error unless a line of LOAD DATA is the row.
func wantLine(t *testing.T, line []byte, r *flat.Row) {
	t.Helper()
	fields, rest, err := loadLine(line)
	if err != nil || len(rest) > 0 || len(fields) != len(flat.Columns) {
		t.Fatalf("%d fields, want %d, %q is left, %v: %q", len(fields), len(flat.Columns), rest, err, line)
	}
	text := &encoder{as: asText}
	for i := range flat.Columns {
		c := &flat.Columns[i]
		if c.Null(r) && i > 0 {
			if fields[i] != nil {
				t.Errorf("%s: %q, want NULL", c.Name, fields[i])
			}
			continue
		}
		text.buf = text.buf[:0]
		text.column(i, r)
		if !bytes.Equal(fields[i], text.buf) {
			t.Errorf("%s: %q, want %q", c.Name, fields[i], text.buf)
		}
		if c.Type == flat.Text && (!utf8.Valid(fields[i]) || len(fields[i]) > c.Max) {
			t.Errorf("%s: %d bytes of at most %d, %q", c.Name, len(fields[i]), c.Max, fields[i])
		}
	}
}

func TestMySQLEncode(t *testing.T) {
	e := &encoder{}
	for _, r := range append(storetest.New(1, noon, 7).Rows(300), strangeRows()...) {
		e.buf = e.buf[:0]
		e.row(r)
		wantLine(t, e.buf, r)
	}
}

func TestMySQLEncodeAllocatesNothing(t *testing.T) {
	e := &encoder{}
	rows := storetest.New(1, noon, 70000).Rows(100)
	for _, r := range rows {
		e.row(r)
	}
	n := testing.AllocsPerRun(10, func() {
		for _, r := range rows {
			if r.ClientIP[:2] == "10" { // IPv6 is parsed for its one form
				e.buf = e.buf[:0]
				e.row(r)
			}
		}
	})
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzMySQLEncode(f *testing.F) {
	f.Add("plain", "tab\tnewline\nback\\slash \\N quote' \x00 \xff\xfe", int64(1), 1.5, int64(0))
	f.Add(strings.Repeat("\xff", 700), strings.Repeat("ä", 2000), int64(math.MinInt64), math.Inf(-1), int64(-1))
	f.Fuzz(func(t *testing.T, a, b string, n int64, x float64, ms int64) {
		r := &flat.Row{ID: flat.MakeID(ms, uint64(n), 7), TS: ms, TSFinal: n, Size: n, Score: x, Subject: a, Reason: b, ClientIP: a, Country: b}
		e := &encoder{}
		e.row(r)
		wantLine(t, e.buf, r)
	})
}

func TestMySQLTime(t *testing.T) {
	e := &encoder{as: asText}
	for _, tt := range []struct {
		ms   int64
		want string
	}{
		{noon, "2026-11-23 12:00:00.000"},
		{noon + 86399999 - 43200000, "2026-11-23 23:59:59.999"},
		{1, "1970-01-01 00:00:00.001"},
		{-1, "1969-12-31 23:59:59.999"},
		{-dayMillis, "1969-12-31 00:00:00.000"},
		{math.MinInt64, "1000-01-01 00:00:00.000"},
		{math.MaxInt64, "9999-12-31 23:59:59.999"},
		{maxTime, "9999-12-31 23:59:59.999"},
	} {
		e.buf = e.buf[:0]
		if e.time(tt.ms); string(e.buf) != tt.want {
			t.Errorf("%d: %s, want %s", tt.ms, e.buf, tt.want)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		ms := minDateTime + rng.Int64N(maxDateTime-minDateTime)
		e.buf = e.buf[:0]
		e.time(ms)
		if want := time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05.000"); string(e.buf) != want {
			t.Errorf("%d: %s, want %s", ms, e.buf, want)
		}
	}
}

// strangeRows have what a log can have and a database may not like.
func strangeRows() []*flat.Row {
	var rows []*flat.Row
	add := func(set func(*flat.Row)) { rows = append(rows, row(noon+int64(len(rows)), 77, set)) }
	for _, s := range []string{
		"NULL", `\N`, `\\N`, "\\", "tab\there", "line\nhere", "cr\r\nhere", "nul\x00here", "\x00", "\x1a", "'quoted'", `"quoted"`,
		"; DROP TABLE x", "%s%d", "trailing  ", "  leading", "\xff\xfe", "half \xc3", "sur\xed\xa0\x80rogate", "\xf4\x90\x80\x80",
		"😀 four bytes", "ﬃ ﬁ İ ß", "e\u0301", "\ufeffbom", "\u202eoverride", "a\tb\tc\nd\\",
	} {
		add(func(r *flat.Row) { r.Subject, r.Reason, r.Sender, r.Helo, r.Verdict = s, s, s, s, s })
	}
	for _, s := range []string{"x", "ä", "😀", "\xff", "\x00", "\\", "\t"} {
		for _, n := range []int{1, 2, 3, 127, 128, 2047, 2048, 2049, 5000} {
			add(func(r *flat.Row) {
				long := strings.Repeat(s, n)
				r.Country, r.Sender, r.Reason, r.MsgID, r.QIDIn = long, long, long, long, long
			})
		}
	}
	for _, x := range []float64{
		0, math.Copysign(0, -1), 0.1, -0.74, 1.0 / 3, math.Pi, 1e15, 1e16, 1e21, 1e300, 123456789.123456789,
		math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1),
	} {
		add(func(r *flat.Row) { r.Score, r.Delay = x, x })
	}
	for _, n := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64 + 1} {
		add(func(r *flat.Row) { r.Size, r.SMTPCode, r.TotalMS, r.Lines = n, n, n, n })
	}
	for _, ms := range []int64{1, -1, math.MinInt64, math.MaxInt64, maxTime, maxDateTime, minDateTime} {
		add(func(r *flat.Row) { r.TS, r.TSFinal = ms, ms })
	}
	for _, ip := range []string{"::FFFF:10.1.2.3", "2001:DB8:0:0::1", "fe80::1%eth0", "unknown", "10.1.2.3", ":::"} {
		add(func(r *flat.Row) { r.ClientIP = ip })
	}
	add(func(r *flat.Row) { r.ParentID = flat.MakeID(noon, 1<<63|'\n'<<8|'\\', 9<<60) })
	return rows
}
