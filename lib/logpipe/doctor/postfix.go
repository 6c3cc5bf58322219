package doctor

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rolmail/rolmail/lib/config"
)

// instance is one Postfix instance: a configuration directory.
type instance struct {
	dir     string // /etc/postfix
	values  map[string]string
	lines   map[string]int // of main.cf
	master  []service
	logName string // the effective syslog_name
}

// service is a line of master.cf(5).
type service struct {
	line    int
	name    string // smtp
	chroot  bool
	command string            // smtpd
	args    string            // all of them
	options map[string]string // -o name=value
}

// parameters are what is asked of postconf(1).
var parameters = []string{
	"multi_instance_directories", "multi_instance_name", "multi_instance_enable", "syslog_name", "syslog_facility",
	"enable_long_queue_ids", "maillog_file", "smtpd_tls_loglevel", "smtpd_tls_security_level", "smtpd_use_tls",
	"header_checks", "debug_peer_list", "queue_directory", "mail_version",
}

// postfix looks at every instance.
func (h *host) postfix() {
	if h.read("/etc/postfix/main.cf") == "" {
		return
	}
	first := h.instance("/etc/postfix")
	h.instances = append(h.instances, first)
	for dir := range strings.FieldsFuncSeq(first.values["multi_instance_directories"], blankOrComma) {
		if h.read(dir+"/main.cf") == "" {
			h.add(Hint, "postfix", first.where("multi_instance_directories"),
				fmt.Sprintf("the instance %s has no main.cf that can be read", dir), "look at it as a user who may")
			continue
		}
		h.instances = append(h.instances, h.instance(dir))
	}
	for i := range h.instances {
		in := &h.instances[i]
		h.postfixLogging(in)
		h.postfixFields(in)
		h.postfixNames(in)
		h.postfixChroot(in)
	}
	h.postfixSameNames()
}

func blankOrComma(r rune) bool { return strings.ContainsRune(" \t\r\n,", r) }

// instance reads an instance: main.cf for what is set where, postconf(1) for
// what that means, master.cf for its services.
func (h *host) instance(dir string) instance {
	in := instance{dir: dir, values: map[string]string{}, lines: map[string]int{}}
	if f, err := config.Parse("main.cf", []byte(h.read(dir+"/main.cf"))); err == nil {
		for _, e := range f.Entries {
			in.values[e.Name], in.lines[e.Name] = e.Value, e.Line
		}
	}
	args := append([]string{"-c", h.path(dir), "-x"}, parameters...)
	if out, err := h.Command(h.ctx, "postconf", args...); err == nil {
		for line := range strings.Lines(string(out)) {
			if name, value, ok := strings.Cut(line, "="); ok {
				in.values[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
		}
	}
	in.logName = in.values["syslog_name"]
	if in.logName == "" || strings.Contains(in.logName, "$") { // the default, unexpanded
		if in.logName = in.values["multi_instance_name"]; in.logName == "" {
			in.logName = "postfix"
		}
	}
	in.master = readMaster(h.read(dir + "/master.cf"))
	return in
}

// where is the place of a parameter in main.cf, or the file.
func (in *instance) where(name string) string { return at(in.dir+"/main.cf", in.lines[name]) }

// set is how to set a parameter.
func (in *instance) set(nameValue string) string {
	return fmt.Sprintf("postconf -c %s -e '%s'", in.dir, nameValue)
}

// readMaster reads master.cf(5): services with their options.
func readMaster(text string) (services []service) {
	n := 0
	var logical []string // the words of a service
	start := 0
	flush := func() {
		if len(logical) >= 8 {
			services = append(services, newService(start, logical))
		}
		logical = nil
	}
	for line := range strings.Lines(text) {
		n++
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if logical != nil {
				logical = append(logical, strings.Fields(trimmed)...)
			}
		default:
			flush()
			logical, start = strings.Fields(trimmed), n
		}
	}
	flush()
	return services
}

func newService(line int, f []string) service {
	s := service{line: line, name: f[0], chroot: f[4] == "y", command: f[7], args: strings.Join(f[8:], " "), options: map[string]string{}}
	for i, a := range f[8:] {
		if a == "-o" && 8+i+1 < len(f) {
			if name, value, ok := strings.Cut(f[8+i+1], "="); ok {
				s.options[name] = value
			}
		}
	}
	return s
}

// postfixLogging looks at where the lines go.
func (h *host) postfixLogging(in *instance) {
	file := in.values["maillog_file"]
	if file != "" {
		if !slices.ContainsFunc(in.master, func(s service) bool { return s.command == "postlogd" }) {
			h.add(Loses, "postfix", in.where("maillog_file"),
				"maillog_file is set, and master.cf has no postlogd that would write it",
				"add to "+in.dir+"/master.cf: postlog unix-dgram n - n - 1 postlogd")
		}
		if len(h.Files) > 0 && !h.follows(file) && !strings.HasPrefix(file, "/dev/") {
			h.add(Loses, "postfix", in.where("maillog_file"),
				fmt.Sprintf("Postfix writes its log to %s, which is not followed", file), "rol-logpipe --follow "+file)
		}
	} else if f := in.values["syslog_facility"]; f != "" && f != "mail" {
		h.add(Loses, "postfix", in.where("syslog_facility"),
			fmt.Sprintf("lines go to the facility %s; what forwards and writes mail.* does not see them", f),
			in.set("syslog_facility = mail"))
	}
	if peers := in.values["debug_peer_list"]; peers != "" {
		h.add(Hint, "postfix", in.where("debug_peer_list"),
			fmt.Sprintf("sessions with %s are logged in full detail, which fills logs and rate limits", peers),
			in.set("debug_peer_list ="))
	}
	for _, s := range in.master {
		if slices.Contains(strings.Fields(s.args), "-v") {
			h.add(Hint, "postfix", at(in.dir+"/master.cf", s.line),
				fmt.Sprintf("the service %s logs every detail (-v), which fills logs and rate limits", s.name), "remove -v")
		}
	}
}

// postfixFields looks at what is missing in the lines.
func (h *host) postfixFields(in *instance) {
	if !on(in.values["enable_long_queue_ids"]) {
		h.add(Blurs, "postfix", in.where("enable_long_queue_ids"),
			"queue ids are short: the same one comes again within minutes, for another mail",
			in.set("enable_long_queue_ids = yes"))
	}
	level := in.values["smtpd_tls_security_level"]
	tls := level != "" && level != "none" || on(in.values["smtpd_use_tls"])
	if n, err := strconv.Atoi(in.values["smtpd_tls_loglevel"]); tls && (err != nil || n < 1) {
		h.add(Hint, "postfix", in.where("smtpd_tls_loglevel"),
			"which TLS a client used is not logged: the column tls stays empty", in.set("smtpd_tls_loglevel = 1"))
	}
	if !h.logsSubject(in) {
		h.add(Hint, "postfix", in.where("header_checks"),
			"subjects are not logged: the column subject stays empty, unless Amavis logs them",
			in.set("header_checks = regexp:"+in.dir+"/rol_header_checks")+"   # the file is in contrib/postfix")
	}
}

// logsSubject reports whether a header check of the instance warns of, or
// informs about, the subject.
func (h *host) logsSubject(in *instance) bool {
	for m := range strings.FieldsFuncSeq(in.values["header_checks"], blankOrComma) {
		_, path, ok := strings.Cut(m, ":")
		if !ok {
			continue
		}
		for line := range strings.Lines(h.read(path)) {
			line = strings.ToLower(strings.TrimSpace(line))
			if strings.HasPrefix(line, "/^subject") && (strings.Contains(line, "info") || strings.Contains(line, "warn")) {
				return true
			}
		}
	}
	return false
}

// goodName is a syslog_name that a reader of the log can tell from the rest
// of the header.
var goodName = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)

// postfixNames looks at syslog_name, in main.cf and of single services.
func (h *host) postfixNames(in *instance) {
	first, _, _ := strings.Cut(in.logName, "/")
	complain := func(where, name string) {
		h.add(Blurs, "postfix", where,
			fmt.Sprintf("syslog_name %q has characters by which the program cannot be told from the message", name),
			"use letters, digits, dots, dashes and slashes only, as in postfix-out/submission")
	}
	if !goodName.MatchString(in.logName) {
		complain(in.where("syslog_name"), in.logName)
	}
	for _, s := range in.master {
		name, ok := s.options["syslog_name"]
		if !ok {
			continue
		}
		name = in.expand(name, &s)
		where := at(in.dir+"/master.cf", s.line)
		f, _, _ := strings.Cut(name, "/")
		switch {
		case !goodName.MatchString(name):
			complain(where, name)
		case f == first:
		case h.otherInstance(in, f):
			h.add(Blurs, "postfix", where,
				fmt.Sprintf("the service %s of %s logs as %q, which is another instance's name: its lines are taken for that one's",
					s.name, in.dir, name), "-o syslog_name="+in.logName+"/"+s.name)
		default:
			h.add(Hint, "postfix", where,
				fmt.Sprintf("the service %s logs as %q and the rest of the instance as %q: the part before the first slash is "+
					"what rows show as instance", s.name, name, in.logName), "-o syslog_name="+in.logName+"/"+name)
		}
	}
}

// expand puts in what a syslog_name of a service may refer to.
func (in *instance) expand(name string, s *service) string {
	name = strings.NewReplacer("{", "", "}", "").Replace(name)
	return strings.NewReplacer("$syslog_name", in.logName, "$service_name", s.name,
		"$multi_instance_name", in.values["multi_instance_name"]).Replace(name)
}

// otherInstance reports whether another instance logs under a name.
func (h *host) otherInstance(in *instance, name string) bool {
	return slices.ContainsFunc(h.instances, func(o instance) bool {
		f, _, _ := strings.Cut(o.logName, "/")
		return o.dir != in.dir && f == name
	})
}

// postfixSameNames looks for instances that cannot be told apart.
func (h *host) postfixSameNames() {
	seen := map[string]string{}
	for i := range h.instances {
		in := &h.instances[i]
		name, _, _ := strings.Cut(in.logName, "/")
		if other := seen[name]; other != "" {
			h.add(Blurs, "postfix", in.where("syslog_name"),
				fmt.Sprintf("the instances %s and %s both log as %s: queue ids of one are taken for the other's", other, in.dir, name),
				in.set("syslog_name = "+filepath.Base(in.dir)))
			continue
		}
		seen[name] = in.dir
	}
}

// postfixChroot looks whether services in a chroot find a syslog socket there
// when the syslog daemon has been started again.
func (h *host) postfixChroot(in *instance) {
	if in.values["maillog_file"] != "" || !slices.ContainsFunc(in.master, func(s service) bool { return s.chroot }) {
		return
	}
	queue := in.values["queue_directory"]
	if queue == "" {
		queue = "/var/spool/postfix"
	}
	socket := queue + "/dev/log"
	rs, sng := h.read("/etc/rsyslog.conf") != "", h.read("/etc/syslog-ng/syslog-ng.conf")
	if !rs && sng == "" {
		return // no daemon here that could be told
	}
	if rs && h.rsyslogConf().listensAt(socket) || strings.Contains(sng, socket) {
		return
	}
	for _, f := range h.glob("/etc/syslog-ng/conf.d/*") {
		if strings.Contains(h.read(f), socket) {
			return
		}
	}
	do := fmt.Sprintf("add to /etc/rsyslog.d/postfix.conf: input(type=\"imuxsock\" Socket=\"%s\" CreatePath=\"on\")", socket)
	if !rs {
		do = fmt.Sprintf("add to /etc/syslog-ng/syslog-ng.conf: source s_postfix { unix-dgram(\"%s\"); };", socket)
	}
	h.add(Loses, "postfix", in.dir+"/master.cf",
		fmt.Sprintf("services run in a chroot, and nobody listens at %s: after a restart of the syslog daemon what they say is lost", socket), do)
}
