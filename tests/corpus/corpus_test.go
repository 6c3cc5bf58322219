package corpus

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// dir is a folder of the corpus; the test is skipped where it is absent.
func dir(t *testing.T, name string) string {
	t.Helper()
	d, err := filepath.Abs(filepath.Join("..", "..", "..", "shared", "corpus", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d); err != nil {
		t.Skipf("%s is not here: other projects' logs are not tested", d)
	}
	return d
}

func readLines(t *testing.T, file string) (lines []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

func newParser() *maillog.Parser {
	return maillog.NewParser(maillog.Options{Location: time.UTC, Now: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)})
}

// ours reports whether a line was written by a program whose lines we claim to
// know: Postfix with its usual names, Amavis and Dovecot.
func ours(line string) bool {
	for _, name := range []string{" postfix/", " postfix-", " postfix[", " amavis[", " dovecot: ", " dovecot["} {
		if strings.Contains(line, name) {
			return true
		}
	}
	return false
}

// drop counts the rows and forgets them.
type drop struct{ put int }

func (d *drop) Put(*flat.Row)  { d.put++ }
func (d *drop) Delete(flat.ID) {}

// correlate runs lines through a tracer, which must not mind them.
func correlate(lines []string) {
	var ev maillog.Event
	p, tr := newParser(), trace.New(trace.Options{}, &drop{})
	for _, l := range lines {
		p.Parse([]byte(l), &ev)
		tr.Add(&ev)
	}
	tr.Sync()
}
