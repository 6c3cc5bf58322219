// Package view shows the flat maillog to people and programs: as a table, as
// JSON, as CSV, and one mail's life in plain words.
package view

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/lib/suggest"
	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/lib/term"
	"github.com/rolmail/rolmail/lib/when"
)

// NothingFound is the exit status of a search without a result.
const NothingFound = 1

// Formats.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatCSV   = "csv"
)

// Options are what the command line asks for, as it was typed.
type Options struct {
	Program string // its name, for the command line of the next page
	DB      string
	NamedDB string // the value of --db, if it was given
	Domain  string

	Value  func(filter string) string   // of Filters, by name; nil: none are given
	Values func(filter string) []string // of those that may be repeated

	Limit    int
	HasLimit bool // --limit was given
	Cursor   string
	Format   string

	Now            time.Time // the clock; its zone is that of times shown to people
	Stdout, Stderr io.Writer
	Log            *slog.Logger // for warnings; nil: nowhere
}

func usage(format string, args ...any) error { return sysexits.Errorf(sysexits.Usage, format, args...) }

func (o *Options) open() (*store.DB, error) {
	if o.Log == nil {
		return store.Open(o.DB, store.ReadOnly)
	}
	return store.OpenLogged(o.DB, store.ReadOnly, o.Log)
}

// formats checks --format.
func (o *Options) formats(known ...string) error {
	if slices.Contains(known, o.Format) {
		return nil
	}
	return usage("option --format: %.40q: want %s%s", o.Format, strings.Join(known, ", "), suggest.DidYouMean(o.Format, "", known))
}

// defaultLimit is how many rows a person wants to see at once.
const defaultLimit = 50

// query turns the options into a query of the store.
func (o *Options) query() (*store.Query, error) {
	v := o.Value
	q := &store.Query{
		Domain: o.Domain, Sender: v("sender"), Rcpt: v("rcpt"), Client: v("client"), Helo: v("helo"),
		QueueID: v("queue-id"), MessageID: v("message-id"), Text: v("text"), Limit: o.Limit,
	}
	if !o.HasLimit && (o.Format == formatTable || term.IsTerminal(o.Stdout)) {
		q.Limit = defaultLimit
	}
	var err error
	if q.Since, err = o.moment("since"); err != nil {
		return nil, err
	}
	if q.Until, err = o.moment("until"); err != nil {
		return nil, err
	}
	if q.Since != 0 && q.Until != 0 && q.Since >= q.Until {
		return nil, usage("option --until: %.60q is not behind --since %.60q", v("until"), v("since"))
	}
	if q.Outcomes, err = o.list("outcome", flat.Outcomes); err != nil {
		return nil, err
	}
	if q.Kinds, err = o.list("kind", []string{flat.KindMail, flat.KindReject, flat.KindAbort}); err != nil {
		return nil, err
	}
	if q.Verdicts, err = o.list("verdict", nil); err != nil {
		return nil, err
	}
	if o.Cursor != "" {
		if q.After, err = flat.ParseID(o.Cursor); err != nil {
			return nil, usage("option --cursor: %.40q is none; take it from the last line of the page before", o.Cursor)
		}
	}
	return q, nil
}

// moment reads --since or --until as Unix milliseconds.
func (o *Options) moment(flag string) (int64, error) {
	text := o.Value(flag)
	if text == "" {
		return 0, nil
	}
	t, err := when.Parse(text, o.Now)
	if err != nil {
		return 0, usage("option --%s: %w", flag, err)
	}
	return t.UnixMilli(), nil
}

// list splits the values of an option at commas; known, if not nil, are all
// that there can be.
func (o *Options) list(flag string, known []string) (all []string, err error) {
	for _, v := range o.Values(flag) {
		for _, word := range strings.Split(v, ",") {
			word = strings.TrimSpace(word)
			if word == "" {
				return nil, usage("option --%s: %.60q: a value is missing", flag, v)
			}
			if known != nil {
				word = strings.ToLower(word)
				if !slices.Contains(known, word) {
					return nil, usage("option --%s: %.40q: want %s%s", flag, word, strings.Join(known, ", "),
						suggest.DidYouMean(word, "", known))
				}
			}
			all = append(all, word)
		}
	}
	return all, nil
}

// writer shows rows one after another.
type writer interface {
	row(r *flat.Row) error
	close() error
}

func (o *Options) writer() writer {
	switch o.Format {
	case formatJSON:
		return &jsonWriter{w: o.Stdout}
	case formatCSV:
		return newCSVWriter(o.Stdout)
	}
	return newTable(o.Stdout, o.Now)
}

// Search shows the rows that match.
func Search(ctx context.Context, o *Options) error {
	if err := o.formats(formatTable, formatJSON, formatCSV); err != nil {
		return err
	}
	q, err := o.query()
	if err != nil {
		return err
	}
	db, err := o.open()
	if err != nil {
		return err
	}
	defer db.Close()
	res, err := db.Search(ctx, q)
	if err != nil {
		return err
	}
	w := o.writer()
	n := 0
	for r, err := range res.All() {
		if err != nil {
			_ = w.close() // what was found until then
			return err
		}
		n++
		if err := w.row(r); err != nil {
			return err
		}
	}
	if err := w.close(); err != nil {
		return err
	}
	return o.sum(n, res.Next(), q)
}

// sum ends a search: how many rows, and how to go on.
func (o *Options) sum(n int, next flat.ID, q *store.Query) error {
	switch {
	case n == 0 && o.Format != formatTable:
		return sysexits.Silent(NothingFound)
	case n == 0 && o.Cursor != "":
		return sysexits.Errorf(NothingFound, "nothing more found")
	case n == 0:
		return sysexits.Errorf(NothingFound, "nothing found")
	case !next.IsZero():
		_, err := fmt.Fprintf(o.Stderr, "%s; for more: %s\n", rows(n), o.commandLine(next, q))
		return err
	case o.Format == formatTable:
		_, err := fmt.Fprintf(o.Stderr, "%s\n", rows(n))
		return err
	}
	return nil
}

func rows(n int) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}

// commandLine is what to type for the next page. Times stand in it as they
// were understood: "2h" would be another time by then.
func (o *Options) commandLine(next flat.ID, q *store.Query) string {
	var b strings.Builder
	b.WriteString(o.Program + " search")
	add := func(flag string, values ...string) {
		for _, v := range values {
			if v != "" {
				b.WriteString(" --" + flag + " " + quote(v))
			}
		}
	}
	add("db", o.NamedDB)
	add("domain", o.Domain)
	moments := map[string]int64{"since": q.Since, "until": q.Until}
	for _, f := range Filters {
		ms, isTime := moments[f.Name]
		switch {
		case isTime && ms != 0:
			add(f.Name, time.UnixMilli(ms).In(o.Now.Location()).Format("2006-01-02T15:04:05.999Z07:00"))
		case f.List:
			add(f.Name, o.Values(f.Name)...)
		case !isTime:
			add(f.Name, o.Value(f.Name))
		}
	}
	if o.HasLimit {
		add("limit", fmt.Sprint(o.Limit))
	}
	if o.Format != formatTable {
		add("format", o.Format)
	}
	add("cursor", next.String())
	return b.String()
}

// quote makes one word for the shell of s, in one line that a terminal can
// show: $'...' where there are control characters.
func quote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-") == "" {
		return s
	}
	if term.Printable(s) == s {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '\'' || c == '\\' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return "$'" + b.String() + "'"
}
