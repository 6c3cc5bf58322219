package logpipe

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/rolmail/rolmail/lib/term"
)

// Summary is what a run did. The names are the keys of its JSON form.
type Summary struct {
	Lines          int64            `json:"lines"` // used + noise + unparsed
	Used           int64            `json:"used"`
	Noise          int64            `json:"noise"`
	Unparsed       int64            `json:"unparsed"`
	Foreign        int64            `json:"foreign"` // of the unparsed: no syslog lines at all
	Rows           int64            `json:"rows"`
	SkippedBytes   int64            `json:"skipped_bytes"` // read by earlier runs
	Cut            int64            `json:"cut"`           // lines longer than logsource.MaxLine
	Late           int64            `json:"late"`          // lines for mails long done
	Evicted        int64            `json:"evicted"`       // open things given up as incomplete, for want of room or time
	Open           int              `json:"open"`          // sessions, mails and scans still open
	Seconds        float64          `json:"seconds"`
	LinesPerSecond int64            `json:"lines_per_second"`
	Noises         map[string]int64 `json:"noise_by_program"`

	Shapes []Shape `json:"-"`
	Logs   int     `json:"-"` // sources that are logs, or empty
}

// Text is the summary in one line, without what was nought and need not be
// said.
func (s *Summary) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d lines, %d used, %d noise, %d unparsed", s.Lines, s.Used, s.Noise, s.Unparsed)
	if s.Foreign > 0 {
		fmt.Fprintf(&b, " (%d no syslog lines)", s.Foreign)
	}
	fmt.Fprintf(&b, ", %d rows, %.1f s, %d lines/s", s.Rows, s.Seconds, s.LinesPerSecond)
	for _, n := range []struct {
		count int64
		what  string
	}{
		{s.SkippedBytes, "bytes read before"},
		{s.Cut, "lines cut"},
		{s.Evicted, "given up as incomplete"},
	} {
		if n.count > 0 {
			fmt.Fprintf(&b, ", %d %s", n.count, n.what)
		}
	}
	return b.String()
}

// WriteJSON writes the summary as one line of JSON.
func (s *Summary) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(s) }

// WriteShapes writes the lines that were not understood as a table, or as a
// JSON object each.
func (s *Summary) WriteShapes(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		for _, sh := range s.Shapes {
			if err := enc.Encode(sh); err != nil {
				return err
			}
		}
		return nil
	}
	columns := 0 // no limit
	if term.IsTerminal(w) {
		columns = max(term.Width(w)-10, 40)
	}
	for _, sh := range s.Shapes {
		_, err := fmt.Fprintf(w, "%8d  %s\n%10s%s\n", sh.Count, term.Printable(sh.Shape),
			"", term.Fit(sh.Sample, columns))
		if err != nil {
			return err
		}
	}
	return nil
}
