package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// made is a host of the given files, on which everything else is in order.
func made(t *testing.T, files map[string]string) Options {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return Options{
		Root:         root,
		Command:      func(context.Context, string, ...string) ([]byte, error) { return nil, errors.New("no such program") },
		Now:          func() time.Time { return noon },
		Synchronised: func() (bool, error) { return true, nil },
		FileSystem:   func(string) (FileSystem, error) { return FileSystem{Free: 1 << 40}, nil },
	}
}

// short is a finding as the tables below have it: "loses rsyslog /etc/x:1 text".
func short(f Finding) string { return fmt.Sprintf("%s %s %s %s", f.Severity, f.Check, f.Where, f.What) }

// expect compares findings with what they must be, in any order: severity, check
// and place as they are, and words of the text.
func expect(t *testing.T, found []Finding, want ...string) {
	t.Helper()
	matched := make([]bool, len(found))
	for _, w := range want {
		head, words, _ := strings.Cut(w, " | ")
		hit := false
		for i, f := range found {
			if !matched[i] && strings.HasPrefix(short(f), head+" ") && strings.Contains(f.What, words) {
				matched[i], hit = true, true
				break
			}
		}
		if !hit {
			t.Errorf("not found: %s", w)
		}
	}
	for i, f := range found {
		if !matched[i] {
			t.Errorf("found, not expected: %s", short(f))
		}
		if f.Do == "" || f.Where == "" || f.What == "" {
			t.Errorf("not whole: %+v", f)
		}
	}
}

const (
	goodMain   = "enable_long_queue_ids = yes\nheader_checks = regexp:/etc/postfix/rol_header_checks\n"
	goodChecks = "/^Subject:/ INFO\n"
	goodMaster = "smtp inet n - n - - smtpd\n"
	stamp      = "2026-11-25T11:59:59.123456+00:00 "
	goodLog    = stamp + "mx1 postfix/qmgr[1]: 4PbC4x469Jz3tBr: removed\n"
)

var hosts = []struct {
	name  string
	files map[string]string
	opt   func(*Options)
	want  []string
}{
	{name: "nothing on it"},
	{
		name: "in order",
		files: map[string]string{
			"/etc/postfix/main.cf": goodMain, "/etc/postfix/master.cf": goodMaster, "/etc/postfix/rol_header_checks": goodChecks,
			"/etc/amavis/conf.d/50-user": "$log_level = 0;\n$logline_maxlen = 3900;\n", "/etc/rsyslog.conf": "mail.* -/var/log/mail.log\n",
			"/run/systemd/journal/": "", "/etc/systemd/journald.conf": "[Journal]\nRateLimitIntervalSec=0\n", "/var/log/mail.log": goodLog,
			"/etc/logrotate.d/mail": "/var/log/*.log {\n\tcompress\n\tdelaycompress\n\tpostrotate\n\t\tkill -HUP 1 { copytruncate }\n\tendscript\n}\n",
		},
		opt: func(o *Options) { o.Files = []string{"/var/log/mail.log"} },
	},

	// Postfix
	{
		name: "postfix as it comes", files: map[string]string{"/etc/postfix/main.cf": "smtpd_tls_security_level = may\n"},
		want: []string{
			"blurs postfix /etc/postfix/main.cf | queue ids are short", "hint postfix /etc/postfix/main.cf | TLS",
			"hint postfix /etc/postfix/main.cf | subjects",
		},
	},
	{
		name: "postconf knows better than main.cf",
		files: map[string]string{
			"/etc/postfix/main.cf": "# comment\nenable_long_queue_ids = ${yesno}\nheader_checks = regexp:/c\n", "/c": "/^subject:/ warn it\n",
		},
		opt: func(o *Options) {
			o.Command = func(_ context.Context, name string, args ...string) ([]byte, error) {
				if name != "postconf" || args[0] != "-c" {
					return nil, errors.New("what?")
				}
				return []byte("enable_long_queue_ids = no\nsyslog_name = postfix\n"), nil
			}
		},
		want: []string{"blurs postfix /etc/postfix/main.cf:2 | queue ids are short"},
	},
	{
		name: "instances of one name, and one that is away",
		files: map[string]string{
			"/etc/postfix/main.cf":            goodMain + "multi_instance_directories = /etc/postfix-out,\n  /etc/postfix-in /etc/gone\n",
			"/etc/postfix/rol_header_checks":  goodChecks,
			"/etc/postfix-out/main.cf":        goodMain + "syslog_name = postfix/out\n",
			"/etc/postfix-in/main.cf":         goodMain + "multi_instance_name = postfix-in\n",
			"/etc/postfix-in/master.cf":       "a inet n - n - - smtpd\n -o syslog_name=postfix-other/x\nb inet n - n - - smtpd\n -o syslog_name=postfix/b\n",
			"/etc/postfix-in/something.cf":    "",
			"/etc/postfix-out/master.cf":      "smtp inet n - n - - smtpd -v\n\t-o syslog_name=$syslog_name/$service_name\nq inet n - n - - qmgr\n -o syslog_name=a:b\n",
			"/etc/postfix-out/rol-unused.cf ": "",
		},
		want: []string{
			"blurs postfix /etc/postfix-out/main.cf:3 | both log as postfix",
			"hint postfix /etc/postfix/main.cf:3 | no main.cf",
			"hint postfix /etc/postfix-in/master.cf:1 | \"postfix-other/x\"",
			"blurs postfix /etc/postfix-in/master.cf:3 | another instance's name",
			"hint postfix /etc/postfix-out/master.cf:1 | -v",
			"blurs postfix /etc/postfix-out/master.cf:3 | characters",
		},
	},
	{
		name: "postfix writes a file that nobody follows",
		files: map[string]string{
			"/etc/postfix/main.cf": goodMain + "maillog_file = /var/log/pf.log\ndebug_peer_list = 192.0.2.1\n", "/etc/postfix/rol_header_checks": goodChecks,
			"/etc/postfix/master.cf": goodMaster, "/var/log/mail.log": goodLog,
		},
		opt: func(o *Options) { o.Files = []string{"/var/log/mail.*"} },
		want: []string{
			"loses postfix /etc/postfix/main.cf:3 | no postlogd", "loses postfix /etc/postfix/main.cf:3 | /var/log/pf.log, which is not followed",
			"hint postfix /etc/postfix/main.cf:4 | 192.0.2.1",
		},
	},
	{
		name: "another facility",
		files: map[string]string{
			"/etc/postfix/main.cf": goodMain + "syslog_facility = local3\n", "/etc/postfix/rol_header_checks": goodChecks,
			"/etc/amavis/conf.d/50-user": "$syslog_facility = \"local3\"; # ours\n$logline_maxlen = 3900;\n",
		},
		want: []string{"loses postfix /etc/postfix/main.cf:3 | facility local3", "loses amavis /etc/amavis/conf.d/50-user:1 | facility local3"},
	},
	{
		name: "a chroot without a socket",
		files: map[string]string{
			"/etc/postfix/main.cf": goodMain + "multi_instance_directories = /etc/pf2\n", "/etc/postfix/rol_header_checks": goodChecks,
			"/etc/postfix/master.cf": "smtp inet n - y - - smtpd\n", "/etc/pf2/master.cf": "smtp inet n - y - - smtpd\n",
			"/etc/pf2/main.cf":            goodMain + "syslog_name = pf2\nqueue_directory = /var/spool/pf2\n",
			"/etc/rsyslog.conf":           "$IncludeConfig /etc/rsyslog.d/*.conf\n",
			"/etc/rsyslog.d/postfix.conf": "# socket\n$AddUnixListenSocket /var/spool/postfix/dev/log\n",
		},
		want: []string{"loses postfix /etc/pf2/master.cf | /var/spool/pf2/dev/log"},
	},

	// Amavis
	{
		name: "amavis with little",
		files: map[string]string{"/etc/amavisd.conf": "use strict;\n$log_level = 5;\n  $log_templ = <<'EOD';\n[? %q |x] %i\nEOD\n" +
			"$do_syslog = 0; $LOGFILE = \"x\";\n$LOGFILE = \"$MYHOME/amavis.log\";\n"},
		want: []string{
			"hint amavis /etc/amavisd.conf:2 | $log_level 5", "blurs amavis /etc/amavisd.conf:3 | Queue-ID", "blurs amavis /etc/amavisd.conf:3 | queued_as",
			"loses amavis /etc/amavisd.conf:6 | amavis.log", "hint amavis /etc/amavisd.conf | 980",
		},
	},
	{
		name:  "amavis without a verdict",
		files: map[string]string{"/etc/amavisd.conf": "$log_level = -1;\n$log_templ = '';\n$logline_maxlen = 100;\n"},
		want: []string{
			"loses amavis /etc/amavisd.conf:1 | below 0", "loses amavis /etc/amavisd.conf:2 | empty", "hint amavis /etc/amavisd.conf:3 | 100",
		},
	},

	// journald
	{
		name: "journald as it comes",
		files: map[string]string{
			"/run/systemd/journal/": "", "/etc/postfix/main.cf": goodMain, "/etc/postfix/rol_header_checks": goodChecks,
			"/etc/systemd/journald.conf": "[Journal]\n#RateLimitIntervalSec=30s\n", "/etc/amavisd.conf": "$logline_maxlen = 3900;\n",
			"/usr/lib/systemd/system/amavis.service": "[Service]\nLogRateLimitIntervalSec=0\n",
		},
		want: []string{"loses journald /etc/systemd/journald.conf | what Postfix says beyond 10000 messages in 30s"},
	},
	{
		name: "journald limited by a drop-in, Postfix freed by another",
		files: map[string]string{
			"/run/systemd/journal/": "", "/etc/postfix/main.cf": goodMain, "/etc/postfix/rol_header_checks": goodChecks,
			"/usr/lib/systemd/journald.conf.d/10.conf":           "[Journal]\nRateLimitIntervalSec=0\nForwardToSyslog=yes\n",
			"/etc/systemd/journald.conf.d/20.conf":               "[Other]\nRateLimitIntervalSec=0\n[Journal]\nRateLimitIntervalSec=1min\nRateLimitBurst=5\nForwardToSyslog=no\nMaxLevelSyslog=notice\n",
			"/lib/systemd/system/postfix@.service":               "[Service]\nType=forking\n",
			"/etc/systemd/system/postfix@.service.d/limits.conf": "[Service]\nLogRateLimitIntervalSec=0s\n",
			"/etc/rsyslog.conf":                                  "module(load=\"imuxsock\")\n", "/etc/amavisd.conf": "$logline_maxlen = 3900;\n",
		},
		want: []string{
			"loses journald /etc/systemd/journald.conf.d/20.conf:4 | what Amavis says beyond 5 messages in 1min",
			"loses journald /etc/systemd/journald.conf.d/20.conf:6 | does not hand messages on", "loses journald /etc/systemd/journald.conf.d/20.conf:7 | notice",
		},
	},

	// syslog-ng
	{
		name: "syslog-ng",
		files: map[string]string{
			"/etc/syslog-ng/syslog-ng.conf": "# program(\"/usr/local/bin/rol-logpipe -\")\nsource s_net { udp(); };\n" +
				"destination d { file('/var/log/mail.log'); };\ndestination p {\n program(\"/usr/local/bin/rol-logpipe -\"); };\n",
			"/var/log/mail.log": goodLog,
		},
		opt: func(o *Options) { o.Files = []string{"/var/log/mail.log"} },
		want: []string{
			"loses syslog-ng /etc/syslog-ng/syslog-ng.conf:2 | UDP", "loses syslog-ng /etc/syslog-ng/syslog-ng.conf:5 | program()",
			"blurs syslog-ng /etc/syslog-ng/syslog-ng.conf:3 | year",
		},
	},

	// logrotate
	{
		name: "logrotate",
		files: map[string]string{
			"/etc/logrotate.conf": "weekly\ncompress\n", "/var/log/mail.log": goodLog, "/var/log/other.log": goodLog,
			"/etc/logrotate.d/a": "/var/log/syslog\n/var/log/mail.log\n{\n\tcopytruncate\n\tshred\n}\n/var/log/other.log { \n nocompress\n copytruncate # no\n create\n}\n",
		},
		opt: func(o *Options) { o.Files = []string{"/var/log/mail.log", "/var/log/other.log"} },
		want: []string{
			"loses logrotate /etc/logrotate.d/a:4 | copytruncate", "loses logrotate /etc/logrotate.d/a:5 | shred", "hint logrotate /etc/logrotate.conf:2 | compressed at once",
		},
	},

	// logs and clocks
	{
		name:  "logs that are away, directories, of another sort",
		files: map[string]string{"/var/log/dir/": "", "/var/log/x": strings.Repeat("no log\n", 20) + goodLog},
		opt:   func(o *Options) { o.Files = []string{"/var/log/gone", "/var/log/dir", "/var/log/*.none", "/var/log/x"} },
		want: []string{
			"loses logs /var/log/gone | does not exist", "loses logs /var/log/dir | neither", "hint logs /var/log/*.none | no file", "loses logs /var/log/x | 20 of the last 21",
		},
	},
	{
		name:  "BSD times, and whole seconds",
		files: map[string]string{"/l1": strings.Repeat("<22>Nov 25 11:59:58 mx1 postfix/qmgr[1]: x\n", 9), "/l2": strings.Repeat("2026-11-25T11:59:58+00:00 mx1 postfix/qmgr[1]: x\n", 9)},
		opt:   func(o *Options) { o.Files = []string{"/l1", "/l2"} },
		want:  []string{"blurs logs /l1 | no year", "hint logs /l2 | whole seconds"},
	},
	{
		name: "clocks",
		files: map[string]string{
			"/future": strings.ReplaceAll(goodLog, "T11:59", "T12:09"), "/old": strings.ReplaceAll(goodLog, "T11:59", "T01:59"),
			"/late": strings.Repeat(goodLog+strings.ReplaceAll(strings.ReplaceAll(goodLog, "T11:59", "T11:58"), "mx1", "mx2"), 5),
		},
		opt: func(o *Options) {
			o.Files = []string{"/future", "/old", "/late"}
			o.Synchronised = func() (bool, error) { return false, nil }
			o.DBTime = func(context.Context) (time.Time, error) { return noon.Add(-2 * time.Minute), nil }
		},
		want: []string{
			"blurs clock /future | 10m0s in the future", "hint logs /old | 10h0m0s old", "blurs clock /late | \"mx2\" is 1m0s behind",
			"blurs clock this host | nothing keeps", "blurs clock the database | 2m0s apart",
		},
	},
	{
		name: "a database that does not answer",
		opt: func(o *Options) {
			o.Synchronised = func() (bool, error) { return false, errors.New("not here") }
			o.DBTime = func(context.Context) (time.Time, error) { return time.Time{}, errors.New("cannot connect") }
		},
		want: []string{"hint clock the database | cannot connect"},
	},

	// spool and databases
	{
		name: "a spool in memory that is too small, and open to all", files: map[string]string{"/sp/": "", "/sp/seg": strings.Repeat("x", 1<<20)},
		opt: func(o *Options) {
			o.Spool, o.SpoolSize, o.Databases = "/sp", 2<<30, []string{"sqlite:/sp/db"}
			o.FileSystem = func(string) (FileSystem, error) { return FileSystem{Memory: true, Free: 99 << 20}, nil }
		},
		want: []string{
			"loses spool /sp | in memory", "loses spool /sp | grow to 2.0 GiB and has room for 100 MiB", "hint spool /sp | everybody", "loses database /sp/db | in memory",
		},
	},
	{
		name: "a spool that is a file; databases", files: map[string]string{"/sp": "", "/x.db": "", "/open.cf": "password = x\n", "/closed.cf": "password = x\n"},
		opt: func(o *Options) {
			o.Spool, o.Databases = "/sp", []string{"sqlite:/x.db", "mysql:/open.cf", "mysql:/closed.cf", "mysql:/gone.cf"}
			for _, f := range []string{"x.db", "open.cf"} {
				_ = os.Chmod(filepath.Join(o.Root, f), 0o644)
			}
			o.FileSystem = func(string) (FileSystem, error) { return FileSystem{Network: true, Free: 1 << 40}, nil }
		},
		want: []string{
			"loses spool /sp | no directory", "hint database /x.db | everybody", "loses database /x.db | network", "hint database /open.cf | password",
			"loses database /gone.cf | no such file",
		},
	},
}

func TestHosts(t *testing.T) {
	for _, tt := range append(hosts, rsyslogHosts...) {
		t.Run(tt.name, func(t *testing.T) {
			opt := made(t, tt.files)
			if tt.opt != nil {
				tt.opt(&opt)
			}
			expect(t, Run(context.Background(), opt), tt.want...)
		})
	}
}

// This host is looked at without harm, whatever it is.
func TestThisHost(t *testing.T) {
	found := Run(context.Background(), Options{Files: []string{"/var/log/mail.log"}, Spool: t.TempDir(), SpoolSize: 1})
	for _, f := range found {
		if f.Check == "spool" && f.Severity == Loses && !strings.Contains(f.What, "memory") {
			t.Errorf("a spool of one byte has room: %s", short(f))
		}
	}
}

func TestStatus(t *testing.T) {
	hint, blurs, loses := Finding{Severity: Hint}, Finding{Severity: Blurs}, Finding{Severity: Loses}
	for _, tt := range []struct {
		found []Finding
		want  int
	}{{nil, 0}, {[]Finding{hint}, 0}, {[]Finding{blurs, hint}, 1}, {[]Finding{hint, blurs, loses}, 2}} {
		if got := Status(tt.found); got != tt.want {
			t.Errorf("Status(%v) = %d, want %d", tt.found, got, tt.want)
		}
	}
}

func TestWrite(t *testing.T) {
	t.Setenv("COLUMNS", "50")
	found := []Finding{
		{Loses, "rsyslog", "/etc/rsyslog.conf:3", "a text that is rather longer than one line of the terminal \x1b[31m", "first\nsecond"},
		{Hint, "logs", "/x", "short", "do it"},
	}
	var b strings.Builder
	if err := Write(&b, found, false); err != nil {
		t.Fatal(err)
	}
	want := `loses  /etc/rsyslog.conf:3
       a text that is rather longer than one line
       of the terminal \x1b[31m
       do: first
           second

hint   /x
       short
       do: do it

found: lines lost 1, lines blurred 0, hints 1
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := Write(&b, found, true); err != nil {
		t.Fatal(err)
	}
	var f map[string]string
	first, _, _ := strings.Cut(b.String(), "\n")
	if err := json.Unmarshal([]byte(first), &f); err != nil || f["severity"] != "loses" || f["where"] != "/etc/rsyslog.conf:3" || len(f) != 5 {
		t.Errorf("%v: %q", err, first)
	}
	b.Reset()
	if err := Write(&b, nil, false); err != nil || b.String() != "nothing was found that loses or blurs lines\n" {
		t.Errorf("%v: %q", err, b.String())
	}
}

// Names are those of the working directory, as everywhere.
func TestRelativeNames(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("mail.log", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("open.db", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	found := Run(t.Context(), Options{Files: []string{"mail.log", "*.log", "none.log"}, Spool: "open.db", Databases: []string{"open.db"}})
	var absent, readable, noDir int
	for _, f := range found {
		switch {
		case strings.Contains(f.What, "followed file does not exist"):
			absent++
			if filepath.Base(f.Where) != "none.log" {
				t.Errorf("%s: %s", f.Where, f.What)
			}
		case filepath.Base(f.Where) == "open.db" && strings.Contains(f.What, "everybody"):
			readable++
		case strings.Contains(f.What, "no directory"):
			noDir++
		}
	}
	if absent != 1 || readable != 1 || noDir != 1 {
		t.Errorf("%d files are absent, %d databases readable, %d spools no directories: want one each\n%v", absent, readable, noDir, found)
	}
}
