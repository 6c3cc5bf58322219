package contrib

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/peer"
)

// mail is one mail's life on one host.
var mail = []logLine{
	{"postfix/smtpd[11]", "connect from pc.example.com[192.0.2.7]"},
	{"postfix/smtpd[11]", "4PbC4x469Jz3tBr: client=pc.example.com[192.0.2.7]"},
	{"postfix/cleanup[12]", "4PbC4x469Jz3tBr: message-id=<1@example.com>"},
	{"postfix/qmgr[13]", "4PbC4x469Jz3tBr: from=<a@example.com>, size=400, nrcpt=1 (queue active)"},
	{"postfix/smtpd[11]", "disconnect from pc.example.com[192.0.2.7] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5"},
	{"postfix/smtp[14]", "4PbC4x469Jz3tBr: to=<b@example.net>, relay=mx.example.net[192.0.2.9]:25, delay=0.5, delays=0.1/0/0.2/0.2, " +
		"dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as ABCDEF)"},
	{"postfix/qmgr[13]", "4PbC4x469Jz3tBr: removed"},
}

// With each of the ways out of rsyslogd a mail becomes a row while the service
// runs, and still is one row when it has ended.
func TestRsyslogToRows(t *testing.T) {
	logpipe, maillog := peer.Program(t, "rol-logpipe"), peer.Program(t, "rol-maillog")
	for _, out := range []string{"file", "omprog", "fifo"} {
		t.Run(out, func(t *testing.T) {
			dir := t.TempDir()
			db, conf := filepath.Join(dir, "db"), write(t, filepath.Join(dir, "rol.cf"), "")
			options := []string{"--config", conf, "--spool", filepath.Join(dir, "spool"), "--db", db}
			log, fifo := filepath.Join(dir, "mail.log"), filepath.Join(dir, "fifo")
			var text string
			var args []string
			switch out {
			case "file":
				text = contribFile(t, "rsyslog/rol-central-file.conf", "/var/log/rol", dir)
				write(t, log, "")
				args = append([]string{"--follow"}, append(options, log)...)
			case "omprog":
				text = contribFile(t, "rsyslog/rol-central-omprog.conf", "/usr/local/bin/rol-logpipe --omprog",
					logpipe+" --omprog "+strings.Join(options, " "), "/var/log/rol-logpipe.log", filepath.Join(dir, "err"))
			case "fifo":
				if err := syscall.Mkfifo(fifo, 0o600); err != nil {
					t.Fatal(err)
				}
				text = contribFile(t, "rsyslog/rol-central-fifo.conf", "/run/rol/maillog.fifo", fifo)
				args = append([]string{"--pipe", fifo}, options...)
			}
			var service *daemon
			if args != nil {
				service = start(t, nil, logpipe, args...)
			}
			r := central(t, text)
			r.start(t)
			r.say(t, mail)
			found := func() int {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				b, _ := exec.CommandContext(ctx, maillog, "--config", conf, "search", "--db", db,
					"--outcome", "sent", "--format", "json").Output()
				return strings.Count(string(b), "\n")
			}
			begun := time.Now()
			waitFor(t, "the row", func() bool { return found() == 1 })
			t.Logf("%v after the last line", time.Since(begun).Round(10*time.Millisecond))
			r.stop()
			if service != nil {
				service.stop()
			}
			if n := found(); n != 1 {
				t.Errorf("%d rows in the end; %s", n, read(filepath.Join(dir, "err")))
			}
		})
	}
}

// Every command line of rol-logpipe in the examples has options that it knows.
func TestCommandLines(t *testing.T) {
	logpipe := peer.Program(t, "rol-logpipe")
	help := func(args ...string) string { return run(t, logpipe, append(args, "--help")...) }
	line := regexp.MustCompile(`rol-logpipe"?,? "?((?:check|doctor|status)\b)?((?:[^\n"']|"-)*)`)
	option := regexp.MustCompile(`--[a-z]+`)
	files, err := filepath.Glob(filepath.Join(peer.Root(t), "contrib", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range files {
		if filepath.Base(filepath.Dir(f)) == "completion" {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			known := option.FindAllString(help(slices.DeleteFunc([]string{m[1]}, func(s string) bool { return s == "" })...), -1)
			for _, o := range option.FindAllString(m[2], -1) {
				seen[m[1]+o] = true
				if !slices.Contains(known, o) {
					t.Errorf("%s: rol-logpipe %s has no %s", f, m[1], o)
				}
			}
		}
	}
	for _, want := range []string{"--follow", "--omprog", "--pipe", "--db"} {
		if !seen[want] {
			t.Errorf("no example with %s was found: the test tests nothing", want)
		}
	}
}
