package contrib

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

var services = []string{"rol-logpipe.service", "rol-logpipe-fifo.service"}

// The services' restrictions are better than what the README promises.
func TestSystemdSecurity(t *testing.T) {
	level := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)
	for _, s := range services {
		out := run(t, "systemd-analyze", "security", "--no-pager", "--offline=true", contribPath(t, "systemd/"+s))
		m := level.FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no exposure level in %s", out)
		}
		if n, err := strconv.ParseFloat(m[1], 64); err != nil || n >= 2 {
			t.Errorf("%s has exposure level %s, not below 2.0", s, m[1])
		}
	}
}

// unitDir holds the units and their drop-ins where systemd looks for them,
// with the program that was built.
func unitDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := peer.Program(t, "rol-logpipe")
	for _, s := range services {
		write(t, filepath.Join(dir, s), contribFile(t, "systemd/"+s, "/usr/local/bin/rol-logpipe", program))
	}
	write(t, filepath.Join(dir, "rol-logpipe-fifo.socket"), contribFile(t, "systemd/rol-logpipe-fifo.socket"))
	write(t, filepath.Join(dir, "rol-logpipe.service.d/mysql.conf"),
		contribFile(t, "systemd/rol-mysql.conf", "/usr/local/bin/rol-logpipe", program))
	write(t, filepath.Join(dir, "mta.service"), "[Service]\nExecStart=/bin/true\n")
	write(t, filepath.Join(dir, "mta.service.d/rol.conf"), contribFile(t, "systemd/postfix-rol.conf"))
	return dir
}

// systemd has nothing to complain of: no unknown setting, no missing unit.
func TestSystemdVerify(t *testing.T) {
	dir := unitDir(t)
	verify := func(units ...string) string {
		args := []string{"verify", "--man=no"}
		for _, u := range units {
			args = append(args, filepath.Join(dir, u))
		}
		cmd := exec.Command(peer.Need(t, "systemd-analyze"), args...)
		cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return err.Error() + "\n" + string(out)
		}
		return string(out)
	}
	if out := verify("rol-logpipe.service", "rol-logpipe-fifo.service", "rol-logpipe-fifo.socket", "mta.service"); out != "" {
		t.Error(out)
	}
	write(t, filepath.Join(dir, "mta.service.d/rol.conf"), contribFile(t, "systemd/postfix-rol.conf", "LogRate", "LogRat"))
	if out := verify("mta.service"); !strings.Contains(out, "LogRat") {
		t.Errorf("a wrong name in a drop-in is not seen: the test tests nothing: %q", out)
	}
}

// The drop-in of journald sets what journald knows.
func TestSystemdJournald(t *testing.T) {
	known := read("/etc/systemd/journald.conf")
	if known == "" {
		peer.Missing(t, "no /etc/systemd/journald.conf; Debian package systemd")
	}
	n := 0
	for line := range strings.Lines(contribFile(t, "systemd/journald-rol.conf")) {
		if name, _, ok := strings.Cut(line, "="); ok && line[0] != '#' {
			n++
			if !strings.Contains(known, "\n#"+name+"=") {
				t.Errorf("journald.conf has no %s", name)
			}
		}
	}
	if n != 2 {
		t.Errorf("%d settings", n)
	}
}

// User and directories are made, in an empty root.
func TestSystemdUserAndDirectories(t *testing.T) {
	if os.Geteuid() != 0 {
		peer.Missing(t, "only root may give directories to another user")
	}
	root := t.TempDir()
	write(t, filepath.Join(root, "etc/group"), "root:x:0:\nadm:x:4:\n")
	write(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\n")
	run(t, "systemd-sysusers", "--root="+root, contribPath(t, "systemd/rol.sysusers"))
	if !strings.Contains(read(filepath.Join(root, "etc/passwd")), "\nrol:x:") {
		t.Fatalf("no user rol: %q", read(filepath.Join(root, "etc/passwd")))
	}
	run(t, "systemd-tmpfiles", "--root="+root, "--create", contribPath(t, "systemd/rol.tmpfiles"))
	for dir, mode := range map[string]os.FileMode{"etc/rol": 0o755, "var/lib/rol": 0o750, "var/log/rol": 0o750} {
		if st, err := os.Stat(filepath.Join(root, dir)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", dir, st, err)
		}
	}
}
