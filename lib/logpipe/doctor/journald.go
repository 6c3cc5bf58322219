package doctor

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// systemdDirs are where systemd looks for settings, the weakest first: of two
// drop-ins of one name that of the later directory counts.
var systemdDirs = []string{"/lib/systemd", "/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd"}

// journald looks at what journald drops before a syslog daemon sees it. Where
// it does not run, nothing is said.
func (h *host) journald() {
	if !h.exists("/run/systemd/journal") {
		return
	}
	conf := map[string]setting{}
	file := "/etc/systemd/journald.conf"
	for _, f := range h.withDropIns("journald.conf") {
		ini(f, h.read(f), "Journal", conf)
	}
	h.journaldSyslog(conf)
	interval, ok := conf["RateLimitIntervalSec"]
	if !ok {
		interval = setting{value: "30s", file: file}
	}
	burst, ok := conf["RateLimitBurst"]
	if !ok {
		burst.value = "10000"
	}
	if zero(interval.value) || zero(burst.value) {
		return
	}
	var names []string
	if h.postfixByJournald() && !h.unitUnlimited("postfix.service", "postfix@.service", "postfix@-.service") {
		names = append(names, "Postfix")
	}
	if slices.ContainsFunc(amavisFiles, func(p string) bool { return len(h.glob(p)) > 0 }) &&
		!h.unitUnlimited("amavis.service", "amavisd.service", "amavisd-new.service") {
		names = append(names, "Amavis")
	}
	if len(names) == 0 {
		return
	}
	h.add(Loses, "journald", interval.where(), fmt.Sprintf("journald drops what %s says beyond %s messages in %s",
		strings.Join(names, " or "), burst.value, interval.value),
		"in /etc/systemd/journald.conf.d/rol.conf: [Journal] RateLimitIntervalSec=0")
}

// zero reports whether a time span or number of systemd is 0.
func zero(v string) bool { return strings.Trim(v, "0smhdun ") == "" && v != "" }

// withDropIns lists a file of settings and its drop-ins, in the order in which
// they apply.
func (h *host) withDropIns(name string) []string {
	byName := map[string]string{}
	var main string
	for _, dir := range systemdDirs {
		if h.exists(dir + "/" + name) {
			main = dir + "/" + name
		}
		for _, f := range h.glob(dir + "/" + name + ".d/*.conf") {
			byName[filepath.Base(f)] = f
		}
	}
	var names []string
	for n := range byName {
		names = append(names, n)
	}
	slices.Sort(names)
	files := []string{}
	if main != "" {
		files = append(files, main)
	}
	for _, n := range names {
		files = append(files, byName[n])
	}
	return files
}

// unitUnlimited reports whether one of the units has no rate limit of its own.
func (h *host) unitUnlimited(units ...string) bool {
	for _, u := range units {
		conf := map[string]setting{}
		for _, f := range h.withDropIns("system/" + u) {
			ini(f, h.read(f), "Service", conf)
		}
		if s, ok := conf["LogRateLimitIntervalSec"]; ok && zero(s.value) {
			return true
		}
		if s, ok := conf["LogRateLimitBurst"]; ok && zero(s.value) {
			return true
		}
	}
	return false
}

// postfixByJournald reports whether an instance of Postfix logs to syslog, and
// so to journald.
func (h *host) postfixByJournald() bool {
	return slices.ContainsFunc(h.instances, func(in instance) bool { return in.values["maillog_file"] == "" })
}

// journaldSyslog looks at what journald hands on to a syslog daemon.
func (h *host) journaldSyslog(conf map[string]setting) {
	if h.read("/etc/rsyslog.conf") == "" || slices.ContainsFunc(h.rsyslogConf().objects, func(o object) bool {
		return o.kind == "module" && o.params["load"] == "imjournal"
	}) {
		return
	}
	if s, ok := conf["ForwardToSyslog"]; ok && !on(s.value) {
		h.add(Loses, "journald", s.where(), "journald does not hand messages on, and rsyslogd does not read the journal", "ForwardToSyslog=yes")
	}
	if s, ok := conf["MaxLevelSyslog"]; ok && !slices.Contains([]string{"info", "debug", "6", "7"}, s.value) {
		h.add(Loses, "journald", s.where(), fmt.Sprintf("messages below the level %s are not handed on to rsyslogd; most of Postfix's are info", s.value),
			"MaxLevelSyslog=debug")
	}
}
