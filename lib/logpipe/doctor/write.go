package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/rolmail/rolmail/lib/term"
)

// minWidth is the narrowest text, in columns.
const minWidth = 40

// Write writes findings for people, as wide as the terminal that w is, or as
// JSON, one object a line.
func Write(w io.Writer, found []Finding, asJSON bool) error {
	var b bytes.Buffer
	if asJSON {
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		for _, f := range found {
			if err := enc.Encode(f); err != nil {
				return err
			}
		}
	} else {
		writeText(&b, found, max(term.Width(w), minWidth))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func writeText(b *bytes.Buffer, found []Finding, width int) {
	counts := map[Severity]int{}
	for _, f := range found {
		counts[f.Severity]++
		fmt.Fprintf(b, "%-5s  %s\n", f.Severity, term.Printable(f.Where))
		wrap(b, term.Printable(f.What), "       ", width)
		for i, line := range strings.Split(f.Do, "\n") { // a line to add is not broken: it is to be copied
			lead := "       do: "
			if i > 0 {
				lead = "           "
			}
			fmt.Fprintf(b, "%s%s\n", lead, term.Printable(line))
		}
		b.WriteByte('\n')
	}
	if len(found) == 0 {
		b.WriteString("nothing was found that loses or blurs lines\n")
		return
	}
	fmt.Fprintf(b, "found: lines lost %d, lines blurred %d, hints %d\n", counts[Loses], counts[Blurs], counts[Hint])
}

// wrap breaks a text between words, indented.
func wrap(b *bytes.Buffer, text, indent string, width int) {
	col := 0
	for _, word := range strings.Fields(text) {
		n := term.Columns(word)
		switch {
		case col == 0:
			b.WriteString(indent)
			col = len(indent)
		case col+1+n > width:
			b.WriteString("\n" + indent)
			col = len(indent)
		default:
			b.WriteByte(' ')
			col++
		}
		b.WriteString(word)
		col += n
	}
	b.WriteByte('\n')
}
