package corpus

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog"
)

// TestGrokFields holds the scanner against the expected fields of
// whyscream/postfix-grok-patterns: what the flat maillog has a place for must be
// in the event.
func TestGrokFields(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(dir(t, "grok-fields"), "cases", "*.yaml"))
	if err != nil || len(files) < 100 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	checked := 0
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		t.Run(name, func(t *testing.T) {
			data, want := readCase(t, f)
			line := header(name, data)
			var ev maillog.Event
			if c := newParser().Parse([]byte(line), &ev); c != maillog.Used && c != maillog.Noise {
				t.Errorf("not known: %s", line)
			}
			var wrong []string
			for _, w := range want {
				for _, part := range expand(w[0], w[1]) {
					ok, known := has(&ev, part[0], part[1])
					if known {
						checked++
					}
					if known && !ok {
						wrong = append(wrong, part[0]+"="+part[1])
					}
				}
			}
			if wrong != nil {
				t.Errorf("%s\nnot in the event: %q\nevent: %s", line, wrong, show(&ev))
			}
		})
	}
	t.Logf("%d files, %d fields that the flat row has a place for", len(files), checked)
	if checked < 400 {
		t.Errorf("only %d fields were checked", checked)
	}
}

// header makes a log line of a message: the file's name says who wrote it.
// Fragments are put where they belong in a line.
func header(name, data string) string {
	daemon := strings.ReplaceAll(name[:strings.LastIndexByte(name, '_')], "_", "-")
	const to = "B37FD2E05B9: to=<u@example.com>, relay=h.example.com[192.0.2.9]:25, delay=1, delays=0.1/0.2/0.3/0.4, dsn=2.0.0, status=sent (250 Ok)"
	switch daemon {
	case "command-counter-data":
		daemon, data = "smtpd", "disconnect from h.example.com[192.0.2.9] "+data
	case "delays":
		daemon, data = "smtp", strings.Replace(to, "0.1/0.2/0.3/0.4", data, 1)
	case "relay":
		daemon, data = "lmtp", strings.Replace(to, "h.example.com[192.0.2.9]:25", data, 1)
	case "tls-features":
		daemon = "smtp"
		if !strings.Contains(data, "status=") {
			data = strings.Replace(to, ", dsn=", ", tls="+data+", dsn=", 1)
		}
	case "script":
		daemon = "postfix-script"
	}
	return "2026-11-10T09:00:00.123456+00:00 mx1 postfix/" + daemon + "[1234]: " + data
}

// expand takes key=value data apart and leaves everything else as it is.
func expand(key, val string) (parts [][2]string) {
	if key != "postfix_keyvalue_data" && key != "postfix_command_counter_data" {
		return [][2]string{{key, val}}
	}
	val = strings.TrimSuffix(strings.TrimSpace(val), ",")
	sep := " "
	if strings.Contains(val, ", ") {
		sep = ", "
	}
	for _, kv := range strings.Split(val, sep) {
		if k, v, ok := strings.Cut(kv, "="); ok {
			parts = append(parts, [2]string{"kv " + k, strings.TrimSuffix(strings.TrimPrefix(v, "<"), ">")})
		}
	}
	return parts
}

// has reports whether the event has a field, and whether the flat row has a
// place for it.
func has(ev *maillog.Event, key, val string) (ok, known bool) {
	equal := func(b []byte) (bool, bool) { return string(b) == val, true }
	switch strings.TrimPrefix(key, "postfix_") {
	case "queueid":
		if val == "NOQUEUE" {
			return ev.NoQueue && len(ev.QID) == 0, true
		}
		return equal(ev.QID)
	case "client_ip":
		return equal(ev.ClientIP)
	case "client_hostname":
		return equal(ev.ClientName)
	case "kv client":
		return string(ev.ClientName)+"["+string(ev.ClientIP)+"]" == val, true
	case "client_port":
		return equal(ev.ClientPort)
	case "relay_hostname":
		return equal(ev.RelayName)
	case "relay_ip":
		return equal(ev.RelayIP)
	case "relay_port":
		return equal(ev.RelayPort)
	case "kv relay":
		return equal(ev.Relay)
	case "smtp_stage", "proxy_smtp_stage":
		return equal(ev.Stage)
	case "status":
		return equal(ev.StatusWord)
	case "status_code", "proxy_status_code":
		return strconv.Itoa(ev.Code) == val, true
	case "status_code_enhanced", "proxy_status_code_enhanced", "kv dsn":
		return equal(ev.DSN)
	case "from", "kv from":
		return equal(ev.Sender)
	case "kv to":
		return equal(ev.Rcpt)
	case "kv orig_to":
		return equal(ev.OrigTo)
	case "kv proto":
		return equal(ev.Proto)
	case "kv helo":
		return equal(ev.Helo)
	case "kv sasl_username":
		return equal(ev.SASLUser)
	case "kv sasl_method":
		return equal(ev.SASLMethod)
	case "kv orig_queue_id":
		return equal(ev.OrigQID)
	case "message-id":
		return equal(bytes.Trim(ev.MsgID, "<>"))
	case "tls_version":
		return equal(ev.TLSProto)
	case "tls_cipher":
		return equal(ev.TLSCipher)
	case "bounce_queueid":
		return equal(ev.NewQID)
	case "status_message", "smtp_response", "pipe_response", "local_response", "error_response":
		// A reply's codes are columns of their own.
		codes := strconv.Itoa(ev.Code) + " " + string(ev.DSN) + " "
		return bytes.Contains(ev.Text, []byte(val)) || bytes.Contains(ev.Text, []byte(strings.TrimPrefix(val, codes))), true
	}
	return hasNumber(ev, strings.TrimPrefix(key, "postfix_"), val)
}

func hasNumber(ev *maillog.Event, key, val string) (ok, known bool) {
	n, err := strconv.ParseFloat(val, 64)
	near := func(us int64) (bool, bool) { return err == nil && int64(n*1e6+0.5) == us, true }
	count := func(c maillog.Counter) (bool, bool) {
		all, ok := strings.CutPrefix(val, fmt.Sprint(c.OK))
		return ok && (all == "" && c.OK == c.All || all == fmt.Sprint("/", c.All)), true
	}
	switch key {
	case "kv size":
		return float64(ev.Size) == n, true
	case "kv nrcpt":
		return float64(ev.NRcpt) == n, true
	case "kv delay":
		return near(ev.Delay)
	case "kv delays":
		var all []string
		for _, d := range ev.Delays {
			all = append(all, strconv.FormatFloat(float64(d)/1e6, 'f', -1, 64))
		}
		return strings.Join(all, "/") == val, true
	case "delay_before_qmgr":
		return near(ev.Delays[0])
	case "delay_in_qmgr":
		return near(ev.Delays[1])
	case "delay_conn_setup":
		return near(ev.Delays[2])
	case "delay_transmission":
		return near(ev.Delays[3])
	case "kv auth":
		return count(ev.Counters.Auth)
	case "kv mail":
		return count(ev.Counters.Mail)
	case "kv rcpt":
		return count(ev.Counters.Rcpt)
	case "kv data":
		return count(ev.Counters.Data)
	case "kv quit":
		return count(ev.Counters.Quit)
	case "kv commands":
		return count(ev.Counters.Commands)
	case "cmd_auth", "cmd_auth_accepted", "cmd_mail", "cmd_mail_accepted", "cmd_rcpt", "cmd_rcpt_accepted", "cmd_data", "cmd_data_accepted", "cmd_quit":
		c := map[string]maillog.Counter{"auth": ev.Counters.Auth, "mail": ev.Counters.Mail, "rcpt": ev.Counters.Rcpt, "data": ev.Counters.Data, "quit": ev.Counters.Quit}
		cmd, accepted := strings.CutSuffix(strings.TrimPrefix(key, "cmd_"), "_accepted")
		if accepted {
			return float64(c[cmd].OK) == n, true
		}
		return float64(c[cmd].All) == n, true
	}
	return false, false
}

func show(ev *maillog.Event) string {
	return fmt.Sprintf("class %d kind %d qid %q client %q %q %q relay %q %q %q sender %q rcpt %q stage %q code %d dsn %q status %q text %q",
		ev.Class, ev.Kind, ev.QID, ev.ClientName, ev.ClientIP, ev.ClientPort, ev.RelayName, ev.RelayIP, ev.RelayPort, ev.Sender, ev.Rcpt,
		ev.Stage, ev.Code, ev.DSN, ev.StatusWord, ev.Text)
}

// readCase reads one file: "data: TEXT" and below "results:" one "key: TEXT" a
// line, plain or quoted. It is all of YAML that these files use.
func readCase(t *testing.T, file string) (data string, want [][2]string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	results := false
	for _, l := range strings.Split(string(b), "\n") {
		k, v, ok := strings.Cut(strings.TrimSpace(l), ":")
		if !ok || k[0] == '#' {
			continue
		}
		v = unquote(strings.TrimSpace(v))
		switch {
		case k == "data":
			data = v
		case k == "results":
			results = true
		case results && l[0] == ' ':
			want = append(want, [2]string{k, v})
		}
	}
	if data == "" || len(want) == 0 {
		t.Fatalf("%s: no data or no results", file)
	}
	return data, want
}

// unquote takes YAML's quotes off. Control characters become what a syslog
// daemon makes of them, because a log line has none.
func unquote(s string) string {
	if len(s) >= 2 && s[0] == '\'' && s[len(s)-1] == '\'' {
		return strings.ReplaceAll(s[1:len(s)-1], "''", "'")
	}
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	u, err := strconv.Unquote(s)
	if err != nil {
		return s[1 : len(s)-1]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return '?'
		}
		return r
	}, u)
}
