package view

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/lib/term"
)

// nasty are texts as strangers send them.
var nasty = []string{
	"", "plain", "\x1b[2J\x1b]0;title\x07", "a\x00b", "\xff\xfe", "日本語のメール", "e\u0301\u0301\u0301", "\u202eevil", "👩‍👩‍👧@x",
	"line\nline", "tab\tcr\r", "'; DROP TABLE x", `"quoted" \ back`, "=1+1", strings.Repeat("x", 600), strings.Repeat("語", 300),
	"\u2028\u2029\u0085", "\u202d", "\U000e0001tag", "@" + strings.Repeat("d", 80) + ".example",
}

// nastyRow fills every text with one of them.
func nastyRow(n int) *flat.Row {
	r := storetest.New(uint64(n), 1795000000000+int64(n)*1000, 1).Next()
	for i := range flat.Columns {
		if c := &flat.Columns[i]; c.Type == flat.Text && c.Name != "kind" && c.Name != "outcome" {
			*c.Str(r) = nasty[(n+i)%len(nasty)]
		}
	}
	r.Outcome = flat.Outcomes[n%len(flat.Outcomes)]
	r.Kind = []string{flat.KindMail, flat.KindReject, flat.KindAbort, ""}[n%4]
	return r
}

// safe reports what in a text could act on a terminal.
func safe(s string) string {
	for _, r := range s {
		if r == utf8.RuneError || r != '\n' && r != '\u200d' && !unicode.IsPrint(r) && !unicode.Is(unicode.Zs, r) {
			return fmt.Sprintf("%q", r)
		}
	}
	return ""
}

// No line of a table is wider than the terminal, and nothing in it acts on it.
func TestTableFits(t *testing.T) {
	made := storetest.New(1, 1795000000000, 1000)
	for width := 40; width <= 220; width += 3 {
		var b bytes.Buffer
		tab := &table{w: &b, loc: time.UTC, width: width}
		for n := range 120 {
			r := made.Next()
			if n%2 == 0 {
				r = nastyRow(n)
			}
			if err := tab.row(r); err != nil {
				t.Fatal(err)
			}
			if n > peekRows {
				_ = tab.line(r, "now "+r.Outcome)
			}
		}
		if err := tab.close(); err != nil {
			t.Fatal(err)
		}
		if what := safe(b.String()); what != "" {
			t.Fatalf("width %d: %s in the table", width, what)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		for _, line := range lines {
			if n := term.Columns(line); n > max(width, 60) {
				t.Fatalf("width %d: a line of %d columns: %s", width, n, line)
			}
		}
		if want := 120; width >= twoLines && len(lines) != want+120-peekRows-1 {
			t.Fatalf("width %d: %d lines", width, len(lines))
		}
	}
}

func TestTableInPipe(t *testing.T) {
	var b bytes.Buffer
	tab := newTable(&b, time.Unix(0, 0).UTC())
	long := nastyRow(1)
	long.Reason = strings.Repeat("reason ", 100) + "end"
	long.Outcome = flat.Bounced
	if err := tab.row(long); err != nil {
		t.Fatal(err)
	}
	if err := tab.close(); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(b.String(), "reason end\n") || strings.Contains(b.String(), "\x1b") {
		t.Errorf("%q", b.String())
	}
}

func TestColour(t *testing.T) {
	var b bytes.Buffer
	tab := &table{w: &b, loc: time.UTC, width: 130, colour: true}
	for i, o := range flat.Outcomes {
		r := nastyRow(i)
		r.Outcome = o
		if err := tab.row(r); err != nil {
			t.Fatal(err)
		}
	}
	_ = tab.close()
	if n := strings.Count(b.String(), "\x1b[0m"); n != len(flat.Outcomes) {
		t.Errorf("%d outcomes in colour", n)
	}
}

func TestColumnsOf(t *testing.T) {
	for s, want := range map[string]int{
		"": 0, "abc": 3, "日本": 4, "e\u0301": 1, "ﬀ": 1, "ｆ": 2, "👍": 2, "אב": 2, "\u200b": 0,
	} {
		if got := term.Columns(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
	for _, s := range nasty {
		for limit := range 40 {
			if got := term.Fit(s, limit+1); term.Columns(got) > limit+1 {
				t.Errorf("%q in %d: %q", s, limit+1, got)
			}
			if got := fitAddress(s, limit+1); term.Columns(got) > limit+1 || safe(got) != "" {
				t.Errorf("address %q in %d: %q", s, limit+1, got)
			}
		}
	}
	if got := fitAddress("someone.important@example.com", 20); got != "someon…@example.com" && got != "someone…@example.com" {
		t.Errorf("%q", got)
	}
}

// JSON is valid, says what the row says, and has nothing that a terminal obeys.
func TestJSON(t *testing.T) {
	for n := range 60 {
		r := nastyRow(n)
		if n == 7 {
			r.Score, r.Delay = math.Inf(1), math.Inf(-1)
		}
		var b bytes.Buffer
		j := &jsonWriter{w: &b}
		if err := j.row(r); err != nil {
			t.Fatal(err)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(b.Bytes(), []byte("\n")) != 1 || strings.Trim(safe(b.String()), "'\ufffd\"") != "" {
			t.Errorf("%s in %q", safe(b.String()), b.String())
		}
		dec := json.NewDecoder(&b)
		dec.UseNumber()
		var got map[string]any
		if err := dec.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if len(got) != len(flat.Columns) {
			t.Errorf("%d keys, want %d", len(got), len(flat.Columns))
		}
		for i := range flat.Columns {
			c := &flat.Columns[i]
			v, ok := got[c.Name]
			if !ok || (v == nil) != (c.Null(r) || c.Type == flat.Float && math.IsInf(*c.Float(r), 0)) {
				t.Errorf("%s: %v", c.Name, v)
			}
			if c.Type == flat.Text && v != nil && v != strings.ToValidUTF8(*c.Str(r), "\ufffd") && !strings.Contains(*c.Str(r), "\xff") {
				t.Errorf("%s: %q, want %q", c.Name, v, *c.Str(r))
			}
			if c.Type == flat.Int && v != nil && fmt.Sprint(v) != fmt.Sprint(*c.Int(r)) {
				t.Errorf("%s: %v", c.Name, v)
			}
		}
	}
}

func FuzzJSONString(f *testing.F) {
	for _, s := range nasty {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := appendString(nil, s)
		var got string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q: %s: %v", s, b, err)
		}
		if utf8.ValidString(s) && got != s || !utf8.ValidString(got) {
			t.Errorf("%q became %q", s, got)
		}
	})
}

func TestCSV(t *testing.T) {
	var b bytes.Buffer
	w := newCSVWriter(&b)
	for n := range 40 {
		if err := w.row(nastyRow(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	if !utf8.Valid(b.Bytes()) || bytes.IndexByte(b.Bytes(), 0) >= 0 {
		t.Error("not valid UTF-8, or a NUL")
	}
	all, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(all) != 41 || all[0][0] != "id" || len(all[0]) != len(flat.Columns) {
		t.Fatalf("%d records, %v", len(all), err)
	}
	for _, rec := range all[1:] {
		for i, cell := range rec {
			if flat.Columns[i].Type == flat.Text && cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
				t.Errorf("a formula: %q", cell)
			}
		}
	}
}

// A story is safe to show and tells of every recipient, whatever the row holds.
func TestStoryIsSafe(t *testing.T) {
	for n := range 80 {
		var b bytes.Buffer
		s := newStory(&Options{Stdout: &b, Now: time.Unix(0, 0).UTC()})
		rows := []*flat.Row{nastyRow(n), nastyRow(n + 1), storetest.New(uint64(n), 1795000000000, 1).Next()}
		children := map[flat.ID][]*flat.Row{rows[0].ID: {nastyRow(n + 2)}}
		if err := s.tell(rows, children, nastyRow(n+3)); err != nil {
			t.Fatal(err)
		}
		if what := safe(b.String()); what != "" {
			t.Errorf("%s in %q", what, b.String())
		}
		if n := strings.Count(b.String(), "\nOutcome "); n != len(rows) {
			t.Errorf("%d outcomes:\n%s", n, b.String())
		}
	}
}

// The command for the next page survives the shell.
func TestQuote(t *testing.T) {
	sh, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	for _, s := range nasty {
		if s == "" || strings.Contains(s, "\x00") {
			continue
		}
		q := quote(s)
		if term.Printable(q) != q {
			t.Errorf("%q is shown as %q", s, q)
		}
		out, err := exec.Command(sh, "-c", "printf %s "+q).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q came back as %q, %v", s, out, err)
		}
	}
}

func TestWhy(t *testing.T) {
	mk := func(set func(*flat.Row)) *flat.Row {
		r := &flat.Row{}
		r.Clear()
		r.TSFinal = 1
		set(r)
		return r
	}
	for _, tt := range []struct {
		want string
		set  func(*flat.Row)
	}{
		{"450 4.2.0 Greylisted", func(r *flat.Row) {
			r.Outcome, r.SMTPCode, r.DSN, r.Rcpt, r.Reason = flat.Rejected, 450, "4.2.0", "a@b", "<a@b>: Greylisted"
		}},
		{"552 5.2.2 full", func(r *flat.Row) {
			r.Outcome, r.SMTPCode, r.DSN = flat.Bounced, 552, "5.2.2"
			r.Reason = "host mx[1.2.3.4] said: 552 5.2.2 full (in reply to end of DATA command)"
		}},
		{"4.4.1 connect to mx[1.2.3.4]:25: Connection refused", func(r *flat.Row) {
			r.Outcome, r.DSN, r.Reason = flat.Deferred, "4.4.1", "connect to mx[1.2.3.4]:25: Connection refused"
		}},
		{"lost connection after DATA", func(r *flat.Row) {
			r.Kind, r.Outcome, r.ClientIP, r.ClientName = flat.KindAbort, flat.Aborted, "1.2.3.4", "unknown"
			r.Reason = "lost connection after DATA from unknown[1.2.3.4]"
		}},
		{"SPAM 12.3, dropped", func(r *flat.Row) { r.Outcome, r.Verdict, r.Score, r.Reason = flat.Discarded, "SPAM", 12.3, "dropped" }},
		{"not in the log: delivery, removed", func(r *flat.Row) { r.Outcome, r.Evidence = flat.Unknown, "missing: delivery,removed" }},
		{"", func(r *flat.Row) { r.Outcome = flat.Held }},
	} {
		if got := why(mk(tt.set)); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestTook(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 999 * time.Millisecond: "999 ms", 1500 * time.Millisecond: "1.5 s", 99 * time.Second: "99.0 s",
		10 * time.Minute: "10 min", 5 * time.Hour: "5.0 h", 120 * time.Hour: "5.0 days", -time.Second: "-1.0 s",
	} {
		if got := took(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestFiltersAreDistinct(t *testing.T) {
	var names []string
	for _, f := range Filters {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("%q", names)
	}
}
