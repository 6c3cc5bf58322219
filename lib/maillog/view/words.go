package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// why is a row's reason in short: the code, and the last word without what
// stands elsewhere in the line.
func why(r *flat.Row) string {
	var parts []string
	add := func(s string) {
		if s != "" {
			parts = append(parts, s)
		}
	}
	switch r.Outcome {
	case flat.Sent:
		add(verdict(r))
		if r.Relay != "" {
			add("by " + relayHost(r))
		}
		if r.Reason != "" {
			add(lastWord(r))
		}
		return strings.Join(parts, ", ")
	case flat.Quarantined, flat.Discarded:
		add(verdict(r))
		add(lastWord(r))
		return strings.Join(parts, ", ")
	case flat.Aborted:
		add(bareReason(r))
		return strings.Join(parts, " ")
	}
	add(lastWord(r))
	if r.TSFinal == 0 && r.Outcome == flat.Unknown {
		add("(on its way)")
	}
	if len(parts) == 0 && missing(r) != "" {
		add("not in the log: " + missing(r))
	}
	return strings.Join(parts, " ")
}

// lastWord is code, enhanced status and text, each once.
func lastWord(r *flat.Row) string {
	text := bareReason(r)
	for _, code := range []string{codeOf(r), r.DSN} {
		text = strings.TrimSpace(strings.TrimPrefix(text, code))
	}
	return strings.Join(strings.Fields(codeOf(r)+" "+r.DSN+" "+text), " ")
}

func codeOf(r *flat.Row) string {
	if r.SMTPCode == flat.NoInt {
		return ""
	}
	return fmt.Sprint(r.SMTPCode)
}

// bareReason is the reason without who said it to what, and without the
// address that was refused.
func bareReason(r *flat.Row) string {
	s := r.Reason
	if strings.HasPrefix(s, "host ") {
		if _, said, ok := strings.Cut(s, " said: "); ok {
			s = said
		}
	}
	if i := strings.LastIndex(s, " (in reply to "); i > 0 {
		s = s[:i]
	}
	for _, code := range []string{codeOf(r), r.DSN} {
		s = strings.TrimSpace(strings.TrimPrefix(s, code))
	}
	for _, what := range []string{r.Rcpt, r.Sender, r.Helo} {
		if what != "" {
			s = strings.TrimPrefix(s, "<"+what+">: ")
		}
	}
	if r.ClientIP != "" {
		if i := strings.Index(s, " from "+clientOf(r)); i > 0 && r.Kind == flat.KindAbort {
			s = s[:i] + s[i+len(" from "+clientOf(r)):]
		}
	}
	return s
}

// saidTo is the command to which the reason is the answer, or "".
func saidTo(r *flat.Row) string {
	_, s, ok := strings.Cut(r.Reason, " (in reply to ")
	if !ok {
		return ""
	}
	s, _, _ = strings.Cut(s, ")")
	return strings.TrimPrefix(s, "end of ")
}

// verdict is what Amavis found, and its score.
func verdict(r *flat.Row) string {
	if r.Verdict == "" {
		return ""
	}
	s := r.Verdict
	if !absent(r.Score) {
		s += " " + score(r.Score)
	}
	return s
}

func absent(f float64) bool { return f != f }

func score(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", f), "0"), ".")
}

// relayHost is the next server's name without its port.
func relayHost(r *flat.Row) string {
	s := r.Relay
	if i := strings.IndexByte(s, '['); i > 0 {
		return s[:i]
	}
	return s
}

// missing is what the evidence says is not in the log, or "".
func missing(r *flat.Row) string {
	_, s, ok := strings.Cut(r.Evidence, "missing: ")
	if !ok {
		return ""
	}
	return strings.ReplaceAll(s, ",", ", ")
}

// took says how long something took, in so many digits as matter.
func took(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + took(-d)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 100*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 100*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}

func seconds(f float64) string { return took(time.Duration(f * float64(time.Second))) }

// bytesOf is a size for people.
func bytesOf(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d bytes", n)
	case n < 10_000_000:
		return fmt.Sprintf("%d kB", (n+500)/1000)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// stages are the moments of an SMTP dialogue in words.
var stages = map[string]string{
	"CONNECT": "as the client connected", "EHLO": "at its greeting (EHLO)", "HELO": "at its greeting (HELO)",
	"STARTTLS": "as encryption was to begin (STARTTLS)", "AUTH": "as it logged in (AUTH)",
	"MAIL": "as it named the sender (MAIL FROM)", "RCPT": "as it named the recipient (RCPT TO)",
	"DATA": "as it was about to send the mail (DATA)", "END-OF-MESSAGE": "after the mail was sent",
	"END-OF-DATA": "after the mail was sent", "BDAT": "as it sent the mail (BDAT)",
	"header": "for a header of the mail", "body": "for the mail's text", "mime-header": "for a header of an attachment",
	"nested-header": "for a header of an attached mail", "UNKNOWN": "before it had said anything",
}

func stageOf(stage string) string {
	if s := stages[stage]; s != "" {
		return s
	}
	return "at " + stage
}

// meanings are what usual last words mean. The first that occurs counts.
var meanings = []struct{ text, means string }{
	{"greylist", "a stranger is asked to come again later; a proper mail server does"},
	{"blocked using", "the client's address is on a block list"},
	{"relay access denied", "the client may not send through here, and the recipient's domain is not ours"},
	{"user unknown", "there is no such mailbox"},
	{"no such user", "there is no such mailbox"},
	{"unknown in virtual", "there is no such mailbox"},
	{"unknown in relay recipient table", "there is no such mailbox"},
	{"unknown in local recipient table", "there is no such mailbox"},
	{"mailbox full", "the mailbox is full"},
	{"over quota", "the mailbox is full"},
	{"need fully-qualified hostname", "the client did not give a full host name"},
	{"helo command rejected", "the client's name for itself was not accepted"},
	{"cannot find your hostname", "the client's address has no name in DNS that points back to it"},
	{"cannot find your reverse hostname", "the client's address has no name in DNS"},
	{"sender address rejected: domain not found", "the sender's domain does not exist in DNS"},
	{"recipient address rejected: domain not found", "the recipient's domain does not exist in DNS"},
	{"sender address rejected", "this sender is not accepted"},
	{"recipient address rejected", "this recipient is not accepted"},
	{"message size exceeds", "the mail is too big"},
	{"message too large", "the mail is too big"},
	{"connection refused", "the next server does not answer"},
	{"connection timed out", "the next server does not answer"},
	{"host not found", "the next server's name does not exist in DNS"},
	{"host or domain name not found", "the recipient's domain does not exist in DNS"},
	{"too many errors", "the client made too many mistakes"},
	{"lost connection", "the other side hung up"},
	{"timeout", "the other side fell silent"},
	{"try again later", "it may work later"},
	{"spam", "it was taken for spam"},
	{"virus", "it was taken for a virus"},
	{"banned", "it holds something that is not allowed"},
}

func meaning(r *flat.Row) string {
	text := strings.ToLower(r.Reason)
	for _, m := range meanings {
		if strings.Contains(text, m.text) {
			return m.means
		}
	}
	return ""
}
