package store

import (
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// Query is what is looked for. A row must meet everything that is given; what
// is empty is not asked.
type Query struct {
	Since, Until int64 // time of the first line, Unix milliseconds; Until itself is out; 0 is open

	Domain string // the tenant: see the package comment

	// Addresses: anna@example.com, @example.com, anna@, or a pattern with *
	// for any characters; <> is the empty one. Upper and lower case are the
	// same. A whole address as recipient also finds what was addressed to it
	// before aliases.
	Sender, Rcpt string

	Client    string // an address, a network in CIDR notation, or a client's name or pattern of one
	Helo      string // or a pattern with *
	QueueID   string // at our servers or the next one
	MessageID string // with or without <>

	Outcomes, Kinds, Verdicts []string

	Text string // words: each must occur somewhere in the row's texts

	ParentID flat.ID // bounces and notices of this row's mail

	Limit       int     // rows; 0 is all
	After       flat.ID // go on behind this row: Result.Next of the page before
	OldestFirst bool
}

// compiled is a query that can be run.
type compiled struct {
	q      *Query
	tenant *tenant

	from, to flat.ID // from <= id < to; to zero is no bound

	sender, rcpt *address
	client       *client
	helo         *pattern
	words        []string
	verdicts     []string

	none bool   // nothing can be found
	arms []arm  // where candidates are found by an index; nil: everywhere
	all  []cond // what SQL can tell of every row; match looks at all of it again
}

func usage(format string, args ...any) error { return sysexits.Errorf(sysexits.Usage, format, args...) }

// compile reads a query as the database's texts are.
func (db *DB) compile(q *Query) (*compiled, error) {
	c := *q
	for _, s := range []*string{&c.Sender, &c.Rcpt, &c.Client, &c.Helo, &c.QueueID, &c.MessageID, &c.Text} {
		*s = db.b.asStored(*s)
	}
	return compile(&c)
}

// compile reads a query, and says what is wrong with it.
func compile(q *Query) (*compiled, error) {
	c := &compiled{q: q}
	var err error
	if c.tenant, err = newTenant(q.Domain); err != nil {
		return nil, err
	}
	if q.Limit < 0 {
		return nil, usage("limit %d: want a number of rows, or 0 for all", q.Limit)
	}
	if c.sender, err = newAddress(q.Sender); err != nil {
		return nil, usage("sender %w", err)
	}
	if c.rcpt, err = newAddress(q.Rcpt); err != nil {
		return nil, usage("recipient %w", err)
	}
	if c.client, err = newClient(q.Client); err != nil {
		return nil, err
	}
	c.helo = newPattern(q.Helo)
	for _, w := range strings.Fields(q.Text) {
		c.words = append(c.words, fold(w))
	}
	for _, v := range q.Verdicts {
		c.verdicts = append(c.verdicts, strings.ToUpper(v))
	}
	for _, list := range [][]string{q.Outcomes, q.Kinds, q.Verdicts} {
		for _, v := range list {
			if v == "" {
				return nil, usage("an empty outcome, kind or verdict")
			}
		}
	}
	c.span()
	c.plan()
	return c, nil
}

// maxTime is the last millisecond of the year 9999, Unix time: a day has eight
// digits.
const maxTime = 253402300799999

// dayOfID is the day in whose table a row is.
func dayOfID(id flat.ID) string { return flat.Day(min(id.UnixMilli(), maxTime)) }

// span turns times and the cursor into bounds of ids.
func (c *compiled) span() {
	if c.q.Since > 0 {
		c.from = flat.MakeID(min(c.q.Since, maxTime), 0, 0)
	}
	if c.q.Until != 0 {
		c.to = flat.MakeID(min(max(c.q.Until, 0), maxTime), 0, 0)
		if c.to.IsZero() {
			c.to[15] = 1 // an id before all others
		}
	}
	after := c.q.After
	switch {
	case after.IsZero():
	case c.q.OldestFirst:
		if next := successor(after); less(c.from, next) {
			c.from = next
		}
	case c.to.IsZero() || less(after, c.to):
		c.to = after
	}
}

func less(a, b flat.ID) bool { return string(a[:]) < string(b[:]) }

// successor is the next id.
func successor(id flat.ID) flat.ID {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]++; id[i] != 0 {
			return id
		}
	}
	for i := range id { // there is none: nothing comes behind it
		id[i] = math.MaxUint8
	}
	return id
}

// dayBounds are the ids that a day's rows have: from <= id < to.
func dayBounds(day string) (from, to flat.ID) {
	t, err := time.Parse("20060102", day)
	if err != nil {
		return flat.ID{}, lastID // a table 20261399 that somebody made
	}
	from = flat.MakeID(max(t.UnixMilli(), 0), 0, 0)
	if end := t.AddDate(0, 0, 1).UnixMilli(); end <= maxTime {
		return from, flat.MakeID(max(end, 0), 0, 0)
	}
	return from, lastID
}

func minID(a, b flat.ID) flat.ID {
	if less(b, a) {
		return b
	}
	return a
}

func maxID(a, b flat.ID) flat.ID {
	if less(a, b) {
		return b
	}
	return a
}

// match looks at everything that is asked but the span and the tenant. The
// row has passed tenant.view: what the tenant must not see cannot match.
func (c *compiled) match(r *flat.Row) bool {
	q := c.q
	return (len(q.Outcomes) == 0 || oneOf(q.Outcomes, r.Outcome)) &&
		(len(q.Kinds) == 0 || oneOf(q.Kinds, r.Kind)) &&
		(len(c.verdicts) == 0 || oneOf(c.verdicts, r.Verdict)) &&
		(q.QueueID == "" || q.QueueID == r.QIDIn || q.QueueID == r.QIDOut || q.QueueID == r.RemoteQID) &&
		(q.ParentID.IsZero() || q.ParentID == r.ParentID) &&
		(q.MessageID == "" || bareID(q.MessageID) == r.MsgID) &&
		(c.client == nil || c.client.match(r)) &&
		(c.helo == nil || c.helo.match(r.Helo)) &&
		(c.sender == nil || c.sender.match(r.Sender) && (!c.sender.null || r.Rcpt != "")) &&
		(c.rcpt == nil || c.rcpt.match(r.Rcpt) || c.rcpt.whole != "" && c.rcpt.match(r.OrigTo)) &&
		c.matchWords(r)
}

func oneOf(list []string, v string) bool {
	for _, s := range list {
		if strings.EqualFold(s, v) {
			return true
		}
	}
	return false
}

// bareID is a message id, a queue id or an address without its <>, as the
// columns have it.
func bareID(s string) string {
	return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
}

// textOf are the columns in which words are looked for.
var textOf = func() (cols []int) {
	for _, name := range []string{
		"sender", "rcpt", "orig_to", "subject", "reason", "helo", "client_name", "client_ip", "sasl_user",
		"msgid", "relay", "relay_ip", "verdict", "quarantine", "qid_in", "qid_out", "remote_qid", "mail_id", "evidence",
	} {
		cols = append(cols, columnAt(name))
	}
	return cols
}()

func (c *compiled) matchWords(r *flat.Row) bool {
	for _, w := range c.words {
		found := false
		for _, i := range textOf {
			if found = containsFold(*flat.Columns[i].Str(r), w); found {
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}

// containsFold reports whether lower, which is in lower case, occurs in s
// without regard to case.
func containsFold[T string | []byte](s T, lower string) bool {
	if len(lower) == 0 {
		return true
	}
	first := lower[0]
	for i := 0; i+len(lower) <= len(s); i++ {
		b := s[i]
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		if b == first && hasPrefixFold(s[i:], lower) {
			return true
		}
	}
	return !isASCII(lower) && strings.Contains(fold(string(s)), lower)
}

func hasPrefixFold[T string | []byte](s T, lower string) bool {
	for i := range len(lower) {
		b := s[i]
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		if b != lower[i] {
			return false
		}
	}
	return true
}

// client is what Query.Client asks for.
type client struct {
	prefix netip.Prefix // valid: an address or a network
	name   *pattern
}

func newClient(s string) (*client, error) {
	if s == "" {
		return nil, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		a = a.Unmap().WithZone("")
		return &client{prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, usage("client %.80q: want an address, a network such as 192.0.2.0/24 or 2001:db8::/32, or a name", s)
		}
		if p.Addr().Is4In6() {
			if p.Bits() < 96 {
				return &client{prefix: p.Masked()}, nil
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return &client{prefix: p.Masked()}, nil
	}
	return &client{name: newPattern(s)}, nil
}

func (c *client) match(r *flat.Row) bool {
	if !c.prefix.IsValid() {
		return c.name.match(r.ClientName)
	}
	a, err := netip.ParseAddr(r.ClientIP)
	return err == nil && c.prefix.Contains(a.Unmap().WithZone(""))
}
