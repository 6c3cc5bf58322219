package maillog_test

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
)

// TestLines reads testdata/lines: a log line, then what is in it, each field on
// a line of its own after a tab: name=value. An empty value means that the
// field is absent or empty. Class "known" is used or noise.
func TestLines(t *testing.T) {
	files, err := filepath.Glob("testdata/lines/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no lines:", err)
	}
	total := 0
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			p := maillog.NewParser(maillog.Options{Location: time.UTC, Now: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)})
			for _, l := range readLines(t, f) {
				total++
				l.check(t, p)
			}
		})
	}
	if total < 300 {
		t.Errorf("only %d lines", total)
	}
}

type wantLine struct {
	where string
	line  []byte
	want  [][2]string
}

func readLines(t *testing.T, file string) (all []wantLine) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; s.Scan(); n++ {
		l := s.Text()
		switch {
		case l == "" || l[0] == '#' || strings.HasPrefix(l, "\t#"):
		case l[0] == '\t':
			k, v, ok := strings.Cut(l[1:], "=")
			if !ok || len(all) == 0 {
				t.Fatalf("%s:%d: want name=value", file, n)
			}
			last := &all[len(all)-1]
			last.want = append(last.want, [2]string{k, v})
		default:
			all = append(all, wantLine{where: fmt.Sprintf("%s:%d", filepath.Base(file), n), line: []byte(l)})
		}
	}
	return all
}

func (l *wantLine) check(t *testing.T, p *maillog.Parser) {
	var ev maillog.Event
	in := bytes.Clone(l.line)
	class := p.Parse(in, &ev)
	if class != ev.Class {
		t.Errorf("%s: Parse says %d, the event %d", l.where, class, ev.Class)
	}
	if !bytes.Equal(in, l.line) {
		t.Errorf("%s: the line was written to", l.where)
	}
	var wrong []string
	for _, w := range l.want {
		got, ok := field(&ev, w[0])
		if !ok {
			t.Fatalf("%s: no field %q", l.where, w[0])
		}
		want := w[1]
		if w[0] == "class" && want == "known" && (got == "used" || got == "noise") {
			continue
		}
		if got != want && !sameNumber(w[0], got, want) {
			wrong = append(wrong, fmt.Sprintf("%s is %q, want %q", w[0], got, want))
		}
	}
	if wrong != nil {
		t.Errorf("%s: %s\n\t%s", l.where, l.line, strings.Join(wrong, "\n\t"))
	}
}

func sameNumber(key, got, want string) bool {
	switch key {
	case "time":
		g, err1 := time.Parse(time.RFC3339Nano, got)
		w, err2 := time.Parse(time.RFC3339Nano, want)
		return err1 == nil && err2 == nil && g.Equal(w)
	case "score", "delay":
		g, err1 := strconv.ParseFloat(got, 64)
		w, err2 := strconv.ParseFloat(want, 64)
		return err1 == nil && err2 == nil && math.Abs(g-w) < 1e-6
	case "delays":
		g, w := strings.Split(got, "/"), strings.Split(want, "/")
		for i := range w {
			if len(g) != len(w) || !sameNumber("delay", g[i], w[i]) {
				return false
			}
		}
		return true
	}
	return false
}

var classNames = map[maillog.Class]string{maillog.Foreign: "foreign", maillog.Unparsed: "unparsed", maillog.Noise: "noise", maillog.Used: "used"}

var daemonNames = map[maillog.Daemon]string{
	maillog.DaemonUnknown: "unknown", maillog.Smtpd: "smtpd", maillog.Cleanup: "cleanup", maillog.Qmgr: "qmgr", maillog.Pickup: "pickup",
	maillog.Bounce: "bounce", maillog.Delivery: "delivery", maillog.Postscreen: "postscreen", maillog.Postsuper: "postsuper",
	maillog.OtherPostfix: "other", maillog.Amavis: "amavis", maillog.Dovecot: "dovecot",
}

var statusNames = map[maillog.Status]string{
	maillog.StatusSent: "sent", maillog.StatusDeferred: "deferred", maillog.StatusBounced: "bounced", maillog.StatusExpired: "expired",
	maillog.StatusDeliverable: "deliverable", maillog.StatusUndeliverable: "undeliverable", maillog.StatusOther: "other",
}

var kindNames = map[maillog.Kind]string{
	maillog.KindConnect: "connect", maillog.KindDisconnect: "disconnect", maillog.KindLost: "lost", maillog.KindTLS: "tls",
	maillog.KindAuthFailed: "authfailed", maillog.KindAbuse: "abuse", maillog.KindClient: "client", maillog.KindPickup: "pickup",
	maillog.KindMsgID: "msgid", maillog.KindQueued: "queued", maillog.KindExpired: "expired", maillog.KindDelivery: "delivery",
	maillog.KindRemoved: "removed", maillog.KindCanceled: "canceled", maillog.KindHeld: "held", maillog.KindReleased: "released",
	maillog.KindRequeued: "requeued", maillog.KindNotify: "notify", maillog.KindLegNote: "legnote", maillog.KindReject: "reject",
	maillog.KindHold: "hold", maillog.KindDiscard: "discard", maillog.KindCheck: "check", maillog.KindProxy: "proxy",
	maillog.KindScreenConnect: "screenconnect", maillog.KindScreenPass: "screenpass", maillog.KindScreenViolation: "screenviolation",
	maillog.KindScreenDisconnect: "screendisconnect", maillog.KindAmavis: "amavis", maillog.KindAmavisPart: "amavispart",
	maillog.KindDovecot: "dovecot", maillog.KindInfo: "info",
}

// field reads a field of an event by the name that the files use.
func field(ev *maillog.Event, name string) (string, bool) {
	texts := map[string][]byte{
		"host": ev.Host, "instance": ev.Instance, "program": ev.Program, "qid": ev.QID, "action": ev.Action, "stage": ev.Stage,
		"dsn": ev.DSN, "reason": ev.Text, "client_name": ev.ClientName, "client_ip": ev.ClientIP, "client_port": ev.ClientPort,
		"sender": ev.Sender, "rcpt": ev.Rcpt, "orig_to": ev.OrigTo, "helo": ev.Helo, "proto": ev.Proto, "sasl_method": ev.SASLMethod,
		"sasl_user": ev.SASLUser, "orig_qid": ev.OrigQID, "orig_client_name": ev.OrigClientName, "orig_client_ip": ev.OrigClientIP,
		"tls_proto": ev.TLSProto, "tls_cipher": ev.TLSCipher, "subject": ev.Subject, "relay": ev.Relay, "relay_ip": ev.RelayIP,
		"relay_port": ev.RelayPort, "remote_qid": ev.RemoteQID, "new_qid": ev.NewQID, "notice": ev.Notice, "session": ev.Session,
		"actions": ev.Scan.Actions, "policy": ev.Scan.Policy, "rcpts": ev.Scan.Rcpts, "quarantine": ev.Scan.Quarantine,
		"queue_id": ev.Scan.QueueID, "mail_id": ev.Scan.MailID, "queued_as": ev.Scan.QueuedAs, "verdict": ev.Scan.Verdict, "detail": ev.Scan.Detail,
	}
	if b, ok := texts[name]; ok {
		return string(b), true
	}
	switch name {
	case "class":
		return classNames[ev.Class], true
	case "kind":
		return kindNames[ev.Kind], true
	case "daemon":
		return daemonNames[ev.Daemon], true
	case "status":
		return statusNames[ev.Status], true
	case "msgid":
		return strings.TrimSuffix(strings.TrimPrefix(string(ev.MsgID), "<"), ">"), true
	case "time":
		return time.UnixMicro(ev.Time).UTC().Format(time.RFC3339Nano), true
	case "am_id":
		if len(ev.Scan.AmID) > 0 {
			return string(ev.Scan.AmID), true
		}
		return string(ev.AmID), true
	case "score":
		if math.IsNaN(ev.Scan.Score) {
			return "", true
		}
		return strconv.FormatFloat(ev.Scan.Score, 'g', -1, 64), true
	}
	return number(ev, name)
}

func number(ev *maillog.Event, name string) (string, bool) {
	flags := map[string]bool{"coarse": ev.Coarse, "from_mta": ev.FromMTA, "passed": ev.Scan.Passed, "per_rcpt": ev.Scan.PerRcpt}
	if f, ok := flags[name]; ok {
		if f {
			return "1", true
		}
		return "0", true
	}
	ints := map[string]int64{"pid": ev.PID, "smtp_code": int64(ev.Code), "size": ev.Size, "nrcpt": ev.NRcpt, "repeat": int64(ev.Repeat), "scan_ms": ev.Scan.MS}
	if n, ok := ints[name]; ok {
		if n < 0 {
			return "", true
		}
		return strconv.FormatInt(n, 10), true
	}
	switch name {
	case "delay":
		if ev.Delay < 0 {
			return "", true
		}
		return strconv.FormatFloat(float64(ev.Delay)/1e6, 'f', -1, 64), true
	case "delays":
		if ev.Delays[0] < 0 {
			return "", true
		}
		var s []string
		for _, d := range ev.Delays {
			s = append(s, strconv.FormatFloat(float64(d)/1e6, 'f', -1, 64))
		}
		return strings.Join(s, "/"), true
	}
	return "", false
}
