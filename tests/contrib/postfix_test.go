package contrib

import (
	"fmt"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/tests/peer"
)

// postfixDir makes a configuration of a Postfix of the test's own, from the one
// that the package brings, with its queue and data in a directory of its own.
func postfixDir(t *testing.T, port int, more ...string) (dir, log string) {
	t.Helper()
	peer.Need(t, "postfix")
	if os.Geteuid() != 0 {
		peer.Missing(t, "only root may start Postfix")
	}
	base, err := os.MkdirTemp("", "rol-pf-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, log = filepath.Join(base, "etc"), filepath.Join(base, "log")
	if out, err := exec.Command("cp", "-a", "/etc/postfix", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, d := range []string{"queue", "data"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("chown", "postfix", filepath.Join(base, "data")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	settings := append([]string{
		"compatibility_level = 3.6", "queue_directory = " + base + "/queue", "data_directory = " + base + "/data",
		"maillog_file = " + log, "maillog_file_prefixes = " + base, "myhostname = mx1.example.com", "mydestination =",
		"default_transport = discard", "inet_interfaces = 127.0.0.1", "inet_protocols = ipv4", "smtpd_tls_security_level = none",
		"alias_maps =", "alias_database =", "local_recipient_maps =", "relay_domains = example.net",
		"smtpd_relay_restrictions = permit_mynetworks, reject", "mynetworks = 127.0.0.0/8",
	}, more...)
	run(t, "postconf", append([]string{"-c", dir, "-e"}, settings...)...)
	var master strings.Builder
	fmt.Fprintf(&master, "127.0.0.1:%d inet n - n - - smtpd\n", port)
	for line := range strings.Lines(read("/etc/postfix/master.cf")) {
		f := strings.Fields(line)
		if len(f) == 8 && line[0] != '#' && line[0] != ' ' && f[0] != "smtp" {
			f[4] = "n" // no chroot: there is nothing in it
			master.WriteString(strings.Join(f, " ") + "\n")
		}
	}
	write(t, filepath.Join(dir, "master.cf"), master.String())
	return dir, log
}

// The settings are accepted, added to those there are, and set once.
func TestPostfixSettings(t *testing.T) {
	dir, _ := postfixDir(t, peer.FreePort(t), "header_checks = regexp:/other")
	for range 2 {
		run(t, contribPath(t, "postfix/rol-postconf"), dir, "postfix-out")
	}
	write(t, filepath.Join(dir, "rol_header_checks"), contribFile(t, "postfix/rol_header_checks"))
	out := run(t, "postconf", "-c", dir, "-n")
	for _, want := range []string{
		"enable_long_queue_ids = yes\n", "smtpd_tls_loglevel = 1\n", "syslog_name = postfix-out\n",
		"header_checks = regexp:/other, regexp:" + dir + "/rol_header_checks\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("postconf -n does not say %q", want)
		}
	}
	if out := run(t, "postfix", "-c", dir, "check"); strings.Contains(out, "unused parameter") || strings.Contains(out, "error") {
		t.Errorf("postfix check: %s", out)
	}
}

// A real Postfix with these settings logs what a row needs: a long queue id,
// its name, and the subject, which the parser finds even where it imitates what
// follows it.
func TestPostfixSubject(t *testing.T) {
	port := peer.FreePort(t)
	dir, log := postfixDir(t, port, "header_checks =")
	run(t, contribPath(t, "postfix/rol-postconf"), dir, "postfix-in")
	write(t, filepath.Join(dir, "rol_header_checks"), contribFile(t, "postfix/rol_header_checks"))
	if err := os.Chmod(filepath.Join(dir, "rol_header_checks"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = exec.Command("postfix", "-c", dir, "abort").Run() })
	run(t, "postfix", "-c", dir, "start")
	subject := `Re: from=<x@y> to=<z>; status=sent (250), "quoted" ; from=<fake@example.org> to=<no@example.org> proto=SMTP helo=<h>`
	waitFor(t, "Postfix", func() bool {
		return smtp.SendMail(fmt.Sprintf("127.0.0.1:%d", port), nil, "a@example.org", []string{"b@example.net"},
			[]byte("Subject: "+subject+"\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n")) == nil
	})
	waitFor(t, "the mail's last line", func() bool { return strings.Contains(read(log), "removed") })
	found := ""
	for line := range strings.Lines(read(log)) {
		var ev maillog.Event
		c := maillog.NewParser(maillog.Options{}).Parse([]byte(line), &ev)
		if c == maillog.Unparsed || c == maillog.Foreign {
			t.Errorf("not understood: %q", line)
		}
		if ev.Kind == maillog.KindCheck && ev.Subject != nil {
			found = string(ev.Subject)
			if len(ev.QID) < 12 || string(ev.Instance) != "postfix-in" || string(ev.Sender) != "a@example.org" || string(ev.Rcpt) != "b@example.net" {
				t.Errorf("queue id %q, instance %q, sender %q, recipient %q", ev.QID, ev.Instance, ev.Sender, ev.Rcpt)
			}
		}
	}
	if found != subject {
		t.Errorf("subject %q, want %q; the log:\n%s", found, subject, read(log))
	}
}
