package contrib

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/tests/peer"
)

// rsyslog is a rsyslogd with a directory of its own.
type rsyslog struct {
	*daemon
	dir, conf string
	args      []string
}

// newRsyslog writes a configuration and lets rsyslogd look at its syntax.
func newRsyslog(t *testing.T, text string) *rsyslog {
	t.Helper()
	// A unix socket's path has at most 107 bytes, so not t.TempDir.
	dir, err := os.MkdirTemp("", "rol-rs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &rsyslog{dir: dir, conf: filepath.Join(dir, "conf")}
	write(t, r.conf, fmt.Sprintf("global(workDirectory=%q)\n", dir)+strings.ReplaceAll(text, "@DIR@", dir))
	r.args = []string{"-n", "-iNONE", "-f", r.conf}
	if out := run(t, "rsyslogd", "-N1", "-f", r.conf); strings.Contains(out, "error") || strings.Contains(out, "warning") {
		t.Fatalf("rsyslogd -N1: %s", out)
	}
	return r
}

func (r *rsyslog) start(t *testing.T) {
	t.Helper()
	r.daemon = start(t, nil, peer.Need(t, "rsyslogd"), r.args...)
}

// mailServer is a rsyslogd on a mail server, with a socket in place of
// /dev/log and one of the forwarding files.
func mailServer(t *testing.T, forward string) *rsyslog {
	return newRsyslog(t, `global(localHostname="mx1.example.com")
module(load="imuxsock" SysSock.Name="@DIR@/log" SysSock.UsePIDFromSystem="off")
`+forward)
}

// say writes messages to a mail server's socket as syslog(3) does.
func (r *rsyslog) say(t *testing.T, lines []logLine) {
	t.Helper()
	path := filepath.Join(r.dir, "log")
	var c net.Conn
	waitFor(t, "rsyslogd's socket", func() (ok bool) {
		var err error
		c, err = net.Dial("unixgram", path)
		return err == nil
	})
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if _, err := fmt.Fprintf(c, "<22>%s %s: %s", time.Now().Format(time.Stamp), l.tag, l.msg); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "rsyslogd reading its socket", func() bool {
		unread := -1
		err := raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
		return err == nil && unread == 0
	})
}

// certificates makes an authority and a certificate for each name.
func certificates(t *testing.T, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	run(t, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
		"-keyout", at("ca.key"), "-out", at("ca.pem"))
	for _, n := range names {
		run(t, "openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN="+n, "-keyout", at(n+".key"), "-out", at(n+".csr"))
		write(t, at(n+".ext"), "subjectAltName=DNS:"+n+"\n")
		run(t, "openssl", "x509", "-req", "-in", at(n+".csr"), "-CA", at("ca.pem"), "-CAkey", at("ca.key"), "-CAcreateserial",
			"-days", "2", "-extfile", at(n+".ext"), "-out", at(n+".pem"))
	}
	return dir
}

// ways are the two ways from a mail server to the log server.
func ways(t *testing.T, way string) (in, forward string) {
	t.Helper()
	port := strconv.Itoa(peer.FreePort(t))
	if way == "tcp" {
		return contribFile(t, "rsyslog/rol-central-in-tcp.conf", "192.0.2.10", "127.0.0.1", "10514", port),
			contribFile(t, "rsyslog/rol-forward-tcp.conf", "192.0.2.10", "127.0.0.1", "10514", port,
				`resumeInterval="5"`, `resumeInterval="1"`)
	}
	if _, err := os.Stat("/usr/lib/x86_64-linux-gnu/rsyslog/imrelp.so"); err != nil {
		peer.Missing(t, "imrelp is not installed; Debian package rsyslog-relp")
	}
	tls := certificates(t, "logs.example.com", "mx1.example.com")
	return contribFile(t, "rsyslog/rol-central-in-relp.conf", "2514", port, "/etc/rsyslog.d/tls", tls),
		contribFile(t, "rsyslog/rol-forward-relp.conf", `target="logs.example.com"`, `target="127.0.0.1"`, "2514", port,
			"/etc/rsyslog.d/tls", tls, `resumeInterval="5"`, `resumeInterval="1"`)
}

// inOrder sorts a log as the messages went in, each once. A rsyslogd that is
// stopped while the log server is away queues what it was about to send behind
// the rest, and may send a line twice.
func inOrder(log string, said []logLine) string {
	at := map[string]int{}
	for i, l := range said {
		at[l.tag+": "+l.msg] = i
	}
	lines := strings.SplitAfter(strings.TrimSuffix(log, "\n")+"\n", "\n")
	place := func(line string) int {
		_, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		_, text, _ = strings.Cut(text, " ")
		i, ok := at[text]
		if !ok {
			return len(said) // a line that nobody said stays, at the end
		}
		return i
	}
	slices.SortStableFunc(lines[:len(lines)-1], func(a, b string) int { return place(a) - place(b) })
	return strings.Join(slices.CompactFunc(lines, func(a, b string) bool {
		return a != "" && place(a) == place(b) && place(a) < len(said)
	}), "")
}

// A mail server's lines reach the log server's file whole; those said while
// the log server is away, too, and a restart of the mail server's rsyslogd in
// that time does not matter.
func TestRsyslogForwardToFile(t *testing.T) {
	for _, way := range []string{"tcp", "relp"} {
		t.Run(way, func(t *testing.T) {
			in, forward := ways(t, way)
			mx := mailServer(t, forward)
			central := newRsyslog(t, contribFile(t, "rsyslog/rol-central.conf")+in+
				contribFile(t, "rsyslog/rol-central-file.conf", "/var/log/rol", "@DIR@"))
			out := filepath.Join(central.dir, "mail.log")
			lines := samples(400)
			mx.start(t)
			mx.say(t, lines[:200])
			mx.stop()
			mx.start(t)
			central.start(t)
			arrived := func(n int) func() bool {
				return func() bool { return strings.Count(read(out), "\n") >= n }
			}
			waitFor(t, "the lines from before", arrived(200))
			mx.say(t, lines[200:])
			waitFor(t, "the other lines", arrived(400))
			mx.stop()
			central.stop()
			sameLines(t, inOrder(read(out), lines), "mx1.example.com", lines)
		})
	}
}

// Who has no certificate of a name that is listed cannot send.
func TestRsyslogRelpRefusesOthers(t *testing.T) {
	in, forward := ways(t, "relp")
	in = strings.Replace(in, `"mx1.example.com", `, "", 1)
	mx := mailServer(t, forward)
	central := newRsyslog(t, contribFile(t, "rsyslog/rol-central.conf")+in+
		contribFile(t, "rsyslog/rol-central-file.conf", "/var/log/rol", "@DIR@"))
	central.start(t)
	mx.start(t)
	mx.say(t, samples(4))
	waitFor(t, "a refusal", func() bool { return strings.Contains(central.out.String(), "authentication error") })
	mx.stop()
	central.stop()
	if got := read(filepath.Join(central.dir, "mail.log")); got != "" {
		t.Errorf("lines from a stranger: %q", got)
	}
}

// central is a log server that gets its lines by its own socket.
func central(t *testing.T, out string) *rsyslog {
	return newRsyslog(t, `global(localHostname="logs.example.com")
module(load="imuxsock" SysSock.Name="@DIR@/log" SysSock.UsePIDFromSystem="off")
`+contribFile(t, "rsyslog/rol-central.conf")+out+"\nmail.* call rol_maillog\n")
}

// The child of omprog.conf dies when it has read a line and not confirmed it:
// that line comes again, none is lost, and all stay in order.
func TestRsyslogOmprog(t *testing.T) {
	dir := t.TempDir()
	child, got := filepath.Join(dir, "child"), filepath.Join(dir, "got")
	write(t, child, `#!/bin/sh
# Confirms lines as rol-logpipe does; the first child dies at the 51st.
echo OK
n=0
while IFS= read -r line; do
	n=$((n + 1))
	if [ $n -gt 50 ] && mkdir "$1.died" 2>/dev/null; then exit 1; fi
	printf '%s\n' "$line" >>"$1"
	echo OK
done
`)
	if err := os.Chmod(child, 0o700); err != nil {
		t.Fatal(err)
	}
	r := central(t, contribFile(t, "rsyslog/rol-central-omprog.conf", "/usr/local/bin/rol-logpipe --omprog", child+" "+got,
		"/var/log/rol-logpipe.log", dir+"/err", `resumeInterval="5"`, `resumeInterval="1"`))
	r.start(t)
	lines := samples(200)
	r.say(t, lines)
	waitFor(t, "the lines", func() bool { return strings.Count(read(got), "\n") >= len(lines) })
	r.stop()
	sameLines(t, read(got), "logs.example.com", lines)
	if _, err := os.Stat(got + ".died"); err != nil {
		t.Error("the child did not die: the test tests nothing")
	}
}

// A FIFO that is full for a while loses nothing.
func TestRsyslogFIFO(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(fifo, os.O_RDWR, 0) // as systemd holds it
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	r := central(t, contribFile(t, "rsyslog/rol-central-fifo.conf", "/run/rol/maillog.fifo", fifo))
	r.start(t)
	lines := samples(400) // more than a FIFO's 64 KiB
	r.say(t, lines)
	var got strings.Builder
	buf := make([]byte, 1<<16)
	for deadline := time.Now().Add(patience); strings.Count(got.String(), "\n") < len(lines); {
		if err := held.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		n, err := held.Read(buf)
		if err != nil {
			t.Fatalf("after %d lines: %v", strings.Count(got.String(), "\n"), err)
		}
		got.Write(buf[:n])
	}
	r.stop()
	sameLines(t, inOrder(got.String(), lines), "logs.example.com", lines)
}

// The files work beside Debian's own configuration.
func TestRsyslogBesideDebian(t *testing.T) {
	debian, err := os.ReadFile("/etc/rsyslog.conf")
	if err != nil {
		peer.Missing(t, "no /etc/rsyslog.conf; Debian package rsyslog")
	}
	base := strings.Replace(string(debian), "$IncludeConfig /etc/rsyslog.d/*.conf", "", 1)
	for _, way := range []string{"tcp", "relp"} {
		in, forward := ways(t, way)
		newRsyslog(t, base+forward)
		for _, out := range []string{"file", "omprog", "fifo"} {
			newRsyslog(t, base+contribFile(t, "rsyslog/rol-central.conf")+in+contribFile(t, "rsyslog/rol-central-"+out+".conf")+
				"\nmail.* call rol_maillog\n")
		}
	}
}
