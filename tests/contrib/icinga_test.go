package contrib

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

// Icinga 2 accepts the command and makes a service for the host that asks for
// one, and for no other.
func TestIcinga(t *testing.T) {
	binary := filepath.Join(unpacked, "usr/lib/x86_64-linux-gnu/icinga2/sbin/icinga2")
	if _, err := os.Stat(binary); err != nil {
		peer.Missing(t, "icinga2 is not below "+unpacked+"; tests/install-packages puts it there, as root")
	}
	dir := t.TempDir()
	args := []string{"daemon", "-C", "--include", filepath.Join(unpacked, "usr/share/icinga2/include")}
	for _, d := range []string{"DataDir", "CacheDir", "LogDir", "InitRunDir", "SpoolDir"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-D", d+"="+filepath.Join(dir, d))
	}
	conf := write(t, filepath.Join(dir, "conf"), `include <itl>
const NodeName = "logs"
object Host "logs" { check_command = "dummy"; vars.rol_logpipe = true; vars.rol_logpipe_warning = "2m" }
object Host "other" { check_command = "dummy" }
object Endpoint "logs" { }
object Zone "master" { endpoints = [ "logs" ] }
`+contribFile(t, "icinga/rol-logpipe.conf"))
	lib := filepath.Join(unpacked, "usr/lib/x86_64-linux-gnu")
	d := start(t, []string{"LD_LIBRARY_PATH=" + lib + ":" + filepath.Join(lib, "icinga2")}, binary,
		append(args, "-D", "RunAsUser=root", "-D", "RunAsGroup=root", "-c", conf)...)
	<-d.exited
	if out := d.out.String(); d.cmd.ProcessState.ExitCode() != 0 || !strings.Contains(out, "Instantiated 1 Service.") {
		t.Errorf("icinga2 daemon -C: %s", out)
	}
}

// The line for NRPE has the form that nrpe.cfg(5) wants, and names the plug-in
// that speaks as plug-ins do: here UNKNOWN or CRITICAL, as no service runs.
func TestNRPE(t *testing.T) {
	m := regexp.MustCompile(`(?m)^command\[[a-z_]+\]=/usr/local/bin/rol-logpipe (.*)$`).
		FindStringSubmatch(contribFile(t, "icinga/nrpe-rol-logpipe.cfg"))
	if m == nil {
		t.Fatal("no command")
	}
	conf := write(t, filepath.Join(t.TempDir(), "rol.cf"), "maillog_spool = "+t.TempDir()+"\n")
	d := start(t, []string{"ROL_CONFIG=" + conf}, peer.Program(t, "rol-logpipe"), strings.Fields(m[1])...)
	<-d.exited
	if status := d.cmd.ProcessState.ExitCode(); status != 2 && status != 3 {
		t.Errorf("status %d: %s", status, d.out)
	}
}
