package logpipe

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// job runs a job over files and returns what it prints.
func job(t *testing.T, j Job, files ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	j.Options.Parse = options().Parse
	j.Name, j.Files, j.Stdin, j.Stdout, j.Stderr = "rol-logpipe", files, strings.NewReader(""), &out, &errs
	err = j.Run(t.Context())
	return out.String(), errs.String(), err
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mail.log")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestJobJSON(t *testing.T) {
	out, errs, err := job(t, Job{DryRun: true, JSON: true, Unparsed: true}, file(t, append(lab(t), "no log line\n"...)))
	if err != nil || errs != "" {
		t.Fatalf("%v %q", err, errs)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), out)
	}
	var sh Shape
	if err := json.Unmarshal([]byte(lines[0]), &sh); err != nil || sh.Count != 1 || sh.Sample != "no log line" {
		t.Errorf("%v: %s", err, lines[0])
	}
	var sum map[string]any
	if err := json.Unmarshal([]byte(lines[1]), &sum); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"lines", "used", "noise", "unparsed", "rows", "seconds", "lines_per_second", "foreign"} {
		if _, ok := sum[key].(float64); !ok {
			t.Errorf("no %s in %s", key, lines[1])
		}
	}
}

func TestJobSecondWriter(t *testing.T) {
	db := filepath.Join(t.TempDir(), "maillog.db")
	log := file(t, lab(t))
	if _, _, err := job(t, Job{DB: db}, log); err != nil {
		t.Fatal(err)
	}
	first, err := store.Open(db, store.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = job(t, Job{DB: db}, log)
	if sysexits.Status(err) != sysexits.TryAgain || !strings.Contains(err.Error(), "another rol-logpipe is writing") {
		t.Errorf("second writer: %v", err)
	}
	first.Close()
	if _, _, err = job(t, Job{DB: db}, log); err != nil {
		t.Errorf("after it has ended: %v", err)
	}
}

func TestJobWritesNothingWhenAFileIsMissing(t *testing.T) {
	db := filepath.Join(t.TempDir(), "maillog.db")
	_, _, err := job(t, Job{DB: db}, file(t, lab(t)), "/no/such/log")
	if sysexits.Status(err) != sysexits.IO {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(db); err == nil {
		t.Error("a database was made")
	}
}

// Of what a stranger wrote, nothing reaches the terminal that could act on it.
func TestJobShowsUnparsedLinesSafely(t *testing.T) {
	evil := "2026-11-23T08:02:11+00:00 mx2 postfix/smtpd[9655]: \x1b[2J\x9b0m\u202e\n"
	out, _, err := job(t, Job{DryRun: true, Unparsed: true}, file(t, []byte(evil)))
	if err != nil || strings.ContainsAny(out, "\x1b\u202e") || !strings.Contains(out, `\x1b[2J`) {
		t.Errorf("%v: %q", err, out)
	}
}

func TestProgressLine(t *testing.T) {
	m := new(Meter)
	m.set(1000)
	if got := m.line(2e9, 25, 100); got != " 25%  1000 lines  500 lines/s  0:06 left" {
		t.Errorf("%q", got)
	}
	if got := m.line(2e9, 25, 0); got != "1000 lines  500 lines/s" {
		t.Errorf("size unknown: %q", got)
	}
	m.phase("building indexes")
	if got := m.line(2e9, 25, 100); got != "building indexes ..." {
		t.Errorf("%q", got)
	}
	var out bytes.Buffer
	m.Show(&out, nil)()
	if out.Len() > 0 {
		t.Errorf("progress where there is no terminal: %q", out.String())
	}
}

func TestReaderGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	j := Job{DryRun: true, Name: "x", Files: []string{file(t, lab(t))}, Stdout: io.Discard, Stderr: io.Discard}
	if err := j.Run(ctx); err == nil {
		t.Error("a cancelled run went well")
	}
}
