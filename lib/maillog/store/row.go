package store

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/rolmail/rolmail/lib/maillog/flat"
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
