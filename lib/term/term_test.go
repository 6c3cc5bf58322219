package term_test

import (
	"bytes"
	"io"
	"os"
	"testing"
	"unicode/utf8"

	"github.com/rolmail/rolmail/lib/term"
)

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"plain", `a "quoted" \ text, 100%`, `a "quoted" \ text, 100%`},
		{"accents", "Grüße aus Bözen, 東京, नमस्ते", "Grüße aus Bözen, 東京, नमस्ते"},
		{"joined emoji", "👩\u200d🔬", "👩\u200d🔬"},
		{"escape sequence", "\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`},
		{"line breaks", "a\r\nb\tc\x00", `a\r\nb\tc\x00`},
		{"delete", "a\x7fb", `a\x7fb`},
		{"C1", "a\u009bb", `a\u009bb`},
		{"broken UTF-8", "a\xff\xfeb\xc3", `a\xff\xfeb\xc3`},
		{"surrogate bytes", "\xed\xa0\x80", `\xed\xa0\x80`},
		{"replacement character stays", "a\ufffdb", "a\ufffdb"},
		{"bidi override", "exe.\u202egpj", `exe.\u202egpj`},
		{"bidi isolate", "\u2066x\u2069", `\u2066x\u2069`},
		{"marks", "\u200e\u200f\u061c", `\u200e\u200f\u061c`},
		{"separators", "a\u2028b\u2029", `a\u2028b\u2029`},
		{"invisible", "a\u200bb\ufeffc\u2060", `a\u200bb\ufeffc\u2060`},
		{"tag characters", "x\U000e0041", `x\U000e0041`},
		{"no-break space", "a\u00a0b\u3000c", "a\u00a0b\u3000c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := term.Printable(tt.in); got != tt.want {
				t.Errorf("Printable(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[0m\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		p := term.Printable(s)
		if !utf8.ValidString(p) {
			t.Errorf("Printable(%q) = %q: no UTF-8", s, p)
		}
		for _, r := range p {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e {
				t.Errorf("Printable(%q) = %q holds %U", s, p, r)
			}
		}
		if again := term.Printable(p); again != p {
			t.Errorf("not stable: %q, then %q", p, again)
		}
	})
}

func TestNoTerminal(t *testing.T) {
	t.Setenv("COLUMNS", "")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for name, v := range map[string]any{"buffer": new(bytes.Buffer), "pipe": w, "nil": nil, "wrapped": wrapped{w}} {
		if term.IsTerminal(v) || term.Colour(v) || term.Width(v) != term.DefaultWidth {
			t.Errorf("%s is taken for a terminal", name)
		}
	}
	t.Setenv("COLUMNS", "132")
	if got := term.Width(w); got != 132 {
		t.Errorf("Width with COLUMNS=132 is %d", got)
	}
	t.Setenv("COLUMNS", "-3")
	if got := term.Width(w); got != term.DefaultWidth {
		t.Errorf("Width with COLUMNS=-3 is %d", got)
	}
}

type wrapped struct{ io.Writer }

func (w wrapped) Unwrap() io.Writer { return w.Writer }

// A real terminal: the master side of a pseudo-terminal answers as one.
func TestTerminal(t *testing.T) {
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	defer pty.Close()
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	if !term.IsTerminal(pty) || !term.IsTerminal(wrapped{pty}) {
		t.Error("a pseudo-terminal is not taken for a terminal")
	}
	if !term.Colour(pty) {
		t.Error("no colour on a terminal")
	}
	t.Setenv("NO_COLOR", "1")
	if term.Colour(pty) {
		t.Error("colour in spite of NO_COLOR")
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	if term.Colour(pty) {
		t.Error("colour on a dumb terminal")
	}
}
