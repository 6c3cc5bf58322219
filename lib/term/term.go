// Package term answers what a program must know before it writes for people:
// is this a terminal, how wide is it, may there be colour, and is this text
// safe to show.
package term

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// DefaultWidth is the width in columns where nothing says otherwise.
const DefaultWidth = 80

// file finds the *os.File behind w, through wrappers that have a method
// Unwrap() io.Writer; nil when there is none.
func file(w any) *os.File {
	for {
		switch v := w.(type) {
		case *os.File:
			return v
		case interface{ Unwrap() io.Writer }:
			w = v.Unwrap()
		default:
			return nil
		}
	}
}

func winsize(w any) (*unix.Winsize, bool) {
	f := file(w)
	if f == nil {
		return nil, false
	}
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return ws, err == nil
}

// IsTerminal reports whether w (a reader or a writer) is a terminal.
func IsTerminal(w any) bool {
	_, ok := winsize(w)
	return ok
}

// Width is the width of the terminal that w is, in columns. Where w is none,
// or does not know, it is $COLUMNS or DefaultWidth.
func Width(w any) int {
	if ws, ok := winsize(w); ok && ws.Col > 0 {
		return int(ws.Col)
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 && n <= 10000 {
		return n
	}
	return DefaultWidth
}

// Colour reports whether w may get colours: a terminal that is not dumb, and
// no NO_COLOR (https://no-color.org) in the environment.
func Colour(w any) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && IsTerminal(w)
}

// Printable returns s with everything escaped that could act on a terminal or
// deceive its reader: control characters (C0, DEL, C1), bytes that are no
// UTF-8, line and paragraph separators, bidirectional overrides, invisible
// and unassigned characters. Log lines hold what strangers sent, so every
// text from one goes through here before it is shown.
func Printable(s string) string {
	i := unsafeAt(s)
	if i < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i >= 0 {
		b.WriteString(s[:i])
		_, n := utf8.DecodeRuneInString(s[i:])
		q := strconv.QuoteToASCII(s[i : i+n])
		b.WriteString(q[1 : len(q)-1])
		s = s[i+n:]
		i = unsafeAt(s)
	}
	b.WriteString(s)
	return b.String()
}

// unsafeAt returns the index of the first unprintable character of s, or -1.
func unsafeAt(s string) int {
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f {
				return i
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !printable(r) {
			return i
		}
		i += n
	}
	return -1
}

func printable(r rune) bool {
	const zwnj, zwj = 0x200c, 0x200d // needed to write Persian and Hindi, and in emoji
	return unicode.IsPrint(r) || unicode.Is(unicode.Zs, r) || r == zwnj || r == zwj
}
