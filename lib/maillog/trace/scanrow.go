package trace

import (
	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// loseScan gives rows to a scan whose mail nobody else spoke of.
func (t *Tracer) loseScan(sc *scan) {
	t.scanRows(sc, true)
	t.dropScan(sc)
}

// scanRows puts the rows of a scan without a mail, one for each recipient.
func (t *Tracer) scanRows(sc *scan, final bool) {
	t.withdrawScan(sc)
	sc.putAt = sc.first
	sc.eachRcpt(func(x *result, rcpt string) { t.scanRow(sc, x, rcpt, final) })
}

// withdrawScan deletes the rows that a scan was given before its mail was
// found, or before an earlier line came.
func (t *Tracer) withdrawScan(sc *scan) {
	if sc.putAt == 0 {
		return
	}
	at := sc.putAt
	sc.putAt = 0
	sc.eachRcpt(func(_ *result, rcpt string) { t.sink.Delete(sc.rowID(at, rcpt)) })
}

func (sc *scan) eachRcpt(f func(x *result, rcpt string)) {
	for i := range sc.results {
		list := sc.bytes(sc.results[i].rcpts)
		for {
			addr, rest, ok := maillog.NextRcpt(list)
			if !ok {
				break
			}
			f(&sc.results[i], view(addr))
			list = rest
		}
	}
}

func (sc *scan) rowID(us int64, rcpt string) flat.ID {
	h := newIDHash()
	h.add("scan")
	h.add(sc.node.host)
	h.add(sc.str(sc.amid))
	h.add(rcpt)
	return h.id(us / 1000)
}

func (t *Tracer) scanRow(sc *scan, x *result, rcpt string, final bool) {
	r := &t.row
	r.Clear()
	r.Kind, r.Outcome = flat.KindMail, flat.Unknown
	r.ClientIP = sc.str(sc.clientIP)
	sc.fill(r, x)
	r.TS = sc.first / 1000
	if o := sc.outcome(x); o != "" {
		r.Outcome, r.TSFinal = o, sc.last/1000
	} else if final {
		r.TSFinal = sc.last / 1000
	}
	r.HostIn, r.InstanceIn, r.QIDIn = sc.node.host, sc.node.inst, sc.str(x.queueID)
	r.Sender, r.Rcpt = sc.str(sc.sender), rcpt
	r.SenderDomain, r.RcptDomain = flat.Domain(r.Sender), flat.Domain(rcpt)
	r.MsgID = sc.str(sc.msgid)
	if x.size >= 0 {
		r.Size = x.size
	}
	r.Evidence = "missing: all but the scan"
	r.Dir = t.direction(sc.node, r.ClientIP, "")
	r.Lines = int64(sc.lines)
	r.ID = sc.rowID(sc.first, rcpt)
	t.emit(r)
}

// whole reports whether the record came through to its end, the time it took.
// One that was cut may lack just the id by which its mail would be found.
func (sc *scan) whole() bool {
	for i := range sc.results {
		if sc.results[i].ms >= 0 {
			return true
		}
	}
	return false
}
