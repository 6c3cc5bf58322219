package doctor

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// amavisFiles are where distributions keep Amavis's settings, in the order in
// which they are read.
var amavisFiles = []string{
	"/etc/amavisd.conf", "/etc/amavisd/amavisd.conf", "/etc/amavis/amavisd.conf", "/etc/amavis/conf.d/[0-9]*",
}

// assignment is "$name = value;" of Perl.
var assignment = regexp.MustCompile(`(?:^|;)\s*(?:our\s+)?\$(\w+)\s*=\s*('[^']*'|"[^"]*"|[^;#]*)`)

// heredoc is "<<'EOD'", after which a text stands up to a line EOD.
var heredoc = regexp.MustCompile(`^<<\s*~?\s*['"]?(\w+)['"]?`)

// perl reads the assignments to scalars of a configuration in Perl; the last
// one of a name counts. Conditions and code are passed over.
func perl(file, text string, into map[string]setting) {
	n, end := 0, ""
	var doc *setting
	var body strings.Builder
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if doc != nil {
			if strings.TrimSpace(line) == end {
				doc.value = body.String()
				into[doc.name] = *doc
				doc = nil
				continue
			}
			body.WriteString(line + "\n")
			continue
		}
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for _, m := range assignment.FindAllStringSubmatch(line, -1) {
			s := setting{name: strings.ToLower(m[1]), value: unquote(strings.TrimSpace(m[2])), file: file, line: n}
			if d := heredoc.FindStringSubmatch(m[2]); d != nil {
				end, doc = d[1], &s
				body.Reset()
				break
			}
			into[s.name] = s
		}
	}
}

// unquote takes the quotes off a Perl string.
func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '\'' || s[0] == '"') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// amavis looks at what Amavis logs, and where.
func (h *host) amavis() {
	conf, last := map[string]setting{}, ""
	for _, pattern := range amavisFiles {
		for _, f := range h.glob(pattern) {
			perl(f, h.read(f), conf)
			last = f
		}
	}
	if last == "" {
		return
	}
	h.amavisWhere(conf)
	if s, ok := conf["log_level"]; ok {
		if n, err := strconv.Atoi(s.value); err == nil && n < 0 {
			h.add(Loses, "amavis", s.where(), "$log_level is below 0: the line with the verdict is not written", "$log_level = 0;")
		} else if n > 3 {
			h.add(Hint, "amavis", s.where(), fmt.Sprintf("$log_level %d writes much that nobody uses, and fills rate limits", n), "$log_level = 1;")
		}
	}
	h.amavisTemplate(conf)
	s, ok := conf["logline_maxlen"]
	n, err := strconv.Atoi(s.value)
	if !ok || err != nil {
		n, s.file = 980, last
	}
	if n < 2000 {
		h.add(Hint, "amavis", s.where(), fmt.Sprintf("a record of more than %d bytes is cut into several lines; one that is lost takes "+
			"queue id or recipients with it", n), "$logline_maxlen = 3900;")
	}
}

// amavisWhere looks at where the lines go.
func (h *host) amavisWhere(conf map[string]setting) {
	sys, ok := conf["do_syslog"]
	if ok && (sys.value == "0" || sys.value == "") {
		file := conf["logfile"].value
		file = strings.ReplaceAll(file, "$MYHOME", conf["myhome"].value)
		if !h.follows(file) {
			h.add(Loses, "amavis", sys.where(), fmt.Sprintf("the log goes to the file %q, which is not followed, and not to syslog", file),
				"$do_syslog = 1;")
		}
		return
	}
	if f, ok := conf["syslog_facility"]; ok && f.value != "mail" {
		h.add(Loses, "amavis", f.where(),
			fmt.Sprintf("lines go to the facility %s; what forwards and writes mail.* does not see them", f.value), "$syslog_facility = 'mail';")
	}
}

// amavisTemplate looks at a log template of the host's own: the built-in ones
// have everything but, in short ones, the subject.
func (h *host) amavisTemplate(conf map[string]setting) {
	t, ok := conf["log_templ"]
	if !ok || strings.HasPrefix(t.value, "$") { // one of the built-in ones by name
		return
	}
	if strings.TrimSpace(t.value) == "" {
		h.add(Loses, "amavis", t.where(), "$log_templ is empty: no line tells the verdict", "take the template of contrib/amavis/60-rolmail")
		return
	}
	for _, m := range []struct{ macro, what string }{
		{"%Q", "Queue-ID: the mail before the filter"},
		{"queued_as", "queued_as: the mail behind the filter"},
		{"%i", "mail_id: the mail in quarantine and in Amavis's database"},
	} {
		if !strings.Contains(t.value, m.macro) {
			h.add(Blurs, "amavis", t.where(), "the log template does not write "+m.what, "take the template of contrib/amavis/60-rolmail")
		}
	}
}
