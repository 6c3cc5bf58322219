package peer_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

// The test runs itself, to see how it ends where a peer is missing.
func TestMissingPeer(t *testing.T) {
	if os.Getenv("ROL_TEST_INNER") == "1" {
		peer.Need(t, "no-such-peer")
		t.Fatal("found where there is nothing")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ require, want string }{
		{"0", "--- SKIP: TestMissingPeer"},
		{"1", "--- FAIL: TestMissingPeer"},
	} {
		cmd := exec.Command(exe, "-test.run=^TestMissingPeer$", "-test.v")
		cmd.Env = append(os.Environ(), "ROL_TEST_INNER=1", "PATH=/nonexistent", peer.RequireEnv+"="+tt.require)
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), tt.want) ||
			!strings.Contains(string(out), "no-such-peer is not installed") {
			t.Errorf("with %s=%s:\n%s", peer.RequireEnv, tt.require, out)
		}
	}
}

func TestHint(t *testing.T) {
	for _, command := range []string{"pflogsumm", "zstd"} {
		if got, want := peer.Hint(t, command), "; Debian package "+command; got != want {
			t.Errorf("Hint(%q) = %q, want %q", command, got, want)
		}
	}
	if got := peer.Hint(t, "no-such-peer"); got != "" {
		t.Errorf("Hint(no-such-peer) = %q", got)
	}
}

func TestNeed(t *testing.T) {
	if path := peer.Need(t, "sh"); !filepath.IsAbs(path) {
		t.Errorf("Need(sh) = %q", path)
	}
}
