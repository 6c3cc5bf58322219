// Package install tests make install and make uninstall.
package install

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

func run(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(peer.Need(t, "make"), args...)
	cmd.Dir = peer.Root(t)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "MAKE") || strings.HasPrefix(s, "MFLAGS") // of the make that runs this test
	})
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// files are the regular files under a root, with a leading slash.
func files(t *testing.T, root string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestInstall(t *testing.T) {
	programs := peer.Programs(t)
	if len(programs) == 0 {
		t.Skip("there are no programs yet")
	}
	dest := t.TempDir()
	args := []string{"DESTDIR=" + dest, "PREFIX=/usr", "BIN=" + t.TempDir(), "-s"}
	run(t, append([]string{"install"}, args...)...)
	want := []string{"/usr/share/man/man5/rol.cf.5", "/usr/share/man/man7/rol.7"}
	for _, p := range programs {
		pages, err := filepath.Glob(filepath.Join(peer.Root(t), "man", p+".[18]"))
		if err != nil || len(pages) != 1 {
			t.Fatalf("pages of %s: %q, %v", p, pages, err)
		}
		want = append(want, "/usr/bin/"+p, "/usr/share/bash-completion/completions/"+p,
			"/usr/share/zsh/site-functions/_"+p, "/usr/share/fish/vendor_completions.d/"+p+".fish",
			"/usr/share/man/man"+filepath.Ext(pages[0])[1:]+"/"+filepath.Base(pages[0]))
	}
	examples, err := filepath.Glob(filepath.Join(peer.Root(t), "contrib", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range examples {
		if filepath.Base(filepath.Dir(e)) != "completion" {
			want = append(want, "/usr/share/doc/rolmail"+strings.TrimPrefix(e, peer.Root(t)))
		}
	}
	slices.Sort(want)
	have := files(t, dest)
	slices.Sort(have)
	if !slices.Equal(have, want) {
		t.Errorf("installed\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
	for _, p := range programs {
		out, err := exec.Command(filepath.Join(dest, "usr/bin", p), "--version").CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), p+" ") {
			t.Errorf("%s --version: %v, %q", p, err, out)
		}
	}

	data := filepath.Join(dest, "var/lib/rol/maillog.db")
	if err := os.WriteFile(data, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, append([]string{"uninstall"}, args...)...)
	if left := files(t, dest); !slices.Equal(left, []string{"/var/lib/rol/maillog.db"}) {
		t.Errorf("after uninstall there is %q; only the data should be", left)
	}
}
