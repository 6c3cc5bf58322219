package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// listensAt reports whether an imuxsock input has a socket at a path.
func (c *rsyslogConf) listensAt(socket string) bool {
	for _, d := range c.directives {
		if d.name == "addunixlistensocket" && d.value == socket {
			return true
		}
	}
	for _, o := range c.objects {
		if o.kind == "input" && strings.EqualFold(o.params["type"], "imuxsock") && o.params["socket"] == socket {
			return true
		}
	}
	return false
}

// directive is the last value of a directive, which counts.
func (c *rsyslogConf) directive(name string) *setting {
	for i := len(c.directives) - 1; i >= 0; i-- {
		if c.directives[i].name == name {
			return &c.directives[i]
		}
	}
	return nil
}

// rsyslog looks at rsyslogd's inputs, what it does with all lines, and its
// actions.
func (h *host) rsyslog() {
	if h.read("/etc/rsyslog.conf") == "" {
		return
	}
	c := h.rsyslogConf()
	h.rsyslogInputs(c)
	h.rsyslogGlobals(c)
	var mine []action
	for _, a := range c.actions() {
		if a.takesMail() {
			h.rsyslogAction(c, &a)
			mine = append(mine, a)
		}
	}
	h.rsyslogSameFile(mine)
}

// rsyslogInputs looks for rate limits and for UDP.
func (h *host) rsyslogInputs(c *rsyslogConf) {
	for _, o := range c.objects {
		module := strings.ToLower(o.params["load"] + o.params["type"])
		if o.kind == "module" && module == "imjournal" {
			h.imjournal(c, &o)
			continue
		}
		if o.kind != "module" && o.kind != "input" {
			continue
		}
		for _, p := range []string{"ratelimit.interval", "syssock.ratelimit.interval"} {
			if v := o.params[p]; v != "" && v != "0" {
				h.add(Loses, "rsyslog", o.where(), fmt.Sprintf("%s has a rate limit: what comes faster is dropped", module),
					fmt.Sprintf("%s=\"0\"", p))
			}
		}
		if o.kind == "input" && module == "imudp" {
			h.add(Loses, "rsyslog", o.where(), "lines arrive by UDP, which loses them silently whenever this host is busy",
				"receive by RELP or TCP: contrib/rsyslog/rol-central-in-relp.conf")
		}
	}
	for _, name := range []string{"systemlogratelimitinterval", "imuxsockratelimitinterval"} {
		if d := c.directive(name); d != nil && d.value != "0" {
			h.add(Loses, "rsyslog", d.where(), "the local socket has a rate limit: what a process says faster is dropped",
				"$SystemLogRateLimitInterval 0")
		}
	}
	if d := c.directive("udpserverrun"); d != nil {
		h.add(Loses, "rsyslog", d.where(), "lines arrive by UDP, which loses them silently whenever this host is busy",
			"receive by RELP or TCP: contrib/rsyslog/rol-central-in-relp.conf")
	}
}

// imjournal has a rate limit unless it is switched off: 20,000 lines in 600 s.
func (h *host) imjournal(c *rsyslogConf, o *object) {
	v, set := o.params["ratelimit.interval"]
	if d := c.directive("imjournalratelimitinterval"); !set && d != nil {
		v = d.value
	}
	if v != "0" {
		h.add(Loses, "rsyslog", o.where(), "imjournal takes 20,000 lines in ten minutes and drops the rest, unless its rate limit is off",
			`module(load="imjournal" StateFile="imjournal.state" ratelimit.interval="0")`)
	}
}

// rsyslogGlobals looks at what changes all lines.
func (h *host) rsyslogGlobals(c *rsyslogConf) {
	if d := c.directive("repeatedmsgreduction"); d != nil && on(d.value) {
		h.add(Blurs, "rsyslog", d.where(),
			"equal lines in a row are replaced by \"message repeated\": two refusals may become one", "$RepeatedMsgReduction off")
	}
	size, where := "", ""
	if d := c.directive("maxmessagesize"); d != nil {
		size, where = d.value, d.where()
	}
	for _, o := range c.objects {
		if o.kind == "global" && o.params["maxmessagesize"] != "" {
			size, where = o.params["maxmessagesize"], o.where()
		}
	}
	if n, err := strconv.Atoi(strings.TrimRight(strings.ToLower(size), "k")); err == nil {
		if strings.HasSuffix(strings.ToLower(size), "k") {
			n *= 1024
		}
		if n < 4096 {
			h.add(Blurs, "rsyslog", where, fmt.Sprintf("lines are cut after %d bytes; Postfix's have up to 2000 and Amavis's may have more", n),
				`global(maxMessageSize="8k")`)
		}
	}
}

// rsyslogAction looks at one action that gets mail lines.
func (h *host) rsyslogAction(c *rsyslogConf, a *action) {
	switch a.kind {
	case "omfile":
		if h.follows(a.target) {
			h.rsyslogTemplate(c, a)
		}
	case "ompipe":
		h.rsyslogPipe(c, a)
	case "omprog":
		if strings.Contains(a.target, "rol-logpipe") {
			h.rsyslogProgram(c, a)
		}
	case "omfwd", "omrelp":
		h.rsyslogForward(c, a)
	}
}

func (h *host) rsyslogRetries(a *action) {
	if a.params["action.resumeretrycount"] != "-1" {
		h.add(Loses, "rsyslog", a.where, "lines are dropped when this action has failed a number of times, which is 0 unless set",
			`action.resumeRetryCount="-1"`)
	}
}

func (h *host) rsyslogPipe(c *rsyslogConf, a *action) {
	if !h.follows(a.target) && !strings.HasPrefix(a.target, "/run/rol/") {
		return
	}
	h.rsyslogRetries(a)
	if t := a.params["queue.type"]; t == "" || strings.EqualFold(t, "direct") {
		h.add(Loses, "rsyslog", a.where, "without a queue of its own an ompipe action loses the line that finds the FIFO full",
			`queue.type="LinkedList" queue.filename="rol_maillog" queue.saveOnShutdown="on"`)
	}
	h.rsyslogTemplate(c, a)
}

func (h *host) rsyslogProgram(c *rsyslogConf, a *action) {
	h.rsyslogRetries(a)
	if !on(a.params["confirmmessages"]) {
		h.add(Loses, "rsyslog", a.where, "lines are not confirmed: what is in the pipe when rol-logpipe ends is lost", `confirmMessages="on"`)
	}
	if on(a.params["usetransactions"]) {
		h.add(Loses, "rsyslog", a.where, "with transactions, rsyslog before 8.2508 loses a whole batch when its child dies", `useTransactions="off"`)
	}
	workers, err := strconv.Atoi(a.params["queue.workerthreads"])
	if err == nil && workers > 1 && !on(a.params["forcesingleinstance"]) {
		h.add(Blurs, "rsyslog", a.where, fmt.Sprintf("%d workers are as many children, each with a part of the lines, in no order", workers),
			`queue.workerThreads="1" forceSingleInstance="on"`)
	}
	if a.params["queue.filename"] == "" {
		h.add(Loses, "rsyslog", a.where, "the queue is in memory only: a restart of rsyslogd loses what waits",
			`queue.type="LinkedList" queue.filename="rol_maillog" queue.saveOnShutdown="on"`)
	}
	h.rsyslogTemplate(c, a)
}

// longestTag is the longest tag that this host's Postfix may have.
func (h *host) longestTag() (tag string) {
	longer := func(name string) {
		if t := name + "/smtpd[1234567]:"; len(t) > len(tag) {
			tag = t
		}
	}
	longer("postfix")
	for _, in := range h.instances {
		longer(in.logName)
		for _, s := range in.master {
			longer(in.expand(s.options["syslog_name"], &s))
		}
	}
	return tag
}

// rsyslogForward looks at an action that sends to another host.
func (h *host) rsyslogForward(c *rsyslogConf, a *action) {
	if a.kind == "omfwd" && !strings.EqualFold(a.params["protocol"], "tcp") {
		h.add(Loses, "rsyslog", a.where, "lines are sent by UDP, which loses them silently",
			"use contrib/rsyslog/rol-forward-relp.conf, or rol-forward-tcp.conf")
		return
	}
	h.rsyslogRetries(a)
	if a.params["queue.filename"] == "" || !on(a.params["queue.saveonshutdown"]) {
		h.add(Loses, "rsyslog", a.where, "what cannot be sent waits in memory only: a long outage or a restart loses it",
			`queue.type="LinkedList" queue.filename="rol_forward" queue.saveOnShutdown="on"`)
	}
	if a.kind == "omfwd" {
		h.add(Hint, "rsyslog", a.where, "plain TCP loses the lines on their way when a connection breaks", "use contrib/rsyslog/rol-forward-relp.conf")
	}
	name := a.template
	if name == "" && a.kind == "omfwd" {
		name = "RSYSLOG_TraditionalForwardFormat"
	}
	if strings.EqualFold(name, "RSYSLOG_TraditionalForwardFormat") {
		h.add(Blurs, "rsyslog", a.where, "lines are sent with times of whole seconds, without year and zone",
			`template="RolForward", which contrib/rsyslog/rol-forward-relp.conf has`)
	}
	if tag := h.longestTag(); len(tag) > 32 && (name == "" || regexp.MustCompile(`(?i)ForwardFormat$`).MatchString(name) ||
		strings.Contains(c.template(name), "syslogtag:1:32")) {
		h.add(Blurs, "rsyslog", a.where, fmt.Sprintf("the tag is cut after 32 bytes, and this Postfix has longer ones: %s", tag),
			`template="RolForward", which contrib/rsyslog/rol-forward-relp.conf has`)
	}
}

// template is the text of a template, "" where it is built in or not known.
func (c *rsyslogConf) template(name string) string {
	for _, o := range c.objects {
		if o.kind == "template" && strings.EqualFold(o.params["name"], name) {
			return o.params["string"]
		}
	}
	for _, d := range c.directives {
		if d.name == "template" {
			if n, text, ok := strings.Cut(d.value, ","); ok && strings.EqualFold(strings.TrimSpace(n), name) {
				return text
			}
		}
	}
	return ""
}

// slashes reports whether parser.permitSlashInProgramName is on.
func (c *rsyslogConf) slashes() bool {
	return slices.ContainsFunc(c.objects, func(o object) bool {
		return o.kind == "global" && on(o.params["parser.permitslashinprogramname"])
	})
}

var (
	dayTime  = regexp.MustCompile(`(?i)%(timestamp|timereported|timegenerated)(:::(date-mysql|date-unixtimestamp|date-rfc3164))?%`)
	program  = regexp.MustCompile(`(?i)%(programname|app-name)[:%]`)
	goodLine = `template="RolMaillog", which contrib/rsyslog/rol-central.conf has`
)

// rsyslogTemplate looks at the form in which lines are written.
func (h *host) rsyslogTemplate(c *rsyslogConf, a *action) {
	name := a.template
	text := c.template(name)
	short := func() {
		if !c.slashes() {
			h.add(Blurs, "rsyslog", a.where, "the program's name is cut at its first slash: mx2/smtpd and mx2/qmgr are both mx2",
				`global(parser.permitSlashInProgramName="on")`)
		}
	}
	switch strings.ToLower(name) {
	case "rsyslog_traditionalfileformat", "rsyslog_sysklogdfileformat":
		h.add(Blurs, "rsyslog", a.where, "lines are written without year, zone and fraction of the second", goodLine)
	case "rsyslog_syslogprotocol23format":
		short()
	}
	if text == "" {
		return
	}
	if dayTime.MatchString(text) {
		h.add(Blurs, "rsyslog", a.where, fmt.Sprintf("the template %s writes times without year, zone and fraction of the second", name), goodLine)
	}
	if program.MatchString(text) {
		short()
	}
	if !strings.Contains(strings.ToLower(text), "%hostname") {
		h.add(Blurs, "rsyslog", a.where, fmt.Sprintf("the template %s does not write which host a line is from", name), goodLine)
	}
}

// rsyslogSameFile looks for followed files that several actions write.
func (h *host) rsyslogSameFile(actions []action) {
	first := map[string]string{}
	for _, a := range actions {
		if a.kind != "omfile" || !h.follows(a.target) {
			continue
		}
		if where := first[a.target]; where != "" {
			h.add(Loses, "rsyslog", a.where, fmt.Sprintf("%s is written by a second action (the first is at %s): rsyslogd writes blocks that "+
				"end anywhere, and the two tear each other's lines", a.target, where), "give one of them a file of its own")
			continue
		}
		first[a.target] = a.where
	}
}
