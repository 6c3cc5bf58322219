package doctor

import (
	"path/filepath"
	"strings"
)

// rsyslogConf is a configuration of rsyslogd, its includes put in: what the
// rules look at, in the order in which it stands there. It is read as
// rsyslog.conf(5) and its RainerScript documentation write it, and whatever
// else stands there is passed over.
type rsyslogConf struct {
	objects    []object    // module(...), input(...), action(...), global(...), template(...), ruleset(...)
	directives []setting   // $Name value, the name in lower case
	selectors  []selection // facility.priority target, the way of sysklogd
	depth      int         // of includes
	files      int
}

// object is "kind(name="value" ...)", names in lower case.
type object struct {
	kind    string
	params  map[string]string
	ruleset *object // the ruleset that an action stands in
	filter  string  // a selector before an action, "" if none
	file    string
	line    int
	offset  int // order among objects, directives and selectors
}

func (o *object) where() string { return at(o.file, o.line) }

// selection is "mail.* -/var/log/mail.log;Template".
type selection struct {
	filter, target, template string
	file                     string
	line                     int
	offset                   int
}

func (s *selection) where() string { return at(s.file, s.line) }

const (
	maxInclude = 10   // depth of includes
	maxConfig  = 500  // configuration files
	maxThings  = 5000 // objects, directives and selectors
	maxLine    = 8192 // bytes of a directive or selector
)

// rsyslogConf reads the configuration, once.
func (h *host) rsyslogConf() *rsyslogConf {
	if h.rs == nil {
		h.rs = &rsyslogConf{}
		h.rs.include(h, "/etc/rsyslog.conf")
	}
	return h.rs
}

func (c *rsyslogConf) include(h *host, pattern string) {
	if c.depth >= maxInclude {
		return
	}
	c.depth++
	defer func() { c.depth-- }()
	for _, file := range h.glob(pattern) {
		if c.files++; c.files > maxConfig {
			return
		}
		s := &scanner{conf: c, host: h, file: file, text: h.read(file), line: 1}
		s.run()
	}
}

// order is the place of the next thing.
func (c *rsyslogConf) order() int { return len(c.objects) + len(c.directives) + len(c.selectors) }

// scanner goes through the text of one file.
type scanner struct {
	conf    *rsyslogConf
	host    *host
	file    string
	text    string
	pos     int
	line    int
	ruleset *object // the ruleset whose braces are open
	braces  int     // open braces
	filter  string  // a selector that began this line
	fresh   bool    // nothing but blanks, or a brace, stands before the position in its line
}

// run reads the file: words, objects, directives and selector lines.
func (s *scanner) run() {
	for {
		s.blanks()
		if s.pos >= len(s.text) || s.conf.order() >= maxThings {
			return
		}
		first := s.fresh || s.pos == 0
		s.fresh = false
		switch c := s.text[s.pos]; {
		case c == '$' && first:
			s.directive()
		case c == '{':
			s.braces++
			s.pos++
			s.fresh = true
		case c == '}':
			if s.braces--; s.braces <= 0 {
				s.braces, s.ruleset = 0, nil
			}
			s.pos++
		case c == '"' || c == '\'':
			s.quoted()
		case word(c):
			s.word(first)
		default:
			s.pos++
		}
	}
}

// word reports whether a character may stand in a name or a selector.
func word(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '*' || c == '-'
}

// blanks skips white space and comments.
func (s *scanner) blanks() {
	for s.pos < len(s.text) {
		rest := s.text[s.pos:]
		switch {
		case rest[0] == '\n':
			s.line++
			s.pos++
			s.filter, s.fresh = "", true
		case rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r':
			s.pos++
		case rest[0] == '#':
			s.pos += len(upTo(rest, "\n"))
		case strings.HasPrefix(rest, "/*"):
			comment := upTo(rest, "*/")
			s.line += strings.Count(comment, "\n")
			s.pos += min(len(comment)+2, len(rest))
		default:
			return
		}
	}
}

// restOfLine is the text from an offset to the end of its line.
func (s *scanner) restOfLine(from int) string {
	return upTo(s.text[from:min(from+maxLine, len(s.text))], "\n")
}

// upTo is s before the first sep, all of it where there is none.
func upTo(s, sep string) string {
	before, _, _ := strings.Cut(s, sep)
	return before
}

// directive reads "$Name value" up to the end of the line.
func (s *scanner) directive() {
	line := s.restOfLine(s.pos)
	name, value, _ := strings.Cut(strings.TrimSpace(line[1:]), " ")
	if i := strings.IndexByte(name, '\t'); i >= 0 {
		name, value = name[:i], name[i+1:]+" "+value
	}
	s.pos += len(line)
	value = strings.TrimSpace(upTo(value, "#"))
	name = strings.ToLower(name)
	if name == "includeconfig" {
		s.conf.include(s.host, s.relative(value))
		return
	}
	s.conf.directives = append(s.conf.directives, setting{name: name, value: value, file: s.file, line: s.line, offset: s.conf.order()})
}

// relative puts an include's path below the including file's directory.
func (s *scanner) relative(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return filepath.Join(filepath.Dir(s.file), path)
}

// quoted skips a string and returns what is in it.
func (s *scanner) quoted() string {
	quote := s.text[s.pos]
	var b strings.Builder
	for s.pos++; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; {
		case c == '\\' && s.pos+1 < len(s.text):
			b.WriteByte(c)
			s.pos++
			b.WriteByte(s.text[s.pos])
		case c == quote:
			s.pos++
			return b.String()
		default:
			if c == '\n' {
				s.line++
			}
			b.WriteByte(c)
		}
	}
	return b.String()
}

// word reads a name: of an object if a parenthesis follows, else the start of
// a selector line, or something of an expression.
func (s *scanner) word(first bool) {
	begin := s.pos
	for s.pos < len(s.text) && word(s.text[s.pos]) {
		s.pos++
	}
	name := strings.ToLower(s.text[begin:s.pos])
	after := s.pos
	for after < len(s.text) && (s.text[after] == ' ' || s.text[after] == '\t') {
		after++
	}
	if after < len(s.text) && s.text[after] == '(' {
		switch name {
		case "module", "input", "action", "global", "template", "ruleset", "include", "main_queue", "parser":
			s.pos = after + 1
			s.object(name)
		}
		return
	}
	if first && strings.Contains(name, ".") {
		s.selector(begin)
	}
}

// object reads the parameters of an object up to the closing parenthesis.
func (s *scanner) object(kind string) {
	o := object{kind: kind, params: map[string]string{}, file: s.file, line: s.line, ruleset: s.ruleset, filter: s.filter}
	for {
		s.blanks()
		if s.pos >= len(s.text) || s.text[s.pos] == ')' {
			s.pos = min(s.pos+1, len(s.text))
			break
		}
		begin := s.pos
		for s.pos < len(s.text) && word(s.text[s.pos]) {
			s.pos++
		}
		name := strings.ToLower(s.text[begin:s.pos])
		s.blanks()
		if name == "" || s.pos >= len(s.text) || s.text[s.pos] != '=' {
			s.pos = max(s.pos, begin+1)
			continue
		}
		s.pos++
		s.blanks()
		o.params[name] = s.value()
	}
	if kind == "include" {
		s.conf.include(s.host, s.relative(o.params["file"]))
		return
	}
	o.offset = s.conf.order()
	s.conf.objects = append(s.conf.objects, o)
	if kind == "ruleset" {
		s.ruleset, s.braces = &o, 0
	}
}

// value reads a string, or a list of strings as one with blanks between.
func (s *scanner) value() string {
	if s.pos >= len(s.text) {
		return ""
	}
	switch s.text[s.pos] {
	case '"', '\'':
		return s.quoted()
	case '[':
		var list []string
		for s.pos++; ; {
			s.blanks()
			switch {
			case s.pos >= len(s.text):
				return strings.Join(list, " ")
			case s.text[s.pos] == ']':
				s.pos++
				return strings.Join(list, " ")
			case s.text[s.pos] == '"' || s.text[s.pos] == '\'':
				list = append(list, s.quoted())
			default:
				s.pos++
			}
		}
	}
	begin := s.pos
	for s.pos < len(s.text) && word(s.text[s.pos]) {
		s.pos++
	}
	return s.text[begin:s.pos]
}

// selector reads "mail.info;auth.none -/var/log/x;Template", or notes the
// filter of an action object that stands behind it.
func (s *scanner) selector(begin int) {
	line := s.restOfLine(begin)
	i := strings.IndexAny(line, " \t")
	if i < 0 {
		return
	}
	filter, target := line[:i], strings.TrimSpace(line[i:])
	switch {
	case target == "":
		return
	case strings.HasPrefix(target, "action") || strings.HasPrefix(target, "call") || target[0] == '{' ||
		strings.HasPrefix(target, "stop"):
		s.pos = begin + i
		s.filter = filter
		return
	case !strings.Contains("-/|@:?*^~", target[:1]) && !word(target[0]):
		return
	}
	s.pos = begin + len(line)
	target, template, _ := strings.Cut(strings.TrimSpace(upTo(target, "#")), ";")
	s.conf.selectors = append(s.conf.selectors, selection{
		filter: filter, target: strings.TrimSpace(target), template: strings.TrimSpace(template),
		file: s.file, line: s.line, offset: s.conf.order(),
	})
}
