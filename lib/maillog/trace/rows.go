package trace

import (
	"strings"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// hop is a leg on the way of one recipient, and its entry there; p is nil
// where the leg has no line for it.
type hop struct {
	l *leg
	p *rcpt
}

// maxNotices bounds notices about notices.
const maxNotices = 4

// rows puts the rows of a chain: one for each final recipient. final says that
// nothing more will come.
func (t *Tracer) rows(root *leg, final bool) {
	if root.notice != nil && t.depth < maxNotices {
		t.depth++
		t.rowsOf(root.notice)
		t.depth--
	}
	t.shown(&root.item)
	t.ids = t.ids[:0]
	defer t.withdraw(root, final)
	if root.probe() {
		return
	}
	root.unnoticed(0)
	var buf [8]hop
	n := t.walk(append(buf[:0], hop{l: root}), final)
	if n == 0 {
		t.bareRow(root, final)
		return
	}
	if final && root.nrcpt > int64(n) && root.has(isRemoved) && !root.has(overflow) && root.nrcpt > root.delivered() {
		t.bareRow(root, final) // some recipients' lines are missing
	}
}

// walk follows every recipient of the last leg on the path, and gives the
// number of rows.
func (t *Tracer) walk(path []hop, final bool) int {
	l := path[len(path)-1].l
	n := 0
	for _, c := range l.to {
		for i := range c.rcpts {
			c.rcpts[i].child = nil
		}
	}
	for i := range l.rcpts {
		path[len(path)-1].p = &l.rcpts[i]
		n += t.follow(path, final)
	}
	path[len(path)-1].p = nil
	for _, c := range l.to { // recipients that this leg has no line for
		if len(path) >= maxChain {
			break
		}
		for i := range c.rcpts {
			if c.rcpts[i].child == nil {
				n += t.follow(append(path, hop{c, &c.rcpts[i]}), final)
			}
		}
	}
	return n
}

// follow puts the rows of the recipient at the end of the path. Where the leg
// handed it on, they are those of its entries in the next leg. rcpt.child
// marks entries that have been followed.
func (t *Tracer) follow(path []hop, final bool) int {
	h := path[len(path)-1]
	h.p.child = h.l
	n := 0
	if len(path) < maxChain {
		for _, c := range h.l.to {
			n += t.into(path, c, final)
		}
	}
	if n > 0 {
		return n
	}
	t.mailRow(path, final)
	return 1
}

// into follows a recipient into one of the legs that came of its leg.
func (t *Tracer) into(path []hop, c *leg, final bool) int {
	h := path[len(path)-1]
	if !h.l.handedTo(h.p, c) {
		return 0
	}
	n := 0
	var taken *rcpt
	for i := range c.rcpts {
		q := &c.rcpts[i]
		if !sameFold(c.str(q.addr), h.l.str(h.p.addr)) && !sameFold(c.str(q.origTo), h.l.str(h.p.addr)) {
			continue
		}
		if q.child != nil {
			taken = q
			continue
		}
		n += t.follow(append(path, hop{c, q}), final)
	}
	if n == 0 && taken != nil { // two aliases of one address are one recipient there, and two rows
		n += t.follow(append(path, hop{c, taken}), final)
	}
	if n == 0 && (c.via == viaForward || len(h.l.rcpts) == 1) { // under another address
		for i := range c.rcpts {
			if c.rcpts[i].child == nil {
				n += t.follow(append(path, hop{c, &c.rcpts[i]}), final)
			}
		}
	}
	if n == 0 && (len(c.rcpts) == 0 || c.nrcpt > int64(len(c.rcpts)) || !c.has(isRemoved)) {
		t.mailRow(append(path, hop{l: c}), final) // no line yet, or lost
		return 1
	}
	return n
}

// handedTo reports whether a recipient went from l into c: its reply says so,
// or nothing says otherwise.
func (l *leg) handedTo(p *rcpt, c *leg) bool {
	if p.remoteQID.n > 0 {
		return l.str(p.remoteQID) == c.str(c.qid)
	}
	if c.via == viaRequeue {
		return p.status == maillog.StatusDeferred || p.status == maillog.StatusNone
	}
	return p.status == maillog.StatusNone
}

// probe tells address verification from mail.
func (l *leg) probe() bool {
	if l.has(isProbe) {
		return true
	}
	return l.notice == nil && l.from == nil && l.parent.IsZero() && !l.has(hasClient|hasPickup) && len(l.rcpts) == 0 &&
		strings.HasPrefix(l.str(l.sender), "double-bounce@")
}

// withdraw deletes rows that were put before under ids that the chain no
// longer has, and remembers those it has now.
func (t *Tracer) withdraw(root *leg, final bool) {
	for _, old := range root.ids {
		found := false
		for _, id := range t.ids {
			found = found || id == old
		}
		if !found {
			t.sink.Delete(old)
		}
	}
	root.ids = root.ids[:0]
	if !final {
		root.ids = append(root.ids, t.ids...)
	}
}

// mailRow puts the row of one path from the first leg to the last.
func (t *Tracer) mailRow(path []hop, final bool) {
	r := &t.row
	r.Clear()
	root, tip := path[0].l, path[len(path)-1]
	r.Kind = flat.KindMail
	t.fromRoot(r, root)
	for i := len(path) - 1; i >= 0 && r.Rcpt == ""; i-- {
		if p := path[i].p; p != nil {
			r.Rcpt, r.OrigTo = path[i].l.str(p.addr), path[i].l.str(p.origTo)
		}
	}
	for i := len(path) - 1; i >= 0; i-- { // what it was called before
		if p := path[i].p; p != nil && !sameFold(path[i].l.str(p.addr), r.Rcpt) {
			r.OrigTo = path[i].l.str(p.addr)
		}
		if p := path[i].p; p != nil && p.origTo.n > 0 && !sameFold(path[i].l.str(p.origTo), r.Rcpt) {
			r.OrigTo = path[i].l.str(p.origTo)
		}
	}
	r.RcptDomain = flat.Domain(r.Rcpt)
	r.HostOut, r.QIDOut = tip.l.host(), tip.l.str(tip.l.qid)
	if tip.p != nil {
		t.fromDelivery(r, tip.l, tip.p)
	}
	scanned := t.fromScans(r, path)
	t.clientBehind(r, path, scanned)
	senderBehind(r, path, scanned)
	t.outcome(r, path, scanned)
	last := int64(0)
	for _, h := range path {
		last = max(last, h.l.last)
	}
	r.Lines = root.allLines(0)
	t.evidence(r, path, scanned, final)
	if r.TSFinal != 0 {
		r.TSFinal = max(r.TSFinal, r.TS)
		r.TotalMS = r.TSFinal - r.TS
	} else if final {
		r.TSFinal = max(last/1000, r.TS)
	}
	r.ParentID = root.parent
	r.ID = t.mailID(root, r.Rcpt, r.OrigTo)
	t.ids = append(t.ids, r.ID)
	for _, h := range path {
		t.noticed(h.l, r)
	}
	t.emit(r)
}

// allLines counts the lines of a chain. Each row of a mail has them all, so
// that a row only ever grows.
func (l *leg) allLines(depth int) int64 {
	n := int64(l.lines)
	for _, sc := range l.scan {
		n += int64(sc.lines)
	}
	if depth < maxChain {
		for _, c := range l.to {
			n += c.allLines(depth + 1)
		}
	}
	return n
}

// mailID is the identity of a mail's row.
func (t *Tracer) mailID(root *leg, rcpt, origTo string) flat.ID {
	h := newIDHash()
	h.add("mail")
	h.add(root.host())
	h.add(root.str(root.qid))
	h.add(rcpt)
	h.add(origTo)
	return h.id(root.first / 1000)
}

// unnoticed forgets which rows notices about a chain are about.
func (l *leg) unnoticed(depth int) {
	l.row = flat.ID{}
	for _, b := range l.notices {
		b.parentAt = 0
	}
	if depth < maxChain {
		for _, c := range l.to {
			c.unnoticed(depth + 1)
		}
	}
}

// noticed notes that r is the row which notices about this leg are about: of
// several recipients the one that failed last before the notice.
func (t *Tracer) noticed(l *leg, r *flat.Row) {
	failed := r.Outcome == flat.Bounced || r.Outcome == flat.Expired || r.Outcome == flat.Deferred
	if l.row.IsZero() || failed {
		l.row = r.ID
	}
	at := int64(1)
	if failed {
		at = max(r.TSFinal*1000, 2)
	}
	for _, b := range l.notices {
		if at > b.parentAt && at <= b.first+slack {
			b.parentAt = at
			if b.parent != r.ID {
				b.parent = r.ID
				t.dirty(&b.item)
				t.fresh(&b.root().item)
			}
		}
	}
}

// rowsOf sees to it that a leg's notices know what they are about.
func (t *Tracer) rowsOf(l *leg) {
	root := l.root()
	if root.freshAt == 0 && !l.row.IsZero() {
		return
	}
	was, sink, ids, stats, fresh := t.row, t.sink, append([]flat.ID(nil), t.ids...), t.stats, root.freshAt > 0
	kept := append([]flat.ID(nil), root.ids...)
	t.sink = nowhere{}
	t.rows(root, false)
	root.ids = kept
	if fresh {
		t.fresh(&root.item)
	}
	t.row, t.sink, t.ids, t.stats = was, sink, append(t.ids[:0], ids...), stats
}

type nowhere struct{}

func (nowhere) Put(*flat.Row)  {}
func (nowhere) Delete(flat.ID) {}

// fromRoot fills in where the mail came from.
func (t *Tracer) fromRoot(r *flat.Row, l *leg) {
	n := l.node()
	r.HostIn, r.InstanceIn, r.QIDIn = l.host(), n.inst, l.str(l.qid)
	r.TS = l.first / 1000
	l.fillClient(r)
	r.Sender = l.str(l.sender)
	r.SenderDomain = flat.Domain(r.Sender)
	r.MsgID, r.Subject = l.str(l.msgid), l.str(l.subject)
	if l.size >= 0 {
		r.Size = l.size
	}
	if l.nrcpt >= 0 {
		r.NRcpt = l.nrcpt
	}
	r.Dir = t.direction(n, r.ClientIP, r.SASLUser)
	if r.Dir == flat.DirIn && !l.has(hasClient) && (l.has(hasPickup) || l.notice != nil || !l.parent.IsZero()) {
		r.Dir = flat.DirLocal
	}
}

// fillClient fills in who handed a leg in. What XFORWARD says of the client
// of a hop that is not in the log goes before that hop's.
func (l *leg) fillClient(r *flat.Row) {
	if l.origIP.n > 0 {
		if l.origQID.n > 0 || !loopback(l.str(l.origIP)) { // else sendmail(1) handed it in, one hop earlier
			r.ClientIP, r.ClientName = l.str(l.origIP), l.str(l.origName)
		}
		return
	}
	r.ClientIP, r.ClientName = or(l.str(l.clientIP), r.ClientIP), or(l.str(l.clientName), r.ClientName)
	r.ClientPort, r.Helo = or(l.str(l.clientPort), r.ClientPort), or(l.str(l.helo), r.Helo)
	r.Proto, r.TLS = or(l.str(l.proto), r.Proto), or(l.str(l.tls), r.TLS)
	r.SASLUser = or(l.str(l.saslUser), r.SASLUser)
	if s := l.sess; s != nil {
		r.ClientIP, r.ClientName = or(r.ClientIP, s.str(s.clientIP)), or(r.ClientName, s.str(s.clientName))
		r.ClientPort, r.Helo = or(r.ClientPort, s.str(s.clientPort)), or(r.Helo, s.str(s.helo))
		r.Proto, r.TLS = or(r.Proto, s.str(s.proto)), or(r.TLS, s.str(s.tls))
		r.SASLUser = or(r.SASLUser, s.str(s.saslUser))
	}
}

// or is the first of two texts that says something.
func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// clientBehind finds the client of a mail whose client= line is missing in
// what later hops say of it.
func (t *Tracer) clientBehind(r *flat.Row, path []hop, v verdict) {
	if path[0].l.has(hasClient|hasPickup) || r.ClientIP != "" {
		return
	}
	for _, h := range path[1:] {
		if h.l.origIP.n > 0 && !loopback(h.l.str(h.l.origIP)) {
			r.ClientIP, r.ClientName = h.l.str(h.l.origIP), h.l.str(h.l.origName)
			break
		}
	}
	if r.ClientIP == "" && v.sc != nil && v.x.queueID.n > 0 && !loopback(v.sc.str(v.sc.clientIP)) {
		r.ClientIP = v.sc.str(v.sc.clientIP)
	}
	r.Dir = t.direction(path[0].l.node(), r.ClientIP, r.SASLUser)
}

// senderBehind finds the sender of a mail whose queue manager's line is
// missing in what later hops say of it.
func senderBehind(r *flat.Row, path []hop, v verdict) {
	if r.Sender != "" || path[0].l.has(hasQueued|isExpired) {
		return
	}
	for _, h := range path[1:] {
		if h.l.sender.n > 0 {
			r.Sender = h.l.str(h.l.sender)
			break
		}
	}
	if r.Sender == "" && v.sc != nil {
		r.Sender = v.sc.str(v.sc.sender)
	}
	r.SenderDomain = flat.Domain(r.Sender)
}

func loopback(ip string) bool { return ip == "127.0.0.1" || ip == "::1" }

// fromDelivery fills in the last attempt.
func (t *Tracer) fromDelivery(r *flat.Row, l *leg, p *rcpt) {
	r.Relay, r.RelayIP, r.RemoteQID = l.str(p.relay), l.str(p.relayIP), l.str(p.remoteQID)
	r.DSN, r.Reason = l.str(p.dsn), l.str(p.text)
	if p.reply > 0 {
		r.SMTPCode = int64(p.reply)
	}
	if p.attempts > 0 {
		r.Attempts = int64(p.attempts)
	}
	if p.delay >= 0 {
		r.Delay = float64(p.delay) / 1e6
	}
	if d := p.delays; d[0] >= 0 {
		r.DelayBefore, r.DelayQueue = float64(d[0])/1e6, float64(d[1])/1e6
		r.DelayConn, r.DelayTx = float64(d[2])/1e6, float64(d[3])/1e6
		r.DeliveryMS = (d[2] + d[3]) / 1000
	}
}

// fromScans fills in the verdict of the last scan on the path, which decides
// an outcome.
func (t *Tracer) fromScans(r *flat.Row, path []hop) (v verdict) {
	for i, h := range path {
		for _, sc := range h.l.scan {
			addr := r.Rcpt
			if h.p != nil {
				addr = h.l.str(h.p.addr)
			}
			x := sc.result(addr)
			if x == nil && len(h.l.scan) == 1 && len(sc.results) == 1 {
				x = &sc.results[0]
			}
			if x == nil {
				continue
			}
			next := verdict{sc: sc, x: x, l: h.l, at: i}
			if i+1 < len(path) && x.queuedAs.n > 0 {
				next.led = strings.Contains(sc.str(x.queuedAs), path[i+1].l.str(path[i+1].l.qid))
			}
			if v.sc == nil || v.before(next) {
				v = next
			}
		}
	}
	if v.sc != nil {
		v.sc.fill(r, v.x)
		if r.Dir == flat.DirIn { // Amavis knows its own networks and users (policy bank ORIGINATING)
			switch actions := v.sc.str(v.x.actions); {
			case strings.Contains(actions, "Outbound"):
				r.Dir = flat.DirOut
			case strings.Contains(actions, "Internal"):
				r.Dir = flat.DirLocal
			}
		}
	}
	return v
}

// before reports whether w has more to say: further on, or leading on, or
// later (Amavis scans a mail again when it could not pass it on).
func (v verdict) before(w verdict) bool {
	if v.at != w.at {
		return v.at < w.at
	}
	if v.led != w.led {
		return w.led
	}
	if v.sc.last != w.sc.last {
		return v.sc.last < w.sc.last
	}
	return w.x.passed
}

// verdict is a scan, what it decided, and of which leg.
type verdict struct {
	sc  *scan
	x   *result
	l   *leg
	at  int  // place on the path
	led bool // the leg after came of it
}
