package contrib

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

// unpacked is where tests/install-packages puts syslog-ng, which cannot be
// installed beside rsyslog.
const unpacked = "/var/cache/rolmail-tests"

// syslogNG is a syslog-ng of the test's own. It is a *rsyslog for what both do.
func newSyslogNG(t *testing.T, text string) (s *rsyslog, env []string) {
	t.Helper()
	binary := filepath.Join(unpacked, "usr/sbin/syslog-ng")
	modules, _ := filepath.Glob(filepath.Join(unpacked, "usr/lib/syslog-ng/*/libaffile.so"))
	if _, err := os.Stat(binary); err != nil || len(modules) == 0 {
		peer.Missing(t, "syslog-ng is not below "+unpacked+"; tests/install-packages puts it there, as root")
	}
	dir, err := os.MkdirTemp("", "rol-sn-") // a unix socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	conf := write(t, filepath.Join(dir, "conf"), "@version: 3.38\n"+strings.ReplaceAll(text, "@DIR@", dir))
	s = &rsyslog{dir: dir, conf: conf, args: []string{
		"-F", "--no-caps", "-f", conf, "-R", dir + "/persist", "-p", dir + "/pid", "-c", dir + "/ctl",
		"--module-path=" + filepath.Dir(modules[0]),
	}}
	lib := filepath.Join(unpacked, "usr/lib/x86_64-linux-gnu") + ":" + filepath.Join(unpacked, "lib/x86_64-linux-gnu")
	env = []string{"LD_LIBRARY_PATH=" + lib + ":" + filepath.Join(unpacked, "usr/lib/syslog-ng")}
	check := start(t, env, binary, append([]string{"--syntax-only"}, s.args...)...)
	<-check.exited
	if out := check.out.String(); check.cmd.ProcessState.ExitCode() != 0 || strings.Contains(out, "rror") {
		t.Fatalf("syslog-ng --syntax-only: %s", out)
	}
	s.args = append([]string{binary}, s.args...)
	return s, env
}

// A mail server's lines reach the log server whole, those said while it is away
// too; then they go to the file, or to a child.
func TestSyslogNG(t *testing.T) {
	for _, out := range []string{"file", "program"} {
		t.Run(out, func(t *testing.T) {
			port := strconv.Itoa(peer.FreePort(t))
			oldNew := []string{"/var/log/rol", "@DIR@"}
			if out == "program" {
				oldNew = []string{"/usr/local/bin/rol-logpipe --follow -", "exec cat >>@DIR@/mail.log"}
			}
			central, env := newSyslogNG(t, contribFile(t, "syslog-ng/rol-central.conf", "192.0.2.10", "127.0.0.1", "10514", port)+
				contribFile(t, "syslog-ng/rol-central-"+out+".conf", oldNew...))
			mx, _ := newSyslogNG(t, "options { use-fqdn(no); };\nsource s_src { unix-dgram(\"@DIR@/log\" keep-hostname(no) host-override(\"mx1.example.com\")); };\n"+
				contribFile(t, "syslog-ng/rol-forward.conf", "192.0.2.10", "127.0.0.1", "10514", port, "/var/lib/syslog-ng", "@DIR@",
					"time-reopen(5)", "time-reopen(1)", "4294967296", "16777216"))
			log := filepath.Join(central.dir, "mail.log")
			lines := samples(400)
			run := func(s *rsyslog) { s.daemon = start(t, env, s.args[0], s.args[1:]...) }
			run(mx)
			mx.say(t, lines[:200])
			run(central)
			waitFor(t, "the lines from before", func() bool { return strings.Count(read(log), "\n") >= 200 })
			mx.say(t, lines[200:])
			waitFor(t, fmt.Sprintf("%d lines", len(lines)), func() bool { return strings.Count(read(log), "\n") >= len(lines) })
			mx.stop()
			central.stop()
			sameLines(t, read(log), "mx1.example.com", lines)
		})
	}
}
