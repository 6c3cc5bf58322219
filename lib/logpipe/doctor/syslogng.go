package doctor

import (
	"regexp"
	"strings"
)

var (
	ngProgram = regexp.MustCompile(`program\s*\(\s*["'][^"']*rol-logpipe`)
	ngISO     = regexp.MustCompile(`ts[-_]format\s*\(\s*"?(iso|rfc3339)"?\s*\)`)
	ngFile    = regexp.MustCompile(`\bfile\s*\(\s*["']([^"']+)["']`)
	ngISODate = regexp.MustCompile(`\$\{?[A-Z]?_?ISODATE`)
	ngUDP     = regexp.MustCompile(`\budp6?\s*\(|transport\s*\(\s*"?udp"?\s*\)`)
)

// syslogNG looks at syslog-ng.
func (h *host) syslogNG() {
	files := []string{"/etc/syslog-ng/syslog-ng.conf"}
	files = append(files, h.glob("/etc/syslog-ng/conf.d/*.conf")...)
	whole := ""
	for _, f := range files {
		whole += uncommented(h.read(f))
	}
	iso := ngISO.MatchString(whole) || ngISODate.MatchString(whole)
	for _, f := range files {
		text := uncommented(h.read(f))
		if m := ngProgram.FindStringIndex(text); m != nil {
			h.add(Loses, "syslog-ng", at(f, lineOf(text, m[0])),
				"program() confirms nothing: what is in the pipe when rol-logpipe ends is lost",
				"write a file and follow it: contrib/syslog-ng/rol-central-file.conf")
		}
		if m := ngUDP.FindStringIndex(text); m != nil {
			h.add(Loses, "syslog-ng", at(f, lineOf(text, m[0])), "UDP loses lines silently whenever a host or the net is busy",
				`use transport("tcp") or transport("tls")`)
		}
		for _, m := range ngFile.FindAllStringSubmatchIndex(text, -1) {
			if !iso && h.follows(text[m[2]:m[3]]) {
				h.add(Blurs, "syslog-ng", at(f, lineOf(text, m[0])), "lines are written without year, zone and fraction of the second",
					"options { ts-format(iso); frac-digits(6); };")
			}
		}
	}
}

// uncommented empties comments and keeps the lines.
func uncommented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		code, _, cut := strings.Cut(line, "#")
		b.WriteString(code)
		if cut && strings.HasSuffix(line, "\n") {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// lineOf is the line of an offset, from 1.
func lineOf(text string, offset int) int { return 1 + strings.Count(text[:offset], "\n") }
