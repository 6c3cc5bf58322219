package store

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// op is how a condition compares.
type op uint8

const (
	isIn      op = iota // the column is one of args
	hasPrefix           // begins with the only one of args, in lower case; perhaps some more
	isNull
	notNull
	anyOf // one of or holds
)

// cond is a condition on a column: a plain comparison, without functions,
// which each kind of database puts in its own words. Conditions narrow down
// what is read; what counts is compiled.match and tenant.view.
type cond struct {
	col  string
	op   op
	args []any // string or flat.ID
	or   []cond
}

// arm is one way to candidates: an index, and conditions that it can answer by
// itself. All rows that can match are among those of the query's arms.
type arm struct {
	index   string
	conds   []cond
	ordered bool // they come in order of id: the index's first column has one value
}

func eq(col string, v any) cond { return cond{col: col, args: []any{v}} }

func in(col string, values []string) cond {
	c := cond{col: col}
	for _, v := range values {
		c.args = append(c.args, v)
	}
	return c
}

func beginsWith(col, prefix string) cond {
	return cond{col: col, op: hasPrefix, args: []any{prefix}}
}

func one(index string, conds ...cond) arm { return arm{index: index, conds: conds, ordered: true} }

var reallySent = in("direction", []string{flat.DirOut, flat.DirLocal})

// plan chooses the arms, the narrowest first, and the conditions.
func (c *compiled) plan() {
	q := c.q
	c.conditions()
	mine := func(a *address) bool { // may this index be asked?
		return a != nil && len(a.domains) > 0 && (c.tenant == nil || c.tenant.owns(a.domains[0]))
	}
	switch {
	case !q.ParentID.IsZero():
		c.arms = []arm{one("parent_id", eq("parent_id", q.ParentID))}
	case q.QueueID != "":
		for _, col := range []string{"qid_in", "qid_out", "remote_qid"} {
			c.arms = append(c.arms, one(col, eq(col, q.QueueID)))
		}
	case q.MessageID != "":
		c.arms = []arm{one("msgid", eq("msgid", bareID(q.MessageID)))}
	case c.client != nil && c.client.prefix.IsSingleIP():
		c.arms = []arm{one("client_ip", eq("client_ip", c.client.prefix.Addr().String()))}
	case mine(c.rcpt):
		c.rcptArms(c.rcpt.domains)
	case mine(c.sender):
		c.senderArms(c.sender.domains)
	case c.tenant != nil:
		if c.rcpt == nil || c.rcpt.domains == nil {
			c.rcptArms(c.tenant.domains)
		}
		if c.sender == nil || c.sender.domains == nil && !c.sender.null {
			c.senderArms(c.tenant.domains)
		}
		c.none = c.arms == nil
	case c.client != nil && c.client.prefix.IsValid() && c.client.prefix.Bits() > 0:
		c.arms = []arm{{index: "client_ip", conds: networkConds(c.client.prefix)}}
	}
}

// rcptArms finds mail to domains, and mail that was addressed to the whole
// address that is asked for before aliases.
func (c *compiled) rcptArms(domains []string) {
	for _, d := range domains {
		a := one("rcpt_domain", eq("rcpt_domain", d))
		if w := c.rcpt.wholeAt(d); isASCII(w) && w != "" {
			a.conds = append(a.conds, eq("rcpt", w))
		}
		c.arms = append(c.arms, a)
		if w := c.rcpt.wholeAt(d); w != "" {
			c.arms = append(c.arms, one("orig_to", eq("orig_to", w)))
		}
	}
}

func (c *compiled) senderArms(domains []string) {
	for _, d := range domains {
		a := one("sender_domain", eq("sender_domain", d))
		if w := c.sender.wholeAt(d); isASCII(w) && w != "" { // of others SQL does not know the case
			a.conds = append(a.conds, eq("sender", w))
		}
		if c.tenant != nil {
			a.conds = append(a.conds, reallySent)
		}
		c.arms = append(c.arms, a)
	}
}

// wholeAt is the address that is asked for with this form of its domain; ""
// if a pattern is asked for, or nothing.
func (a *address) wholeAt(domain string) string {
	if a == nil || a.whole == "" {
		return ""
	}
	local, _ := a.local.literal()
	return local + "@" + domain
}

// conditions are those that need no index of their own.
func (c *compiled) conditions() {
	q := c.q
	add := func(x ...cond) { c.all = append(c.all, x...) }
	if len(q.Outcomes) > 0 {
		add(in("outcome", lowerAll(q.Outcomes)))
	}
	if len(q.Kinds) > 0 {
		add(in("kind", lowerAll(q.Kinds)))
	}
	if len(c.verdicts) > 0 && !slices.ContainsFunc(c.verdicts, func(v string) bool { return !isASCII(v) }) {
		add(in("verdict", c.verdicts))
	}
	if c.helo != nil {
		if s, ok := c.helo.literal(); ok && isASCII(s) {
			add(eq("helo", s))
		}
	}
	for _, x := range []struct {
		col string
		a   *address
	}{{"sender", c.sender}, {"rcpt", c.rcpt}} {
		if x.a == nil || x.a.domains != nil {
			continue
		}
		if x.a.null {
			add(cond{col: x.col, op: isNull})
			continue
		}
		if x.a.whole != "" { // no @: rcpt may also be an orig_to
			continue
		}
		if p := x.a.prefix(); p != "" && isASCII(p) {
			add(beginsWith(x.col, p))
		}
	}
	if c.client != nil && c.client.prefix.IsValid() {
		if c.client.prefix.IsSingleIP() {
			add(eq("client_ip", c.client.prefix.Addr().String()))
		} else {
			add(networkConds(c.client.prefix)...)
		}
	}
}

func lowerAll(list []string) []string {
	all := make([]string, len(list))
	for i, s := range list {
		all[i] = strings.ToLower(s)
	}
	return all
}

// prefix is what an address that matches begins with.
func (a *address) prefix() string {
	if a.local == nil {
		return ""
	}
	s, literal := a.local.literal()
	if literal && a.domain != nil {
		s += "@"
	}
	return s
}

// networkConds are conditions on the text of client_ip that hold for every
// address of a network: for IPv4 for no other; for IPv6, whose text form leaves
// out zeros, for some more.
func networkConds(p netip.Prefix) []cond {
	const col = "client_ip"
	if p.Addr().Is4() {
		return network4(col, p)
	}
	groups := ""
	a := p.Addr().As16()
	for i := 0; (i+1)*16 <= p.Bits(); i++ {
		g := uint64(a[2*i])<<8 | uint64(a[2*i+1])
		if g == 0 {
			break
		}
		groups += strconv.FormatUint(g, 16) + ":"
	}
	if groups == "" {
		return []cond{{col: col, op: notNull}}
	}
	return []cond{beginsWith(col, groups)}
}

func network4(col string, p netip.Prefix) []cond {
	a := p.Addr().As4()
	fixed := ""
	n := p.Bits() / 8
	for _, b := range a[:n] {
		fixed += strconv.Itoa(int(b)) + "."
	}
	all := []cond{{col: col, op: notNull}}
	if fixed != "" {
		all[0] = beginsWith(col, fixed)
	}
	free := 8 - p.Bits()%8
	if free == 8 {
		return all
	}
	last := cond{op: anyOf}
	var parts []string
	for i := range 1 << free {
		octet := fixed + strconv.Itoa(int(a[n])+i)
		if n == 3 {
			parts = append(parts, octet)
			continue
		}
		last.or = append(last.or, beginsWith(col, octet+"."))
	}
	if n == 3 {
		return append(all, in(col, parts))
	}
	return append(all, last)
}
