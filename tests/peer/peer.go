// Package peer finds the real programs that tests run against, the project's
// own programs, and the project's root.
//
// A test whose peer is missing is skipped, by name. With ROL_REQUIRE_PEERS=1
// in the environment, as in continuous integration, it fails instead, so that
// a test cannot silently stop being run.
package peer

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// RequireEnv is the variable that turns skips for missing peers into failures.
const RequireEnv = "ROL_REQUIRE_PEERS"

// Need returns the path of a peer's command, or skips the test.
func Need(t testing.TB, command string) string {
	t.Helper()
	path, err := exec.LookPath(command)
	if err != nil { // a user's PATH may be without the administrator's part
		path, err = exec.LookPath("/usr/sbin/" + command)
	}
	if err != nil {
		Missing(t, fmt.Sprintf("%s is not installed%s", command, Hint(t, command)))
	}
	return path
}

// Missing skips the test because something it needs is not there, or fails it
// when everything is required.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv(RequireEnv) == "1" {
		t.Fatalf("%s, and %s=1", what, RequireEnv)
	}
	t.Skip(what)
}

// Hint says which Debian package a command is in, by tests/packages; "" where
// that does not know.
func Hint(t testing.TB, command string) string {
	t.Helper()
	f, err := os.Open(filepath.Join(Root(t), "tests", "packages"))
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) == 2 && w[1] == command {
			return "; Debian package " + w[0]
		}
	}
	return ""
}

// Root is the project's root directory: the nearest one above the working
// directory that has a go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

// built remembers the programs that this test binary has built.
var built struct {
	sync.Mutex
	dir   string
	paths map[string]string
}

// Program builds cmd/<name>, once, and returns the path of the binary.
// A package that uses it has a TestMain with Run, to remove what was built.
func Program(t testing.TB, name string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if path := built.paths[name]; path != "" {
		return path
	}
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "rol-test-")
		if err != nil {
			t.Fatal(err)
		}
		built.dir, built.paths = dir, map[string]string{}
	}
	path := filepath.Join(built.dir, name)
	build := exec.Command("go", "build", "-o", path, "./cmd/"+name)
	build.Dir = Root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building cmd/%s: %v\n%s", name, err, bytes.TrimSpace(out))
	}
	built.paths[name] = path
	return path
}

// Run runs a package's tests, then removes the programs that Program built,
// and returns the exit status.
func Run(m *testing.M) int {
	defer clean()
	return m.Run()
}

func clean() {
	built.Lock()
	defer built.Unlock()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
		built.dir, built.paths = "", nil
	}
}

// Programs are the names of all programs: the folders of cmd.
func Programs(t testing.TB) []string {
	t.Helper()
	dirs, err := os.ReadDir(filepath.Join(Root(t), "cmd"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, d := range dirs {
		if d.IsDir() {
			names = append(names, d.Name())
		}
	}
	return names
}
