package view

import (
	"strings"

	"github.com/rolmail/rolmail/lib/term"
)

// pad fills a text up to so many columns.
func pad(s string, columns int) string {
	return s + strings.Repeat(" ", max(0, columns-term.Columns(s)))
}

// fitAddress shortens an address, in the middle of its local part first: the
// domain tells more.
func fitAddress(s string, columns int) string {
	s = term.Printable(s)
	if columns <= 0 || term.Columns(s) <= columns {
		return s
	}
	if at := strings.LastIndexByte(s, '@'); at > 0 {
		if left := columns - term.Columns(s[at:]); left >= 2 {
			return term.Fit(s[:at], left) + s[at:]
		}
	}
	return term.Fit(s, columns)
}
