package contrib

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

// add appends to a log as its writer does.
func add(t *testing.T, path string, text []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
}

// rows are all rows of a database, as rol-maillog prints them.
func rows(t *testing.T, db string) string {
	t.Helper()
	return run(t, peer.Program(t, "rol-maillog"), "search", "--db", db, "--limit", "0", "--format", "json")
}

// A log is read while logrotate rotates it with these files, three times: the
// rows are those of the log as a whole, whether rol-logpipe runs after every
// rotation or was down for two.
func TestLogrotate(t *testing.T) {
	lab, err := os.ReadFile(filepath.Join(peer.Root(t), "tests/lab/testdata/lab-a.log"))
	if err != nil {
		t.Fatal(err)
	}
	peer.Need(t, "logrotate")
	if os.Geteuid() != 0 {
		peer.Missing(t, "only root may give files to another user, as these rotations do")
	}
	logpipe := peer.Program(t, "rol-logpipe")
	whole := write(t, filepath.Join(t.TempDir(), "whole.log"), string(lab))
	wantDB := filepath.Join(t.TempDir(), "db")
	run(t, logpipe, "--db", wantDB, whole)
	want := rows(t, wantDB)
	lines := bytes.SplitAfter(lab, []byte("\n"))
	for _, name := range []string{"rol-maillog", "rol-maillog-copytruncate"} {
		for _, every := range []int{1, 2} {
			dir := t.TempDir()
			log, db, state := filepath.Join(dir, "mail.log"), filepath.Join(dir, "db"), filepath.Join(dir, "state")
			oldNew := []string{"/var/log/rol", dir}
			if name == "rol-maillog" {
				oldNew = append(oldNew, "/usr/lib/rsyslog/rsyslog-rotate", "touch "+dir+"/told")
			}
			conf := write(t, filepath.Join(dir, "conf"), "su root root\n"+contribFile(t, "logrotate/"+name, oldNew...))
			const parts = 4
			for i := range parts {
				add(t, log, bytes.Join(lines[len(lines)*i/parts:len(lines)*(i+1)/parts], nil))
				if i%every == every-1 {
					read, err := filepath.Glob(log + "*")
					if err != nil {
						t.Fatal(err)
					}
					run(t, logpipe, append([]string{"--db", db}, read...)...)
				}
				run(t, "logrotate", "-f", "-s", state, conf)
			}
			if got := rows(t, db); got != want {
				t.Errorf("%s, a run every %d rotations: %d bytes of rows, want %d", name, every, len(got), len(want))
			}
			if left, _ := filepath.Glob(log + ".*.gz"); len(left) != parts-1 {
				t.Errorf("%s: compressed are %q", name, left)
			}
			if _, err := os.Stat(dir + "/told"); (err == nil) != (name == "rol-maillog") {
				t.Errorf("%s: postrotate: %v", name, err)
			}
		}
	}
}
