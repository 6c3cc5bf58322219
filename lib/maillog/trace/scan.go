package trace

import (
	"bytes"
	"math"
	"net/netip"
	"strings"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// scan is one Amavis record: a message that passed or was blocked for some of
// its recipients, or all.
type scan struct {
	item
	arena

	key    uint64 // host, process, log id
	node   *node
	pid    int64
	leg    *leg
	joined uint64 // as in leg
	waits  []uint64

	results     []result
	first, last int64
	lines       int32
	prints      prints
	putAt       int64 // first, when its rows were put for want of a mail; 0 if they were not

	amid, sender, clientIP, msgid ref
	parts                         []part // of a record that Amavis cut
}

// result is one Passed or Blocked line.
type result struct {
	passed, perRcpt bool
	score           float64
	ms, size        int64

	verdict, detail, actions, policy, rcpts ref
	quarantine, queueID, mailID, queuedAs   ref
	subject, helo, port                     ref
}

type part struct {
	text       ref
	head, more bool
	us         int64
}

func (sc *scan) eachRef(f func(*ref)) {
	for _, r := range [...]*ref{&sc.amid, &sc.sender, &sc.clientIP, &sc.msgid} {
		f(r)
	}
	for i := range sc.results {
		x := &sc.results[i]
		for _, r := range [...]*ref{
			&x.verdict, &x.detail, &x.actions, &x.policy, &x.rcpts, &x.quarantine, &x.queueID, &x.mailID, &x.queuedAs,
			&x.subject, &x.helo, &x.port,
		} {
			f(r)
		}
	}
	for i := range sc.parts {
		f(&sc.parts[i].text)
	}
}

// amavisEvent handles a verdict, or a piece of one.
func (t *Tracer) amavisEvent(n *node, ev *maillog.Event) {
	t.amavis = true
	key := mix(mix(n.hash, t.hash(ev.Scan.AmID)), uint64(ev.PID))
	t.wake(key)
	sc := t.scans[key]
	if sc != nil && sc.str(sc.amid) != string(ev.Scan.AmID) {
		sc = nil
	}
	if sc != nil && ev.Time > sc.last+int64(t.opt.Expect.Microseconds()) {
		t.forgetScan(sc) // the process counts on from where another began
		sc = nil
	}
	if sc == nil {
		sc = t.blankScan()
		sc.serial, sc.key, sc.node, sc.pid, sc.first, sc.last = t.next(), key, n, ev.PID, ev.Time, ev.Time
		sc.set(&sc.amid, ev.Scan.AmID)
		t.scans[key] = sc
		t.put(&sc.item, qScan)
		for t.byQueue[qScan].n > t.opt.MaxScans {
			t.stats.Evicted.Scans++
			t.loseScan(t.byQueue[qScan].head.thing.(*scan))
		}
	}
	sc.first, sc.last = min(sc.first, ev.Time), max(sc.last, ev.Time)
	if !sc.prints.again(t.print(ev)) {
		sc.lines++
	}
	t.dirty(&sc.item)
	t.fresh(&sc.item)
	if sc.leg != nil {
		t.fresh(&sc.leg.root().item)
	}
	if ev.Kind == maillog.KindAmavisPart {
		t.piece(sc, ev)
		return
	}
	t.result(sc, ev)
}

func (t *Tracer) blankScan() (sc *scan) {
	if n := len(t.freeScan); n > 0 {
		sc, t.freeScan = t.freeScan[n-1], t.freeScan[:n-1]
	} else {
		sc = &scan{}
	}
	sc.thing = sc
	return sc
}

// maxParts bounds the pieces of one record; 64 KiB at 980 bytes each.
const maxParts = 64

// piece collects the pieces of a record that Amavis cut, and reads it when it
// is whole. The first and the last piece say so themselves.
func (t *Tracer) piece(sc *scan, ev *maillog.Event) {
	var r ref
	sc.set(&r, ev.Scan.Part)
	p := part{text: r, head: ev.Scan.Head, more: ev.Scan.More, us: ev.Time}
	if len(sc.parts) > 0 && ev.Time > sc.parts[0].us+t.opt.Parts.Microseconds() || len(sc.parts) >= maxParts {
		sc.parts = sc.parts[:0]
	}
	for _, q := range sc.parts {
		if q.us == p.us && q.head == p.head && sc.str(q.text) == sc.str(p.text) {
			return
		}
	}
	if p.head {
		sc.parts = append([]part{p}, sc.parts...)
	} else {
		sc.parts = append(sc.parts, p)
	}
	last := len(sc.parts) - 1
	for i := range sc.parts { // the last piece may have overtaken others
		if !sc.parts[i].more && !sc.parts[i].head {
			sc.parts[i], sc.parts[last] = sc.parts[last], sc.parts[i]
			break
		}
	}
	if !sc.parts[0].head || sc.parts[last].more {
		return
	}
	var whole []byte
	for _, q := range sc.parts {
		whole = append(whole, sc.str(q.text)...)
	}
	sc.parts = sc.parts[:0]
	t.part.Fields = maillog.Fields{Time: ev.Time, Size: -1, NRcpt: -1, PID: ev.PID, Repeat: 1}
	t.part.Scan.AmID = ev.Scan.AmID
	if maillog.ParseScan(&t.part, whole) {
		t.result(sc, &t.part)
	}
}

// result keeps one Passed or Blocked line and joins the scan to its mail.
func (t *Tracer) result(sc *scan, ev *maillog.Event) {
	e := &ev.Scan
	for i := range sc.results { // the line of one recipient adds nothing to the record
		x := &sc.results[i]
		if e.PerRcpt && !x.perRcpt || sc.str(x.rcpts) == string(e.Rcpts) && x.passed == e.Passed && x.perRcpt == e.PerRcpt {
			return
		}
	}
	if !e.PerRcpt { // and is replaced by it
		kept := sc.results[:0]
		for _, x := range sc.results {
			if !x.perRcpt {
				kept = append(kept, x)
			}
		}
		sc.results = kept
	}
	x := result{passed: e.Passed, perRcpt: e.PerRcpt, score: e.Score, ms: e.MS, size: ev.Size}
	for _, f := range [...]struct {
		dst *ref
		src []byte
	}{
		{&x.verdict, e.Verdict},
		{&x.detail, e.Detail},
		{&x.actions, e.Actions},
		{&x.policy, e.Policy},
		{&x.rcpts, e.Rcpts},
		{&x.quarantine, e.Quarantine},
		{&x.queueID, e.QueueID},
		{&x.mailID, e.MailID},
		{&x.queuedAs, e.QueuedAs},
		{&x.subject, ev.Subject},
		{&x.helo, ev.Helo},
		{&x.port, ev.ClientPort},
		{&sc.sender, ev.Sender},
		{&sc.clientIP, ev.ClientIP},
		{&sc.msgid, ev.MsgID},
	} {
		sc.set(f.dst, f.src)
	}
	sc.results = append(sc.results, x)
	if sc.leg != nil {
		t.nextOfScan(sc, &x)
		return
	}
	t.place(sc, &x)
}

// place looks for the mail of a scan: by Queue-ID; by what it was queued as;
// by the log id in the reply that the first hop logged.
func (t *Tracer) place(sc *scan, x *result) {
	if x.queueID.n > 0 {
		t.awaitScan(waiter{scan: sc}, sc.bytes(x.queueID))
	}
	sc.eachQueued(x, func(id []byte) {
		if sc.leg == nil {
			t.awaitScan(waiter{scan: sc, after: true}, id)
		}
	})
	if sc.leg == nil {
		key := mix(t.hash(sc.bytes(sc.amid)), 'A')
		t.await(key, waiter{scan: sc})
		if !x.passed && t.explain(sc) {
			t.withdrawScan(sc)
			t.dropScan(sc)
			return
		}
		t.resolveAmID(key)
	}
}

func (t *Tracer) awaitScan(w waiter, qid []byte) {
	h := t.hash(qid)
	if !t.resolveScan(w, h, qid) {
		t.await(h, w)
	}
}

// eachQueued calls f for the queue ids of "queued_as: Q1/Q2".
func (sc *scan) eachQueued(x *result, f func(id []byte)) {
	for rest := sc.bytes(x.queuedAs); len(rest) > 0; {
		var id []byte
		id, rest, _ = bytes.Cut(rest, []byte("/"))
		if len(id) > 0 {
			f(id)
		}
	}
}

// resolveScan joins a scan to the leg with an awaited queue id. With two
// candidates on different hosts, what both sides know of the mail decides.
func (t *Tracer) resolveScan(w waiter, h uint64, qid []byte) bool {
	sc := w.scan
	l := t.only(h, qid, func(l *leg) bool {
		if l.first > sc.last+skew || l.last < sc.first-10*skew && l.removedAt != 0 {
			return false
		}
		return sc.agrees(l)
	})
	if l == nil {
		return false
	}
	if w.after && l.from != nil {
		l = l.from
	}
	t.attach(sc, l)
	return true
}

// agrees reports whether nothing the leg says contradicts the scan.
func (sc *scan) agrees(l *leg) bool {
	if l.msgid.n > 0 && sc.msgid.n > 0 && l.str(l.msgid) != sc.str(sc.msgid) {
		return false
	}
	if l.sender.n > 0 && sc.sender.n > 0 && !sameFold(l.str(l.sender), sc.str(sc.sender)) {
		return false
	}
	return true
}

// resolveAmID joins a scan and the leg whose relay's reply names its log id.
func (t *Tracer) resolveAmID(key uint64) {
	var sc *scan
	var l *leg
	t.wake(key)
	for _, w := range t.wait[key] {
		if w.scan != nil && w.scan.leg == nil {
			sc = w.scan
		} else if w.leg != nil {
			l = w.leg
		}
	}
	if sc != nil && l != nil && sc.agrees(l) && sc.first >= l.first-skew && sc.first <= l.last+skew {
		t.attach(sc, l)
	}
}

func (t *Tracer) attach(sc *scan, l *leg) {
	if sc.leg != nil {
		return
	}
	t.withdrawScan(sc)
	sc.leg, sc.joined = l, t.next()
	l.scan = append(l.scan, sc)
	t.dirty(&l.item)
	t.dirty(&sc.item)
	t.fresh(&l.root().item)
	t.unawait(sc.waits, func(w *waiter) bool { return w.scan == sc })
	sc.waits = sc.waits[:0]
	t.unqueue(&sc.item)
	for i := range sc.results {
		t.nextOfScan(sc, &sc.results[i])
	}
}

// nextOfScan awaits the legs that came of a scanned mail.
func (t *Tracer) nextOfScan(sc *scan, x *result) {
	sc.eachQueued(x, func(id []byte) {
		if string(id) != sc.leg.str(sc.leg.qid) {
			t.awaitNext(sc.leg, id, viaAmavis)
		}
	})
}

// matches reports whether a scan is of a mail between two addresses.
func (sc *scan) matches(sender, rcpt string) bool {
	return sameFold(sc.str(sc.sender), sender) && sc.result(rcpt) != nil
}

// result returns what was decided for a recipient.
func (sc *scan) result(rcpt string) *result {
	for i := range sc.results {
		x := &sc.results[i]
		list := sc.bytes(x.rcpts)
		for {
			addr, rest, ok := maillog.NextRcpt(list)
			if !ok {
				break
			}
			if sameFold(view(addr), rcpt) {
				return x
			}
			list = rest
		}
	}
	if len(sc.results) == 1 && (sc.results[0].rcpts.n == 0 || rcpt == "") {
		return &sc.results[0]
	}
	return nil
}

// fill writes a verdict into a row.
func (sc *scan) fill(r *flat.Row, x *result) {
	r.HostFilter = sc.node.host
	r.Verdict, r.Policy = sc.str(x.verdict), sc.str(x.policy)
	r.MailID, r.Quarantine = sc.str(x.mailID), sc.str(x.quarantine)
	if !math.IsNaN(x.score) {
		r.Score = x.score
	}
	if x.ms >= 0 {
		r.ScanMS = x.ms
	}
	if r.Subject == "" {
		r.Subject = strings.ReplaceAll(sc.str(x.subject), `""`, `"`) // as Amavis's macro dquote doubled them
	}
	if r.ClientPort == "" && r.ClientIP == sc.str(sc.clientIP) {
		r.ClientPort = sc.str(x.port)
	}
	if r.Helo == "" {
		r.Helo = sc.str(x.helo)
	}
}

// dropScan forgets a scan without a row.
func (t *Tracer) dropScan(sc *scan) {
	t.unawait(sc.waits, func(w *waiter) bool { return w.scan == sc })
	if t.scans[sc.key] == sc {
		delete(t.scans, sc.key)
	}
	t.release(&sc.item)
	if len(t.freeScan) < 1024 {
		a, x, w, p := sc.arena, sc.results[:0], sc.waits[:0], sc.parts[:0]
		a.reset()
		*sc = scan{arena: a, results: x, waits: w, parts: p, prints: prints{last: sc.prints.last[:0]}}
		t.freeScan = append(t.freeScan, sc)
	}
}

// forgetScan makes room for another scan of the same process and log id.
func (t *Tracer) forgetScan(sc *scan) {
	if sc.leg != nil {
		delete(t.scans, sc.key)
		t.dirty(&sc.item)
		return
	}
	t.loseScan(sc)
}

// outcome is what Amavis itself did to a mail, "" when it only passed it on
// or the client's reply decides (rejected).
func (sc *scan) outcome(x *result) string {
	if x == nil || x.passed {
		return ""
	}
	actions := sc.str(x.actions)
	switch {
	case strings.Contains(actions, "TempFailed"), strings.Contains(actions, "Rejected"):
		return ""
	case strings.Contains(actions, "Bounced"):
		return flat.Bounced
	case x.quarantine.n > 0, strings.Contains(actions, "Quarantined"):
		return flat.Quarantined
	case strings.Contains(actions, "Discarded"), strings.Contains(actions, "NoBounce"):
		return flat.Discarded
	case x.perRcpt:
		return "" // says nothing of the quarantine
	}
	return flat.Discarded
}

// ownNetwork reports whether an address is in Options.OwnNetworks.
func (t *Tracer) ownNetwork(ip string) bool {
	if ip == "" || len(t.opt.OwnNetworks) == 0 {
		return false
	}
	a, err := netip.ParseAddr(strings.TrimPrefix(ip, "IPv6:"))
	if err != nil {
		return false
	}
	a = a.Unmap()
	for _, p := range t.opt.OwnNetworks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
