package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/term"
)

// story tells a mail's life: what is the same for all recipients, then each
// recipient's part. What came from outside is made printable as it is put in.
type story struct {
	t   *table // for colours and the zone
	out func(string) error
	b   strings.Builder
}

func newStory(o *Options) *story {
	return &story{
		t:   newTable(o.Stdout, o.Now),
		out: func(s string) error { _, err := fmt.Fprint(o.Stdout, s); return err },
	}
}

const labelW = 12

// say writes a line with a label; without words, none.
func (s *story) say(label string, words ...string) {
	var some []string
	for _, w := range words {
		if w != "" {
			some = append(some, w)
		}
	}
	if len(some) > 0 {
		fmt.Fprintf(&s.b, "%s%s\n", pad(label, labelW), strings.Join(some, " "))
	}
}

func (s *story) at(ms int64) string {
	return time.UnixMilli(ms).In(s.t.loc).Format("2006-01-02 15:04:05.000 MST")
}

// tell writes one mail.
func (s *story) tell(rows []*flat.Row, children map[flat.ID][]*flat.Row, parent *flat.Row) error {
	r := rows[0]
	s.b.Reset()
	s.head(r)
	s.envelope(r)
	if parent != nil {
		s.say("", "this is about "+term.Printable(shortID(parent))+", from "+printable(parent.Sender, "<>")+
			" to "+printable(parent.Rcpt, "?"))
	} else if !r.ParentID.IsZero() {
		s.say("", "this is about another mail, "+r.ParentID.String())
	}
	for _, row := range rows {
		s.b.WriteByte('\n')
		s.recipient(row)
		for _, c := range children[row.ID] {
			s.say("Notice", "of this to "+printable(c.Rcpt, "?")+": "+s.outcome(c)+"; queue id "+term.Printable(shortID(c)))
		}
	}
	if len(rows) == maxRecipients {
		s.say("", "\nThere are more recipients than these.")
	}
	return s.out(s.b.String())
}

// head says what it is, when it came and who brought it.
func (s *story) head(r *flat.Row) {
	what := map[string]string{flat.KindMail: "Mail", flat.KindReject: "Refused", flat.KindAbort: "Broken off"}[r.Kind]
	if what == "" {
		what = "Row"
	}
	id := r.ID.String()
	if r.QIDIn != "" {
		id = term.Printable(r.QIDIn) + ", id " + id
	}
	s.say(what, id)
	s.say("Came", s.at(r.TS), "to "+server(r.HostIn, r.InstanceIn), direction(r))
	s.say("Brought by", s.client(r))
	if r.Country != "" {
		s.say("", "country "+term.Printable(r.Country))
	}
}

func server(host, instance string) string {
	s := printable(host, "a server that is not in the log")
	if instance != "" && instance != host {
		s += " (" + term.Printable(instance) + ")"
	}
	return s
}

func direction(r *flat.Row) string {
	switch r.Dir {
	case flat.DirOut:
		return "from our own users, going out"
	case flat.DirLocal:
		return "from our own users, staying here"
	}
	return ""
}

// client tells who handed the mail in.
func (s *story) client(r *flat.Row) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch {
	case r.ClientIP == "" && r.ClientName == "":
		if r.Kind == flat.KindMail {
			return "this server itself, or a client that is not in the log"
		}
		return ""
	case r.ClientName == "" || r.ClientName == "unknown":
		add("%s, an address without a verified name", printable(r.ClientIP, "?"))
	default:
		add("%s [%s]", term.Printable(r.ClientName), printable(r.ClientIP, "?"))
	}
	if r.ClientPort != "" {
		add("port %s", term.Printable(r.ClientPort))
	}
	if r.Helo != "" {
		add("calling itself %s", term.Printable(r.Helo))
	}
	if r.Proto != "" {
		add("by %s", term.Printable(r.Proto))
	}
	if r.TLS != "" {
		add("encrypted with %s", term.Printable(r.TLS))
	}
	if r.SASLUser != "" {
		add("logged in as %s", term.Printable(r.SASLUser))
	}
	return strings.Join(parts, ", ")
}

// envelope tells what the mail says of itself.
func (s *story) envelope(r *flat.Row) {
	if r.Sender != "" {
		s.say("From", term.Printable(r.Sender))
	} else if r.Rcpt != "" {
		s.say("From", "<>, as bounces and notices have it")
	}
	if r.MsgID != "" {
		s.say("Message-ID", "<"+term.Printable(r.MsgID)+">")
	}
	if r.Subject != "" {
		s.say("Subject", term.Printable(r.Subject))
	}
	if r.Size != flat.NoInt {
		s.say("Size", bytesOf(r.Size)+recipients(r))
	}
}

func recipients(r *flat.Row) string {
	switch {
	case r.NRcpt == flat.NoInt:
		return ""
	case r.NRcpt == 1:
		return ", 1 recipient"
	}
	return fmt.Sprintf(", %d recipients", r.NRcpt)
}

// recipient tells what became of the mail for one recipient.
func (s *story) recipient(r *flat.Row) {
	if r.Rcpt != "" {
		to := term.Printable(r.Rcpt)
		if r.OrigTo != "" && r.OrigTo != r.Rcpt {
			to += ", addressed to " + term.Printable(r.OrigTo)
		}
		s.say("To", to)
	}
	s.scan(r)
	s.way(r)
	s.end(r)
	if m := missing(r); m != "" {
		s.say("Incomplete", "not in the log: "+term.Printable(m))
	} else if !r.Complete && r.TSFinal != 0 {
		s.say("Incomplete", "not all of it is in the log")
	}
}

// scan tells what Amavis found.
func (s *story) scan(r *flat.Row) {
	if r.Verdict == "" && r.HostFilter == "" {
		return
	}
	text := "by Amavis"
	if r.HostFilter != "" {
		text += " on " + term.Printable(r.HostFilter)
	}
	if r.ScanMS != flat.NoInt {
		text += " in " + took(time.Duration(r.ScanMS)*time.Millisecond)
	}
	if v := verdict(r); v != "" {
		text += ": " + term.Printable(r.Verdict)
		if !absent(r.Score) {
			text += ", score " + score(r.Score)
		}
	}
	if r.MailID != "" {
		text += ", mail id " + term.Printable(r.MailID)
	}
	s.say("Looked at", text)
	if r.Quarantine != "" {
		s.say("", "put away as "+term.Printable(r.Quarantine))
	}
	if r.Policy != "" {
		s.say("", "policy "+term.Printable(r.Policy))
	}
}

// way tells how it went on to the next server, and how long that took.
func (s *story) way(r *flat.Row) {
	if r.HostOut != "" || r.QIDOut != "" {
		text := "from " + printable(r.HostOut, "a server that is not in the log")
		if r.QIDOut != "" && r.QIDOut != r.QIDIn {
			text += ", queue id " + term.Printable(r.QIDOut)
		}
		if r.Relay != "" && r.Relay != "none" {
			text += ", to " + term.Printable(r.Relay)
		}
		s.say("Went on", text)
	} else if r.Relay != "" && r.Relay != "none" {
		s.say("Handed", "to "+term.Printable(r.Relay))
	}
	if r.Kind == flat.KindMail && r.Attempts != flat.NoInt && r.Attempts > 1 {
		s.say("", fmt.Sprintf("%d attempts", r.Attempts))
	}
	var parts []string
	for _, p := range []struct {
		name string
		f    float64
	}{
		{"before the queue", r.DelayBefore},
		{"in the queue", r.DelayQueue},
		{"connecting", r.DelayConn},
		{"transmitting", r.DelayTx},
	} {
		if !absent(p.f) {
			parts = append(parts, seconds(p.f)+" "+p.name)
		}
	}
	text := strings.Join(parts, ", ")
	if text != "" {
		text = "at the last server: " + text
	}
	if r.TotalMS != flat.NoInt && r.Kind == flat.KindMail {
		all := took(time.Duration(r.TotalMS)*time.Millisecond) + " in all"
		text = strings.TrimSuffix(all+"; "+text, "; ")
	}
	s.say("Took", text)
}

func (s *story) outcome(r *flat.Row) string { return s.t.paint(r.Outcome, term.Printable(r.Outcome)) }

// end tells the last word, and who said it.
func (s *story) end(r *flat.Row) {
	text := s.outcome(r)
	switch {
	case r.Kind == flat.KindReject:
		text += " " + stageOf(term.Printable(r.Stage))
	case r.Kind == flat.KindAbort && r.Stage != "":
		text += " " + stageOf(term.Printable(r.Stage))
	}
	switch {
	case r.TSFinal != 0:
		text = s.at(r.TSFinal) + ": " + text
	case r.Outcome == flat.Unknown:
		text += ", on its way"
	default:
		text += " so far, not the last word"
	}
	s.say("Outcome", text)
	if word := lastWord(r); word != "" {
		s.say(who(r), term.Printable(word))
	}
	if r.RemoteQID != "" {
		s.say("", "its queue id there: "+term.Printable(r.RemoteQID))
	}
	if to := saidTo(r); to != "" {
		s.say("", "in reply to "+term.Printable(to))
	}
	if r.Outcome != flat.Sent {
		if m := meaning(r); m != "" {
			s.say("Meaning", m)
		}
	}
}

// who said the last word.
func who(r *flat.Row) string {
	switch {
	case r.Kind == flat.KindAbort:
		return "Reason"
	case r.Kind == flat.KindReject:
		return "We said"
	case r.QIDOut == "" && r.Verdict != "" && (r.Outcome == flat.Quarantined || r.Outcome == flat.Discarded):
		return "Filter said"
	case strings.HasPrefix(r.Reason, "host ") || r.SMTPCode != flat.NoInt && r.Relay != "" && r.Relay != "none":
		return "They said"
	}
	return "Reason"
}
