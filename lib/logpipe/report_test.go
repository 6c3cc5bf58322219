package logpipe

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/sysexits"
)

var wall = time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)

// someReport is of a service with one good and one bad database.
func someReport() *Report {
	down := wall.Add(-20 * time.Minute)
	r := &Report{
		Program: "rol-logpipe 1", PID: 4711, Started: wall.Add(-50 * time.Hour),
		Spool:   SpoolReport{Dir: "/var/lib/rol/spool", Bytes: 1 << 30, MaxBytes: 2 << 30, Segments: 16, Written: 5 << 30},
		Sources: []SourceReport{{Source: "file:/var/log/mail.log", Bytes: 1234567, Lines: 9876, Behind: 12, Silent: 0.3}},
		Databases: []DatabaseReport{
			{
				Database: "sqlite:/a.db", Lines: 9876, Used: 9000, Noise: 870, Unparsed: 6, Rows: 700, Commits: 10, CommitTime: 0.5,
				Outcomes: map[string]int64{"sent": 600, "rejected": 100}, LastCommit: &down,
				Shapes:  []Shape{{Count: 6, Shape: `smtpd: odd "quoted\` + "\nline", Sample: "x"}},
				buckets: [12]int64{0, 9, 0, 0, 0, 1},
			},
			{Database: "mysql:/etc/rol/b.cf", Degraded: &down, Reason: "127.0.0.1:3306: connection refused\nmore", LagBytes: 5 << 20, LagSeconds: 1201},
		},
		Hosts: []HostReport{{Host: "mx1", Lines: 9876, Silent: 7200, Programs: map[string]int64{"smtpd": 9876}}},
	}
	r.judge()
	return r
}

func TestJudge(t *testing.T) {
	r := someReport()
	if r.Degraded == nil || !r.Degraded.Equal(wall.Add(-20*time.Minute)) || len(r.Reasons) != 1 {
		t.Errorf("degraded %v, reasons %q", r.Degraded, r.Reasons)
	}
	earlier := wall.Add(-time.Hour)
	r.Spool.Waiting, r.Spool.Why = &earlier, "2.0 GB are in use"
	r.judge()
	if !r.Degraded.Equal(earlier) || len(r.Reasons) != 2 {
		t.Errorf("degraded %v, reasons %q", r.Degraded, r.Reasons)
	}
}

func TestWriteReport(t *testing.T) {
	var b bytes.Buffer
	if err := WriteReport(&b, someReport(), wall); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"degraded since 02:40:00, process 4711, running for 2 days 2 h",
		"database mysql:/etc/rol/b.cf: 127.0.0.1:3306: connection refused\n",
		"1.07 GB of 2.15 GB in /var/lib/rol/spool",
		"file:/var/log/mail.log: 9876 lines, 1.23 MB, 12 bytes behind, last 0.3 s ago",
		"9876 lines: 9000 used, 870 noise, 6 unparsed; 700 rows",
		"commits: 10, 50.0 ms each",
		"5.24 MB and 20 min behind",
		"mx1: 9876 lines, last 2 h 0 min ago",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestMetrics(t *testing.T) {
	var b bytes.Buffer
	writeMetrics(&b, someReport())
	for _, want := range []string{
		"rol_logpipe_degraded 1\n",
		`rol_logpipe_lines_total{host="mx1",program="smtpd"} 9876` + "\n",
		`rol_logpipe_rows_total{database="sqlite:/a.db",outcome="sent"} 600` + "\n",
		`rol_logpipe_parsed_lines_total{database="sqlite:/a.db",class="unparsed"} 6` + "\n",
		`rol_logpipe_lag_bytes{database="mysql:/etc/rol/b.cf"} 5.24288e+06` + "\n",
		`rol_logpipe_database_up{database="mysql:/etc/rol/b.cf"} 0` + "\n",
		`rol_logpipe_unparsed_lines_total{database="sqlite:/a.db",shape="smtpd: odd \"quoted\\?line"} 6` + "\n",
		`rol_logpipe_commit_seconds_bucket{database="sqlite:/a.db",le="0.01"} 9` + "\n",
		`rol_logpipe_commit_seconds_bucket{database="sqlite:/a.db",le="+Inf"} 10` + "\n",
		`rol_logpipe_commit_seconds_count{database="sqlite:/a.db"} 10` + "\n",
		`rol_logpipe_source_lag_bytes{source="file:/var/log/mail.log"} 12` + "\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	for line := range strings.Lines(b.String()) {
		if name, _, ok := strings.Cut(line, " "); !ok || !strings.HasPrefix(name, "rol_logpipe_") {
			t.Errorf("odd line %q", line)
		}
	}
}

func TestCheck(t *testing.T) {
	o := CheckOptions{WarnLag: time.Minute, CritLag: 10 * time.Minute, Silence: time.Hour, WarnSpool: 50}
	good := func() *Report {
		r := someReport()
		r.Databases = r.Databases[:1]
		r.Hosts[0].Silent, r.Spool.Bytes = 1, 1<<20
		r.Degraded, r.Reasons = nil, nil
		return r
	}
	for _, c := range []struct {
		name   string
		change func(*Report)
		status int
		says   string
	}{
		{"good", func(*Report) {}, checkOK, "LOGPIPE OK - 9876 lines of 1 hosts | "},
		{"lag", func(r *Report) { r.Databases[0].LagSeconds = 61 }, checkWarning, "WARNING - database sqlite:/a.db is 61 s behind"},
		{"much lag", func(r *Report) { r.Databases[0].LagSeconds = 601 }, checkCritical, "CRITICAL - database sqlite:/a.db is 10 min behind"},
		{"down", func(r *Report) { r.Databases[0].Degraded, r.Databases[0].Reason = &wall, "no\nway" }, checkWarning, "is not written: no |"},
		{"long down", func(r *Report) {
			r.Databases[0].Degraded, r.Databases[0].Reason, r.Databases[0].LagSeconds = &wall, "no", 3600
		}, checkCritical, "is not written, 60 min behind: no"},
		{"lost", func(r *Report) { r.Databases[0].LostBytes = 7e6 }, checkCritical, "misses 7 MB of lines"},
		{"spool", func(r *Report) { r.Spool.Bytes = 3 << 29 }, checkWarning, "the spool is 75 % full"},
		{"full", func(r *Report) { r.Spool.Waiting, r.Spool.Why = &wall, "no space left" }, checkCritical, "no room: no space left"},
		{"damage", func(r *Report) { r.Spool.SetAside = 1 }, checkWarning, "1 damaged pieces"},
		{"source", func(r *Report) { r.Sources[0].Trouble = "no such file" }, checkWarning, "file:/var/log/mail.log: no such file"},
		{"silent host", func(r *Report) { r.Hosts[0].Silent = 7200 }, checkWarning, "host mx1 has been silent for 2 h 0 min"},
	} {
		r := good()
		c.change(r)
		var b bytes.Buffer
		err := Check(&b, r, nil, o)
		if got := sysexits.Status(err); got != c.status || !strings.Contains(b.String(), c.says) {
			t.Errorf("%s: status %d, want %d: %s", c.name, got, c.status, b.String())
		}
		if strings.Count(b.String(), "\n") != 1 || strings.Count(b.String(), " | ") != 1 {
			t.Errorf("%s: not one line with one bar: %q", c.name, b.String())
		}
	}
	var b bytes.Buffer
	err := Check(&b, nil, errors.New("/x/status.sock: rol-logpipe is not running"), o)
	if sysexits.Status(err) != checkCritical || b.String() != "LOGPIPE CRITICAL - /x/status.sock: rol-logpipe is not running\n" {
		t.Errorf("not running: %v, %q", err, b.String())
	}
}

func TestHostsAreCounted(t *testing.T) {
	h, p := newHosts(), maillog.NewParser(maillog.Options{Location: time.UTC})
	now := time.Now()
	var ev maillog.Event
	say := func(host, ident string, ago time.Duration) {
		p.Parse([]byte("2026-11-25T03:00:00.000001+00:00 "+host+" "+ident+": connect from unknown[192.0.2.1]"), &ev)
		h.now = now.Add(-ago)
		h.count(&ev)
	}
	for range 3 {
		say("mx1", "postfix/smtpd[1]", time.Minute)
	}
	say("mx1", "postfix/qmgr[2]", time.Second)
	say("m\x1b]x2", "postfix/smtpd[1]", time.Hour)
	got := h.report(now)
	if len(got) != 2 || got[0].Host != "m?]x2" || got[0].Silent != 3600 || got[1].Lines != 4 ||
		got[1].Silent != 1 || got[1].Programs["smtpd"] != 3 || got[1].Programs["qmgr"] != 1 {
		t.Errorf("got %+v", got)
	}
	for i := range maxHosts + 10 {
		say("h"+string(rune('a'+i%26))+strings.Repeat("x", i/26), "postfix/smtpd[1]", 0)
	}
	if len(h.all) > maxHosts+1 {
		t.Errorf("%d hosts", len(h.all))
	}
}

func TestHostsOutliveARestart(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	h := newHosts()
	h.host([]byte("mx1")).last = now.Add(-90 * time.Minute)
	data, err := h.save(wall, now)
	if err == nil {
		err = writeHosts(dir, data)
	}
	if err != nil {
		t.Fatal(err)
	}
	again := newHosts()
	again.load(dir, wall.Add(time.Hour), now.Add(time.Hour))
	if got := again.report(now.Add(time.Hour)); len(got) != 1 || got[0].Host != "mx1" || got[0].Silent != 9000 {
		t.Errorf("got %+v", got)
	}
	if err := writeHosts(dir, []byte("{damaged")); err != nil {
		t.Fatal(err)
	}
	newHosts().load(dir, wall, now) // knows nobody, and says nothing
}
