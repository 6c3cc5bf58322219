package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/lab"
	"github.com/rolmail/rolmail/tests/peer"
)

// mailsEnv says how many mails a run has, instead of its own number.
const mailsEnv = "ROL_PIPELINE_MAILS"

func mailCount(t testing.TB, few int) int {
	t.Helper()
	s := os.Getenv(mailsEnv)
	if s == "" {
		return few
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number of mails", mailsEnv, s)
	}
	return n
}

// seedEnv repeats a run's mails and moments.
const seedEnv = "ROL_PIPELINE_SEED"

func newSeed(t testing.TB) uint64 {
	t.Helper()
	s := os.Getenv(seedEnv)
	if s == "" {
		return rand.Uint64() >> 32
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q is no number", seedEnv, s)
	}
	return n
}

// scratch is a directory of a test that is kept when the test fails.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rol-pipeline-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kept: %s", dir)
		} else {
			_ = os.RemoveAll(dir)
		}
	})
	return dir
}

// run runs one of the project's programs and returns its standard output.
func run(name, path string, args ...string) ([]byte, error) {
	c := exec.Command(path, args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %.500s", name, err, errs.Bytes())
	}
	return out, nil
}

// search returns all rows of a database.
func search(t testing.TB, db string) ([]byte, []lab.Row, error) {
	t.Helper()
	out, err := run("rol-maillog", peer.Program(t, "rol-maillog"), "search", "--db", db, "--format", "json", "--limit", "0")
	if none := (*exec.ExitError)(nil); errors.As(err, &none) && none.ExitCode() == 1 && len(out) == 0 {
		return nil, nil, nil // nothing found, as grep says it
	}
	if err != nil {
		return nil, nil, err
	}
	rows, err := lab.ReadJSONLines[lab.Row](bytes.NewReader(out))
	return out, rows, err
}

// keep writes what somebody needs who asks why a test has failed.
func keep(t testing.TB, dir string, truths []lab.Truth, rows []byte, wrong []string) {
	t.Helper()
	var b bytes.Buffer
	for _, truth := range truths {
		line, err := json.Marshal(truth)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	for name, text := range map[string][]byte{"truth.jsonl": b.Bytes(), "rows.jsonl": rows} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Error(err)
		}
	}
	for i, w := range wrong {
		if i == 20 {
			t.Errorf("and %d more", len(wrong)-i)
			break
		}
		t.Error(w)
	}
}

// The log of an undisturbed run, read afterwards: without this nothing that
// comes later would mean anything.
func TestBatch(t *testing.T) {
	c := theCluster(t)
	dir := scratch(t)
	syslog := startRsyslog(t, c.machines, dir, "")
	g := newGenerator(t, c, newSeed(t))
	n := mailCount(t, 300)
	begun := time.Now()
	g.send(n, 0)
	sent := time.Since(begun)
	truths := g.finish(t, c, time.Minute, func() {})
	t.Logf("%d mails, %d truths: sent in %v, done in %v", n, len(truths), sent, time.Since(begun))
	syslog.flushed()

	db := "sqlite:" + filepath.Join(dir, "maillog.db")
	if _, err := run("rol-logpipe", peer.Program(t, "rol-logpipe"), "--db", db, syslog.reference); err != nil {
		t.Fatal(err)
	}
	out, rows, err := search(t, db)
	if err != nil {
		t.Fatal(err)
	}
	if wrong := lab.ScoreAll(truths, rows); wrong != nil {
		keep(t, dir, truths, out, wrong)
	}
}
