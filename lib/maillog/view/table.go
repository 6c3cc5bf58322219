package view

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/term"
)

// table shows rows to people. On a wide terminal, or where there is none, a
// row is a line:
//
//	time  outcome  id  from -> to  why
//
// On a narrow one it is two. Into a pipe nothing is shortened.
type table struct {
	w      io.Writer
	loc    *time.Location
	width  int // columns; 0 is no limit
	colour bool

	peek []*flat.Row // until the widths are known
	id   int
	addr int // from -> to
	set  bool
}

const (
	twoLines  = 110 // below so many columns, a row takes two lines
	peekRows  = 50
	stamp     = "2006-01-02 15:04:05"
	outcomeW  = 11 // quarantined
	minIDW    = 12
	maxAddrW  = 60 // where nothing limits the width, longer ones stand out
	whyW      = 26 // what the addresses leave for the reason, if they can
	separator = 2
)

func newTable(w io.Writer, now time.Time) *table {
	t := &table{w: w, loc: now.Location(), colour: term.Colour(w)}
	if term.IsTerminal(w) || os.Getenv("COLUMNS") != "" {
		t.width = term.Width(w)
	}
	return t
}

func (t *table) row(r *flat.Row) error {
	if t.set {
		return t.print(r)
	}
	if t.peek = append(t.peek, r); len(t.peek) < peekRows {
		return nil
	}
	return t.close()
}

// close prints what was held back to learn how wide columns must be.
func (t *table) close() error {
	if !t.set {
		t.measure()
	}
	for _, r := range t.peek {
		if err := t.print(r); err != nil {
			return err
		}
	}
	t.peek = nil
	return nil
}

func (t *table) measure() {
	t.set = true
	t.id = minIDW
	for _, r := range t.peek {
		t.id = max(t.id, term.Columns(term.Printable(shortID(r))))
		t.addr = max(t.addr, term.Columns(fromTo(r, 0)))
	}
	t.id = min(t.id, 20)
	t.addr = min(t.addr, maxAddrW)
	if t.width > 0 {
		left := t.width - len(stamp) - outcomeW - t.id - 4*separator
		t.addr = min(t.addr, max(left-whyW, left*6/10))
	}
}

func (t *table) print(r *flat.Row) error { return t.line(r, r.Outcome) }

// line prints a row, with a word for its outcome.
func (t *table) line(r *flat.Row, outcome string) error {
	at := time.UnixMilli(r.TS).In(t.loc).Format(stamp)
	shown := t.paint(r.Outcome, pad(term.Fit(outcome, 0), outcomeW))
	id := pad(term.Fit(shortID(r), t.id), t.id)
	var s string
	switch {
	case t.width == 0:
		s = fmt.Sprintf("%s  %s  %s  %s  %s", at, shown, id, pad(fromTo(r, 0), t.addr), term.Fit(why(r), 0))
	case t.width >= twoLines:
		left := t.width - len(at) - term.Columns(pad(outcome, outcomeW)) - t.id - t.addr - 4*separator
		s = fmt.Sprintf("%s  %s  %s  %s  %s", at, shown, id, pad(fromTo(r, t.addr), t.addr), term.Fit(why(r), left))
	default:
		left := t.width - len(at) - term.Columns(pad(outcome, outcomeW)) - 2*separator
		s = fmt.Sprintf("%s  %s  %s", at, shown, fromTo(r, max(left, 20)))
		const indent = "     "
		if left := t.width - len(indent) - t.id - separator; left > 0 {
			s = strings.TrimRight(s, " ") + "\n" + indent + id + "  " + term.Fit(why(r), left)
		}
	}
	_, err := fmt.Fprintln(t.w, strings.TrimRight(s, " "))
	return err
}

// shortID is what to give to "show": the queue id, or as much of the row's id
// as tells it from others.
func shortID(r *flat.Row) string {
	if r.QIDIn != "" {
		return r.QIDIn
	}
	return r.ID.String()[:shortIDLen]
}

const shortIDLen = 16

// fromTo is the envelope in so many columns; 0 is no limit.
func fromTo(r *flat.Row, columns int) string {
	from, to := r.Sender, r.Rcpt
	switch {
	case from == "" && to == "":
		return term.Fit(clientOf(r), columns)
	case from == "":
		from = "<>"
	}
	if to == "" {
		to = "?"
	}
	const arrow = " -> "
	if columns <= 0 {
		return term.Printable(from) + arrow + term.Printable(to)
	}
	left := columns - len(arrow)
	a, b := term.Columns(term.Printable(from)), term.Columns(term.Printable(to))
	if a+b > left { // the shorter one may keep its length
		half := left / 2
		switch {
		case a <= half:
			b = left - a
		case b <= left-half:
			a = left - b
		default:
			a, b = half, left-half
		}
	}
	return fitAddress(from, a) + arrow + fitAddress(to, b)
}

// clientOf names the client: name[address].
func clientOf(r *flat.Row) string {
	name := r.ClientName
	if name == "" && r.ClientIP == "" {
		return "?"
	}
	if r.ClientIP == "" {
		return name
	}
	return name + "[" + r.ClientIP + "]"
}

var colours = map[string]string{
	flat.Sent: "32", flat.Deferred: "33", flat.Held: "33", flat.Bounced: "31", flat.Expired: "31", flat.Rejected: "31",
	flat.Discarded: "35", flat.Quarantined: "35", flat.Aborted: "2", flat.Unknown: "2",
}

func (t *table) paint(outcome, s string) string {
	code := colours[outcome]
	if !t.colour || code == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
