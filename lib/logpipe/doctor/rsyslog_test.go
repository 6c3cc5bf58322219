package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

// rs is a host with a configuration of rsyslog and, if it follows a file, that.
func rs(text string) map[string]string {
	return map[string]string{"/etc/rsyslog.conf": text, "/var/log/mail.log": goodLog}
}

func follows(o *Options) { o.Files = []string{"/var/log/mail.log"} }

const rc = "/etc/rsyslog.conf"

var rsyslogHosts = []struct {
	name  string
	files map[string]string
	opt   func(*Options)
	want  []string
}{
	{
		name:  "imjournal as it comes",
		files: rs("module(load=\"imjournal\" StateFile=\"x\")\n"), want: []string{"loses rsyslog " + rc + ":1 | imjournal"},
	},
	{name: "imjournal without limit", files: rs("module(load=\"imjournal\"\n  ratelimit.interval=\"0\")\n")},
	{name: "imjournal without limit, the old way", files: rs("$ModLoad x\n$imjournalRatelimitInterval 0\nmodule(load=\"imjournal\")\n")},
	{
		name: "rate limits and UDP",
		files: rs("module(load=\"imuxsock\" SysSock.RateLimit.Interval=\"5\" SysSock.RateLimit.Burst=\"200\")\ninput(type=\"imtcp\" RateLimit.Interval=\"0\")\n" +
			"input(type=\"imudp\" port=\"514\")\n$SystemLogRateLimitInterval 2\n$UDPServerRun 514\n/* input(type=\"imudp\") */ # input(type=\"imudp\")\n"),
		want: []string{
			"loses rsyslog " + rc + ":1 | imuxsock", "loses rsyslog " + rc + ":3 | UDP", "loses rsyslog " + rc + ":4 | local socket", "loses rsyslog " + rc + ":5 | UDP",
		},
	},
	{
		name: "all lines", files: rs("$RepeatedMsgReduction on\n$MaxMessageSize 2k\n"),
		want: []string{"blurs rsyslog " + rc + ":1 | message repeated", "blurs rsyslog " + rc + ":2 | 2048 bytes"},
	},
	{
		name: "the old default template", opt: follows,
		files: rs("$ActionFileDefaultTemplate RSYSLOG_TraditionalFileFormat\nmail.err /var/log/mail.err\n*.*;auth,mail.none /var/log/mail.log\nmail.*\t-/var/log/mail.log # ours\n"),
		want:  []string{"blurs rsyslog " + rc + ":4 | without year"},
	},
	{
		name: "the default template as a module's", opt: follows,
		files: rs("module(load=\"builtin:omfile\" Template=\"RSYSLOG_TraditionalFileFormat\")\nmail.* -/var/log/mail.log\n"),
		want:  []string{"blurs rsyslog " + rc + ":2 | without year"},
	},
	{
		name: "two actions on one file", opt: follows, files: rs("mail.* -/var/log/mail.log\nif $programname == 'x' then {\n action(type=\"omfile\" file=\"/var/log/mail.log\")\n stop\n}\n"),
		want: []string{"loses rsyslog " + rc + ":3 | second action"},
	},
	{
		name: "slashes", opt: follows, files: rs("mail.* -/var/log/mail.log;RSYSLOG_SyslogProtocol23Format\n"),
		want: []string{"blurs rsyslog " + rc + ":1 | first slash"},
	},
	{
		name: "slashes permitted", opt: follows, files: rs("global(parser.permitSlashInProgramName=\"on\")\nmail.* -/var/log/mail.log;RSYSLOG_SyslogProtocol23Format\n"),
	},
	{
		name: "a template of one's own", opt: follows,
		files: rs("$template Mine,\"%timegenerated% %programname%: %msg%\\n\"\nmail.* action(type=\"omfile\" file=\"/var/log/mail.log\" template=\"mine\")\n"),
		want:  []string{"blurs rsyslog " + rc + ":2 | without year", "blurs rsyslog " + rc + ":2 | first slash", "blurs rsyslog " + rc + ":2 | which host"},
	},
	{
		name:  "omprog as one would write it",
		files: rs("module(load=\"omprog\")\nmail.* action(type=\"omprog\" binary=\"/usr/local/bin/rol-logpipe --omprog\" useTransactions=\"on\"\n queue.type=\"linkedlist\" queue.workerThreads=\"4\")\nmail.* action(type=\"omprog\" binary=\"/other\")\n"),
		want: []string{
			"loses rsyslog " + rc + ":2 | dropped", "loses rsyslog " + rc + ":2 | not confirmed", "loses rsyslog " + rc + ":2 | transactions", "blurs rsyslog " + rc + ":2 | 4 workers",
			"loses rsyslog " + rc + ":2 | memory only",
		},
	},
	{
		name:  "a FIFO as one would write it",
		files: rs("mail.* |/run/rol/maillog.fifo\n*.emerg :omusrmsg:*\nkern.* |/dev/xconsole\n"),
		want:  []string{"loses rsyslog " + rc + ":1 | dropped", "loses rsyslog " + rc + ":1 | FIFO full"},
	},
	{
		name:  "forwarding as one would write it",
		files: rs("mail.* @192.0.2.1\n*.* @@(o)192.0.2.1:514;RSYSLOG_ForwardFormat\nmail.err @192.0.2.9\n"),
		want: []string{
			"loses rsyslog " + rc + ":1 | UDP", "loses rsyslog " + rc + ":2 | dropped", "loses rsyslog " + rc + ":2 | memory only", "hint rsyslog " + rc + ":2 | plain TCP",
		},
	},
	{
		name: "forwarding with directives; long tags",
		files: map[string]string{
			rc:                     "$ActionQueueType LinkedList\n$ActionQueueFileName f\n$ActionQueueSaveOnShutdown on\n$ActionResumeRetryCount -1\nmail.* @@192.0.2.1\nmail.* :omrelp:192.0.2.1:2514;RSYSLOG_ForwardFormat\n",
			"/etc/postfix/main.cf": goodMain, "/etc/postfix/rol_header_checks": goodChecks,
			"/etc/postfix/master.cf": "submission inet n - n - - smtpd\n  -o syslog_name=postfix/$service_name\n",
		},
		want: []string{
			"hint rsyslog " + rc + ":5 | plain TCP", "blurs rsyslog " + rc + ":5 | whole seconds", "blurs rsyslog " + rc + ":5 | postfix/submission/smtpd[1234567]:",
			"loses rsyslog " + rc + ":6 | dropped", "loses rsyslog " + rc + ":6 | memory only", "blurs rsyslog " + rc + ":6 | cut after 32",
		},
	},
	{
		name: "includes, in a circle", files: map[string]string{
			rc: "include(file=\"/etc/rsyslog.d/*.conf\" mode=\"optional\")\n", "/etc/rsyslog.d/a.conf": "$IncludeConfig /etc/rsyslog.conf\nmail.* @x\n",
		},
		want: []string{"loses rsyslog /etc/rsyslog.d/a.conf:2 | UDP"},
	},
}

// The project's own examples lose and blur nothing.
func TestOwnExamples(t *testing.T) {
	dir := filepath.Join(peer.Root(t), "contrib", "rsyslog")
	text := func(names ...string) string {
		var b strings.Builder
		for _, n := range names {
			part, err := os.ReadFile(filepath.Join(dir, n))
			if err != nil {
				t.Fatal(err)
			}
			b.Write(part)
		}
		return b.String()
	}
	submission := map[string]string{
		"/etc/postfix/main.cf": goodMain + "syslog_name = postfix-out\n", "/etc/postfix/rol_header_checks": goodChecks,
		"/etc/postfix/master.cf": "submission inet n - n - - smtpd -o syslog_name=postfix-out/submission\n",
	}
	for _, conf := range []string{
		text("rol-central.conf", "rol-central-in-tcp.conf", "rol-central-in-relp.conf", "rol-central-file.conf"),
		text("rol-central.conf", "rol-central-in-relp.conf", "rol-central-omprog.conf"),
		text("rol-central.conf", "rol-central-in-relp.conf", "rol-central-fifo.conf"),
		text("rol-forward-relp.conf"), text("rol-forward-tcp.conf"),
	} {
		files := map[string]string{rc: conf, "/var/log/rol/mail.log": goodLog}
		for name, s := range submission {
			files[name] = s
		}
		opt := made(t, files)
		opt.Files = []string{"/var/log/rol/mail.log"}
		c := &rsyslogConf{}
		(&scanner{conf: c, text: conf, line: 1}).run()
		if len(c.actions()) != 1 {
			t.Errorf("%d actions in\n%s", len(c.actions()), conf)
		}
		for _, f := range Run(context.Background(), opt) {
			if f.Severity != Hint {
				t.Error(short(f))
			}
		}
	}
}

// Debian's own configuration is read as it is meant.
func TestDebiansRsyslog(t *testing.T) {
	text, err := os.ReadFile("/etc/rsyslog.conf")
	if err != nil {
		peer.Missing(t, "no /etc/rsyslog.conf; Debian package rsyslog")
	}
	c := &rsyslogConf{}
	(&scanner{conf: c, host: &host{Options: Options{Root: t.TempDir()}}, text: string(text), line: 1}).run()
	var targets []string
	for _, a := range c.actions() {
		if a.takesMail() {
			targets = append(targets, a.kind+" "+a.target)
		}
	}
	if got := strings.Join(targets, ", "); got != "omfile /var/log/syslog, omfile /var/log/mail.log" {
		t.Errorf("mail goes to %s", got)
	}
}
