//go:build linux && amd64

package faults

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

// mistakes are changes of the source that the sweeps must notice. A text to
// change that is not there any more fails the test: then look for its
// successor.
var mistakes = []struct {
	name, file, from, to string
	sweep                string
}{
	{
		"a torn tail is not cut off", "lib/logsource/spool/load.go",
		"\t\twhole = cur.at\n\t}\n", "\t\twhole = cur.at\n\t}\n\twhole = c.size\n",
		"killed in a write of the spool",
	},
	{
		"the position is committed before the rows", "lib/maillog/store/sqlitewrite.go",
		"	err := w.transaction(ctx, db.wait, func() error {\n		w.changed = w.changed[:0]\n" +
			"		for _, put := range []func(*Batch) error{w.putRows, w.deleteRows, w.putState, w.putPositions} {\n",
		"	if err := w.transaction(ctx, db.wait, func() error {\n" +
			"		if err := w.putState(b); err != nil {\n			return err\n		}\n		return w.putPositions(b)\n" +
			"	}); err != nil {\n		return db.fail(ctx, \"writing\", err)\n	}\n" +
			"	err := w.transaction(ctx, db.wait, func() error {\n		w.changed = w.changed[:0]\n" +
			"		for _, put := range []func(*Batch) error{w.putRows, w.deleteRows} {\n",
		"killed in the database",
	},
	{
		"a write error of the spool is ignored", "lib/logsource/spool/put.go",
		"\t_ = s.cut(at)\n\treturn sysexits.Wrap(sysexits.IO, err)\n", "\treturn nil\n",
		"no room for the spool",
	},
}

// A test of the tests.
func TestMistakesOfTheServiceAreNoticed(t *testing.T) {
	t.Parallel()
	want := wantRows(t)
	goTool := peer.Need(t, "go")
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			program := mistaken(t, goTool, m.file, m.from, m.to)
			for _, s := range sweeps {
				if s.name != m.sweep {
					continue
				}
				s.few, s.quit = max(s.few, 10), make(chan struct{})
				r := s.run(t, program, want)
				if len(r.wrong) == 0 {
					t.Fatalf("%d faults, and nothing wrong", r.hit)
				}
				t.Logf("%d faults, %d times wrong: %.1500v", r.hit, len(r.wrong), r.wrong[0])
				return
			}
			t.Fatalf("no sweep %q", m.sweep)
		})
	}
}

// mistaken builds rol-logpipe with a change in one source file.
func mistaken(t *testing.T, goTool, file, from, to string) string {
	t.Helper()
	dir, root := t.TempDir(), peer.Root(t)
	source := filepath.Join(root, file)
	b, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(b, []byte(from)) != 1 {
		t.Fatalf("%s has not once %q", file, from)
	}
	changed := filepath.Join(dir, filepath.Base(file))
	write(t, changed, bytes.Replace(b, []byte(from), []byte(to), 1))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay"), overlay)
	program := filepath.Join(dir, "rol-logpipe")
	build := exec.Command(goTool, "build", "-overlay", filepath.Join(dir, "overlay"), "-o", program, "./cmd/rol-logpipe")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}
