package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

func TestMain(m *testing.M) { os.Exit(peer.Run(m)) }

// aLab is a log with its truth.
type aLab struct{ name, log, truth string }

// labs are the project's own, and those of ../shared/corpus where that is.
func labs(t *testing.T) []aLab {
	t.Helper()
	all := []aLab{
		{"lab-a", "testdata/lab-a.log", "testdata/lab-a.truth.jsonl"},
		{"lab-b", "testdata/lab-b.log", "testdata/lab-b.truth.jsonl"},
	}
	shared, err := filepath.Glob(filepath.Join(peer.Root(t), "..", "shared", "corpus", "*", "truth.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if len(shared) == 0 {
		t.Log("no ../shared/corpus with lab logs: only the project's own are tried")
	}
	for _, truth := range shared {
		l := aLab{"shared " + filepath.Base(filepath.Dir(truth)), filepath.Join(filepath.Dir(truth), "maillog"), truth}
		own := slices.ContainsFunc(all, func(o aLab) bool { return bytes.Equal(read(t, o.log), read(t, l.log)) })
		if !own {
			all = append(all, l)
		}
	}
	return all
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// program runs one of the project's programs and returns its standard output.
func program(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	c := exec.Command(peer.Program(t, name), args...)
	c.Env = append(os.Environ(), "TZ=UTC")
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, errs.Bytes())
	}
	return out
}

// search returns all rows of a database as rol-maillog prints them, sorted.
func search(t *testing.T, db string) (rows []Row, dump string) {
	t.Helper()
	out := program(t, "rol-maillog", "search", "--db", db, "--format", "json", "--limit", "0")
	rows, err := ReadJSONLines[Row](bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	return rows, strings.Join(lines, "\n")
}

// cut writes a log in two parts, at the line end nearest to the fraction.
func cut(t *testing.T, log string, n, of int) (first, second string) {
	t.Helper()
	b := read(t, log)
	at := len(b) * n / of
	at += bytes.IndexByte(b[at:], '\n') + 1
	dir := t.TempDir()
	first, second = filepath.Join(dir, "first"), filepath.Join(dir, "second")
	for name, part := range map[string][]byte{first: b[:at], second: b[at:]} {
		if err := os.WriteFile(name, part, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return first, second
}

func TestLabs(t *testing.T) {
	for _, l := range labs(t) {
		t.Run(l.name, func(t *testing.T) {
			truths, err := ReadJSONLines[Truth](bytes.NewReader(read(t, l.truth)))
			if err != nil {
				t.Fatal(err)
			}
			whole := newDB(t)
			program(t, "rol-logpipe", "--db", whole, l.log)
			dump := judge(t, l, truths, whole)

			t.Run("a replay changes nothing", func(t *testing.T) {
				program(t, "rol-logpipe", "--db", whole, l.log)
				program(t, "rol-logpipe", "--db", whole, "--again", l.log)
				if _, again := search(t, whole); again != dump {
					t.Error(difference(again, dump))
				}
			})
			for _, n := range []int{1, 2, 3, 4} {
				t.Run(fmt.Sprintf("in two runs, cut at %d fifths", n), func(t *testing.T) {
					first, second := cut(t, l.log, n, 5)
					db := newDB(t)
					program(t, "rol-logpipe", "--db", db, first)
					program(t, "rol-logpipe", "--db", db, second)
					if got := judge(t, l, truths, db); got != dump {
						t.Error(difference(got, dump))
					}
				})
			}
		})
	}
}

func newDB(t *testing.T) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "maillog.db")
}

// judge holds a database against the truth and returns its dump.
func judge(t *testing.T, l aLab, truths []Truth, db string) string {
	t.Helper()
	rows, dump := search(t, db)
	for i, w := range Score(truths, rows) {
		if i == 20 {
			t.Error("and more")
			break
		}
		t.Error(w)
	}
	scoreLab(t, l, dump)
	return dump
}

// scoreLab asks the judge that the corpus brings, where it is.
func scoreLab(t *testing.T, l aLab, dump string) {
	t.Helper()
	tool := filepath.Join(peer.Root(t), "..", "shared", "tools", "score-lab")
	python, err := exec.LookPath("python3")
	if _, serr := os.Stat(tool); serr != nil || err != nil {
		return
	}
	rows := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(rows, []byte(dump), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(python, tool, l.truth, rows).CombinedOutput(); err != nil {
		t.Errorf("score-lab: %v\n%.4000s", err, out)
	}
}

func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	var b strings.Builder
	fmt.Fprintf(&b, "%d rows, want %d\n", len(g), len(w))
	n := 0
	for _, side := range []struct {
		mark          string
		lines, others []string
	}{{"+", g, w}, {"-", w, g}} {
		for _, line := range side.lines {
			if n < 20 && !slices.Contains(side.others, line) {
				n++
				fmt.Fprintf(&b, "%s %.1500s\n", side.mark, line)
			}
		}
	}
	return b.String()
}

// The judge itself must be able to say no.
func TestScoreBites(t *testing.T) {
	truth := Truth{
		ClientIP: "192.0.2.1", Code: "550", Fate: "rejected", HELO: "h.example", Kind: "nouser",
		Rcpt: "r@b.example", Sender: "s@a.example", Stage: "RCPT", SASLUser: "u@a.example", Direction: "in",
	}
	right := func() Row {
		return Row{
			"kind": "reject", "outcome": "rejected", "client_ip": "192.0.2.1", "helo": "h.example",
			"smtp_code": float64(550), "sender": "s@a.example", "rcpt": "r@b.example", "complete": true,
			"stage": "RCPT", "sasl_user": "u@a.example", "direction": "in",
		}
	}
	notice := Row{"sender": "", "rcpt": "x@y.example"}
	if wrong := Score([]Truth{truth}, []Row{right(), notice}); wrong != nil {
		t.Errorf("a right row is wrong: %v", wrong)
	}
	if wrong := ScoreAll([]Truth{truth}, []Row{right(), notice}); wrong == nil {
		t.Error("a notice that is not in the truth is taken for right")
	}
	for column, value := range map[string]any{
		"outcome": "sent", "client_ip": "192.0.2.2", "helo": nil, "smtp_code": float64(450), "complete": false,
		"rcpt": "other@b.example", "stage": "MAIL", "sasl_user": "other@a.example", "direction": "out",
	} {
		r := right()
		r[column] = value
		if wrong := Score([]Truth{truth}, []Row{r}); wrong == nil {
			t.Errorf("%s %v is taken for right", column, value)
		}
	}
	for name, rows := range map[string][]Row{"no row": nil, "two rows": {right(), right()}} {
		if wrong := Score([]Truth{truth}, rows); wrong == nil {
			t.Errorf("%s is taken for right", name)
		}
	}
}

// What the log does not name is found by its client; a notice, by its message
// id, and it must be of the mail that it is about.
func TestScoreBitesBlindAndNotices(t *testing.T) {
	truths := []Truth{
		{ClientIP: "192.0.2.1", Fate: "aborted", Kind: "abort", Stage: "EHLO", Blind: true},
		{Sender: "s@a.example", Rcpt: "r@b.example", Fate: "bounced", Kind: "bounce"},
		{Sender: "t@a.example", Rcpt: "r@b.example", Fate: "sent", Kind: "other"},
		{Rcpt: "s@a.example", Fate: "sent", Kind: Notice, MsgID: "1@out.example"},
		{Rcpt: "s@a.example", Fate: "sent", Kind: Notice, MsgID: "2@out.example"},
	}
	rows := func(change func([]Row)) []Row {
		all := []Row{
			{"id": "a", "kind": "abort", "outcome": "aborted", "client_ip": "192.0.2.1", "stage": "EHLO"},
			{"id": "b", "sender": "s@a.example", "rcpt": "r@b.example", "outcome": "bounced"},
			{"id": "c", "sender": "t@a.example", "rcpt": "r@b.example", "outcome": "sent"},
			{"id": "d", "rcpt": "s@a.example", "outcome": "sent", "msgid": "1@out.example", "parent_id": "b"},
			{"id": "e", "rcpt": "s@a.example", "outcome": "sent", "msgid": "2@out.example", "parent_id": "b"},
		}
		change(all)
		return all
	}
	if wrong := ScoreAll(truths, rows(func([]Row) {})); wrong != nil {
		t.Errorf("right rows are wrong: %v", wrong)
	}
	for name, change := range map[string]func([]Row){
		"another mail's notice": func(r []Row) { r[3]["parent_id"] = "c" },
		"a notice of nothing":   func(r []Row) { delete(r[4], "parent_id") },
		"another notice":        func(r []Row) { r[4]["msgid"] = "3@out.example" },
		"another stage":         func(r []Row) { r[0]["stage"] = "MAIL" },
		"another client":        func(r []Row) { r[0]["client_ip"] = "192.0.2.2" },
	} {
		if wrong := ScoreAll(truths, rows(change)); wrong == nil {
			t.Errorf("%s is taken for right", name)
		}
	}
}
