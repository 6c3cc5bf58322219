package term

import (
	"unicode"

	"golang.org/x/text/width"
)

// Columns is how many columns of a terminal a printable text takes: two for
// wide characters, none for those that combine with the one before.
func Columns(s string) int {
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

// Fit makes a text from outside printable and shortens it to so many columns;
// 0 is no limit.
func Fit(s string, columns int) string {
	s = Printable(s)
	if columns <= 0 || Columns(s) <= columns {
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
