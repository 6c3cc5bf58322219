package view

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"

	"github.com/rolmail/rolmail/lib/term"
)

// columnsOf is how many columns of a terminal a printable text takes: two for
// wide characters, none for those that combine with the one before.
func columnsOf(s string) int {
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// fit makes a text from outside printable and shortens it to so many columns;
// 0 is no limit.
func fit(s string, columns int) string {
	s = term.Printable(s)
	if columns <= 0 || columnsOf(s) <= columns {
		return s
	}
	n := 0
	for i, r := range s {
		w := runeColumns(r)
		if n+w > columns-1 {
			return s[:i] + "…"
		}
		n += w
	}
	return s
}

// pad fills a text up to so many columns.
func pad(s string, columns int) string {
	return s + strings.Repeat(" ", max(0, columns-columnsOf(s)))
}

// fitAddress shortens an address, in the middle of its local part first: the
// domain tells more.
func fitAddress(s string, columns int) string {
	s = term.Printable(s)
	if columns <= 0 || columnsOf(s) <= columns {
		return s
	}
	if at := strings.LastIndexByte(s, '@'); at > 0 {
		if left := columns - columnsOf(s[at:]); left >= 2 {
			return fit(s[:at], left) + s[at:]
		}
	}
	return fit(s, columns)
}
