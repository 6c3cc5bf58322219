package corpus

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog"
)

// TestFail2ban reads fail2ban's samples: a "failJSON" comment says whether the
// line after it is an offence, and by which address.
func TestFail2ban(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(dir(t, "fail2ban"), "fail2ban", "tests", "files", "logs", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal("no samples:", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			var lines []string
			var fail struct {
				Host  string
				Match bool
			}
			p, checked := newParser(), 0
			for _, l := range readLines(t, f) {
				if j, ok := strings.CutPrefix(l, "# failJSON: "); ok {
					fail.Host, fail.Match = "", false
					if err := json.Unmarshal([]byte(j), &fail); err != nil {
						t.Fatalf("%s: %v", l, err)
					}
				}
				if l == "" || l[0] == '#' {
					continue
				}
				lines = append(lines, l)
				checked += checkBan(t, p, l, fail.Host, fail.Match)
				fail.Host, fail.Match = "", false
			}
			correlate(lines)
			t.Logf("%d lines, %d addresses checked", len(lines), checked)
		})
	}
}

// checkBan says whether an address was checked: that of a Postfix event which
// the flat maillog uses.
func checkBan(t *testing.T, p *maillog.Parser, l, host string, match bool) int {
	t.Helper()
	var ev maillog.Event
	class := p.Parse([]byte(l), &ev)
	if !ours(l) {
		return 0
	}
	if class == maillog.Unparsed || class == maillog.Foreign {
		t.Errorf("not known: %s", l)
	}
	if !match || host == "" || class != maillog.Used || ev.Daemon == maillog.Dovecot {
		return 0
	}
	if string(ev.ClientIP) != host {
		t.Errorf("client %q, want %s: %s", ev.ClientIP, host, l)
	}
	return 1
}

var asserted = regexp.MustCompile(`^results\["s01-parse"\]\["crowdsecurity/([a-z]+)-logs"\]\[(\d+)\]\.Evt\.(?:Meta\["source_ip"\]|Parsed\["remote_addr"\]) == "([^"]+)"`)

// TestCrowdsec reads the samples of crowdsec's hub: Postfix, postscreen, Amavis
// and Dovecot, with the address that each line is about.
func TestCrowdsec(t *testing.T) {
	logs, err := filepath.Glob(filepath.Join(dir(t, "crowdsec"), "cases", "*", "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatal("no samples:", err)
	}
	for _, f := range logs {
		t.Run(filepath.Base(filepath.Dir(f)), func(t *testing.T) {
			lines := readLines(t, f)
			want := map[string]bool{}
			if a, err := filepath.Glob(filepath.Join(filepath.Dir(f), "parser.assert")); err == nil && len(a) == 1 {
				for _, l := range readLines(t, a[0]) {
					if m := asserted.FindStringSubmatch(l); m != nil {
						want[m[3]] = true
					}
				}
			}
			p := newParser()
			var ev maillog.Event
			for _, l := range lines {
				if l == "" {
					continue
				}
				class := p.Parse([]byte(l), &ev)
				if ours(l) && (class == maillog.Unparsed || class == maillog.Foreign) {
					t.Errorf("not known: %s", l)
				}
				if class == maillog.Used && len(want) > 0 && ev.Daemon != maillog.Dovecot && !want[string(ev.ClientIP)] {
					t.Errorf("client %q is none of %v: %s", ev.ClientIP, want, l)
				}
			}
			correlate(lines)
		})
	}
}
