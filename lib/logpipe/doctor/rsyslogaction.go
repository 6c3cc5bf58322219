package doctor

import (
	"maps"
	"slices"
	"strings"
)

// action is what rsyslogd does with lines, however it is written.
type action struct {
	kind     string // omfile, omfwd ...
	target   string // the file, FIFO, program or host
	template string
	filter   string            // facility.priority, "" where another kind of filter, or none, decides
	params   map[string]string // as of an action object, names in lower case
	where    string
	offset   int
}

// legacy are the directives that set parameters of the next action.
var legacy = map[string]string{
	"actionresumeretrycount": "action.resumeretrycount", "actionqueuetype": "queue.type",
	"actionqueuefilename": "queue.filename", "actionqueuesaveonshutdown": "queue.saveonshutdown",
	"actionqueueworkerthreads": "queue.workerthreads",
}

// actions are all actions, in order.
func (c *rsyslogConf) actions() (all []action) {
	for i := range c.objects {
		if o := &c.objects[i]; o.kind == "action" {
			all = append(all, c.ofObject(o))
		}
	}
	for i := range c.selectors {
		if a, ok := c.ofSelector(&c.selectors[i]); ok {
			all = append(all, a)
		}
	}
	slices.SortStableFunc(all, func(a, b action) int { return a.offset - b.offset })
	for i := range all {
		before := -1
		if i > 0 {
			before = all[i-1].offset
		}
		c.applyDirectives(&all[i], before)
	}
	return all
}

func (c *rsyslogConf) ofObject(o *object) action {
	a := action{
		kind: strings.ToLower(o.params["type"]), template: o.params["template"], filter: o.filter,
		params: maps.Clone(o.params), where: o.where(), offset: o.offset,
	}
	a.kind = strings.TrimPrefix(a.kind, "builtin:")
	for _, p := range []string{"file", "pipe", "binary", "target"} {
		if v := o.params[p]; v != "" {
			a.target = v
		}
	}
	return a
}

// ofSelector reads the old forms: -/file, |/fifo, @host, @@host, :omrelp:host.
func (c *rsyslogConf) ofSelector(s *selection) (action, bool) {
	a := action{template: s.template, filter: s.filter, params: map[string]string{}, where: s.where(), offset: s.offset}
	t := s.target
	switch {
	case strings.HasPrefix(t, "-/"), strings.HasPrefix(t, "/"):
		a.kind, a.target = "omfile", strings.TrimPrefix(t, "-")
	case strings.HasPrefix(t, "|"):
		a.kind, a.target = "ompipe", strings.TrimSpace(t[1:])
	case strings.HasPrefix(t, "@@"):
		a.kind, a.target, a.params["protocol"] = "omfwd", t[2:], "tcp"
	case strings.HasPrefix(t, "@"):
		a.kind, a.target, a.params["protocol"] = "omfwd", t[1:], "udp"
	case strings.HasPrefix(t, ":omrelp:"):
		a.kind, a.target = "omrelp", t[len(":omrelp:"):]
	default:
		return action{}, false
	}
	return a, true
}

// applyDirectives gives an action what directives say of it: those between the
// action before it and itself, and the default templates before it.
func (c *rsyslogConf) applyDirectives(a *action, before int) {
	byDefault := "" // the last one counts
	for i := range c.directives {
		d := &c.directives[i]
		if d.offset >= a.offset {
			break
		}
		if name := legacy[d.name]; name != "" && d.offset > before && a.params[name] == "" {
			a.params[name] = d.value
		}
		if d.name == "actionfiledefaulttemplate" && (a.kind == "omfile" || a.kind == "ompipe") ||
			d.name == "actionforwarddefaulttemplate" && a.kind == "omfwd" {
			byDefault = d.value
		}
	}
	if a.template == "" {
		a.template = byDefault
	}
	if a.template != "" {
		return
	}
	for _, o := range c.objects { // module(load="builtin:omfile" template="...")
		if o.kind == "module" && strings.TrimPrefix(strings.ToLower(o.params["load"]), "builtin:") == a.kind {
			a.template = o.params["template"]
		}
	}
}

// takesMail reports whether mail lines of every priority reach an action, as
// far as its selector tells.
func (a *action) takesMail() bool {
	if a.filter == "" {
		return true
	}
	takes := false
	for part := range strings.SplitSeq(a.filter, ";") {
		facilities, priority, ok := strings.Cut(part, ".")
		if !ok || !slices.ContainsFunc(strings.Split(facilities, ","), func(f string) bool { return f == "*" || f == "mail" }) {
			continue
		}
		switch strings.ToLower(priority) {
		case "*", "debug", "info":
			takes = true
		case "none":
			takes = false
		}
	}
	return takes
}
