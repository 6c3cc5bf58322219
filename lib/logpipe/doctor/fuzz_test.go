package doctor

import (
	"context"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog"
)

// Whatever stands in a configuration: its reader ends, and what it finds is in
// a line that there is.
func FuzzRead(f *testing.F) {
	f.Add("mail.* action(type=\"omfwd\" target=[\"a\", \"b\"]\n protocol=\"tcp\") # x\nif $msg == \"{\" then { stop }\n$A b\n")
	f.Add("smtp inet n - y - - smtpd\n -o syslog_name=$service_name\n")
	f.Add("$log_templ = <<'EOD';\n%Q\nEOD\n")
	f.Add("/var/log/mail.log {\n copytruncate\n postrotate\n}\n")
	f.Add("[Journal]\nRateLimitIntervalSec=\n")
	f.Add("destination d { file('/x'); }; # program(\"rol-logpipe\")\n")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Count(text, "\n") + 1
		in := func(what string, line int) {
			if line < 1 || line > lines {
				t.Errorf("%s: line %d of %d", what, line, lines)
			}
		}
		for _, s := range readMaster(text) {
			in("service", s.line)
		}
		settings := map[string]setting{}
		perl("f", text, settings)
		ini("f", text, "Journal", settings)
		for _, r := range rotations("f", text, settings) {
			for _, s := range r.directives {
				in("directive", s.line)
			}
		}
		for _, s := range settings {
			in(s.name, s.line)
		}
		if code := uncommented(text); strings.Count(code, "\n") != lines-1 {
			t.Errorf("%d lines without comments, %d with", strings.Count(code, "\n")+1, lines)
		}
		c := &rsyslogConf{depth: maxInclude}
		(&scanner{conf: c, file: "f", text: text, line: 1}).run()
		for _, a := range c.actions() {
			_ = a.takesMail()
			if !strings.HasPrefix(a.where, "f:") {
				t.Errorf("an action at %q", a.where)
			}
		}
		for _, o := range c.objects {
			in(o.kind, o.line)
			_ = c.template(o.params["name"])
		}
		for _, d := range c.directives {
			in(d.name, d.line)
		}
	})
}

// Whatever stands in all of a host's files, every finding is whole.
func TestAnyText(t *testing.T) {
	for _, text := range []string{
		"", "\x00\xff\n", "{\n}\n", "action(", "$", "\"", "/* ", "a.b\n", "$log_templ = <<'EOD';", goodLog + "<22>Nov 30 00:00:00 x y: z\n",
		strings.Repeat("action(type=\"omfwd\")\n", 2000), "*.* @x\n$IncludeConfig /etc/rsyslog.conf\n",
	} {
		files := map[string]string{"/run/systemd/journal/": ""}
		for _, n := range []string{
			"/etc/postfix/main.cf", "/etc/postfix/master.cf", "/etc/amavisd.conf", "/etc/rsyslog.conf", "/etc/systemd/journald.conf",
			"/etc/syslog-ng/syslog-ng.conf", "/etc/logrotate.d/x", "/var/log/mail.log", "/etc/rol/x.cf",
		} {
			files[n] = text
		}
		opt := made(t, files)
		opt.Files, opt.Databases = []string{"/var/log/mail.log"}, []string{"mysql:/etc/rol/x.cf"}
		for _, found := range Run(context.Background(), opt) {
			if found.What == "" || found.Where == "" || found.Do == "" {
				t.Errorf("%.20q: not whole: %+v", text, found)
			}
		}
	}
}

// A log's end is judged without a host being late to itself.
func FuzzTally(f *testing.F) {
	f.Add(goodLog)
	f.Add("<22>Nov 30 00:00:00 x y: z\nOct 1 00:00:00 x y: z\n")
	f.Fuzz(func(t *testing.T, text string) {
		tl := tally{behind: map[string]int64{}, seen: map[string]int{}}
		p := maillog.NewParser(maillog.Options{Now: noon})
		for line := range strings.Lines(text) {
			tl.line(p, []byte(line))
		}
		if len(tl.behind) > maxNames || tl.foreign > tl.lines {
			t.Errorf("%+v", tl)
		}
		if len(tl.behind) == 1 && len(tl.late()) > 0 {
			t.Errorf("one host alone is late: %+v", tl)
		}
	})
}
