package logpipe

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// essence is what must not depend on how lines were brought in.
func (m *memory) essence() string {
	var all []string
	for _, r := range m.rows {
		all = append(all, fmt.Sprintf("%s %s %v %q %q %s %s %s %s %s", r.Kind, r.Outcome, r.Complete, r.Sender, r.Rcpt, r.ClientIP, r.QIDIn, r.QIDOut, r.Verdict, r.Reason))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

var labLine = regexp.MustCompile(`^(\S+) (\S+) ([^\s\[:]+)(?:\[(\d+)\])?: ?(.*)$`)

// One log in every form of header gives one set of rows.
func TestHeaderFormsGiveTheSameRows(t *testing.T) {
	log := lab(t)
	plain := newMemory()
	replayAll(t, options(), plain, log)
	want := plain.essence()
	at := func(s, layout string) string {
		when, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return when.In(time.UTC).Format(layout)
	}
	for name, form := range map[string]func(when, host, tag, pid, msg string) string{
		"RFC 5424": func(w, h, tag, p, m string) string { return fmt.Sprintf("<22>1 %s %s %s %s - - %s", w, h, tag, p, m) },
		"RFC 5424, ident cut at the slash": func(w, h, tag, p, m string) string {
			tag, _, _ = strings.Cut(tag, "/")
			return fmt.Sprintf("1 %s %s %s %s - - %s", w, h, tag, p, m)
		},
		"RFC 5424 with structured data": func(w, h, tag, p, m string) string {
			return fmt.Sprintf(`<22>1 %s %s %s %s - [x@1 a="b\]c"] %s`, w, h, tag, p, m)
		},
		"BSD": func(w, h, tag, p, m string) string {
			return fmt.Sprintf("%s %s %s[%s]: %s", at(w, time.Stamp), h, tag, p, m)
		},
		"BSD of Solaris": func(w, h, tag, p, m string) string {
			return fmt.Sprintf("%s %s %s[%s]: [ID 197553 mail.info] %s", at(w, time.Stamp), h, tag, p, m)
		},
		"no colon": func(w, h, tag, p, m string) string { return fmt.Sprintf("%s %s %s[%s] %s", w, h, tag, p, m) },
		"a service name in the ident": func(w, h, tag, p, m string) string {
			if inst, daemon, ok := strings.Cut(tag, "/"); ok && (daemon == "smtpd" || daemon == "smtp") {
				tag = inst + "/10025/" + daemon
			}
			return fmt.Sprintf("%s %s %s[%s]: %s", w, h, tag, p, m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			for l := range bytes.Lines(log) {
				m := labLine.FindSubmatch(bytes.TrimRight(l, "\n"))
				if m == nil {
					t.Fatalf("%s", l)
				}
				fmt.Fprintln(&b, form(string(m[1]), string(m[2]), string(m[3]), string(m[4]), string(m[5])))
			}
			db := newMemory()
			replayAll(t, options(), db, b.Bytes())
			if got := db.essence(); got != want {
				t.Error(difference(got, want))
			}
		})
	}
}

// The logs of the three servers may be read by one run each, in any order.
func TestServersOneAfterAnother(t *testing.T) {
	log := lab(t)
	plain := newMemory()
	replayAll(t, options(), plain, log)
	want := plain.essence()
	parts := map[string][]byte{}
	for l := range bytes.Lines(log) {
		tag := string(labLine.FindSubmatch(bytes.TrimRight(l, "\n"))[3])
		host, _, _ := strings.Cut(tag, "/")
		parts[host] = append(parts[host], l...)
	}
	if len(parts) != 3 {
		t.Fatalf("%d servers, want 3", len(parts))
	}
	for _, order := range []string{"mx2 mf3 out1", "mx2 out1 mf3", "mf3 mx2 out1", "mf3 out1 mx2", "out1 mx2 mf3", "out1 mf3 mx2"} {
		db := newMemory()
		for host := range strings.FieldsSeq(order) {
			replayAll(t, options(), db, parts[host])
		}
		if got := db.essence(); got != want {
			t.Errorf("%s: %s", order, difference(got, want))
		}
	}
}
