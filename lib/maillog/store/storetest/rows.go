// Package storetest makes flat rows for tests and benchmarks: the same ones
// for the same arguments, in the proportions of a real cluster.
package storetest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// Made are rows made one after another.
type Made struct {
	rng  *rand.Rand
	n    int
	From int64 // Unix ms of the first row
	Step int64 // ms from row to row
}

// New returns a maker of rows whose first line is at from (Unix ms) and whose
// times are step ms apart.
func New(seed uint64, from, step int64) *Made {
	return &Made{rng: rand.New(rand.NewPCG(seed, 1)), From: from, Step: step}
}

const b52 = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"

func (m *Made) text(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = b52[m.rng.IntN(len(b52))]
	}
	return string(b)
}

// Domains is how many customers' domains there are, customer0.example and on.
const Domains = 400

// Domain is a customer's domain. The first ones have most of the mail.
func (m *Made) Domain() string {
	f := m.rng.Float64()
	return fmt.Sprintf("customer%d.example", int(f*f*f*Domains))
}

// IP is a client's address; one in eight is of IPv6.
func (m *Made) IP() string {
	a := m.rng.IntN(60000)
	if a%8 == 0 {
		return fmt.Sprintf("2001:db8:%x::%x", a>>8+1, a&0xff+1)
	}
	return fmt.Sprintf("10.%d.%d.%d", a%97, a>>8&0xff, a&0xff)
}

// Next makes a row: most are mails, a fifth are rejects, some aborts.
func (m *Made) Next() *flat.Row {
	r := &flat.Row{}
	r.Clear()
	r.TS = m.From + int64(m.n)*m.Step
	r.ID = flat.MakeID(r.TS, m.rng.Uint64(), m.rng.Uint64())
	m.n++
	r.HostIn = fmt.Sprintf("mx%d.example.net", m.n%2+1)
	r.InstanceIn = "mx"
	r.ClientIP = m.IP()
	r.ClientName = "mail-" + m.text(6) + ".sender.example.org"
	r.ClientPort = fmt.Sprint(20000 + m.rng.IntN(40000))
	r.Helo = "mail.sender" + fmt.Sprint(m.rng.IntN(5000)) + ".example.org"
	r.Proto = "ESMTP"
	r.Dir = flat.DirIn
	r.Complete = true
	switch p := m.rng.IntN(100); {
	case p < 75:
		m.mail(r)
	case p < 95:
		m.reject(r)
	default:
		m.abort(r)
	}
	return r
}

func (m *Made) addresses(r *flat.Row) {
	r.Sender = "user" + fmt.Sprint(m.rng.IntN(20000)) + "@sender" + fmt.Sprint(m.rng.IntN(5000)) + ".example.org"
	r.Rcpt = "User." + fmt.Sprint(m.rng.IntN(300)) + "@" + m.Domain()
	if m.rng.IntN(6) == 0 {
		r.Sender, r.Rcpt = r.Rcpt, r.Sender
		r.Dir = flat.DirOut
	}
	r.SenderDomain, r.RcptDomain = flat.Domain(r.Sender), flat.Domain(r.Rcpt)
}

func (m *Made) mail(r *flat.Row) {
	m.addresses(r)
	r.Kind, r.Outcome = flat.KindMail, flat.Sent
	r.Evidence = "orig_queue_id,amavis,queued_as"
	r.QIDIn, r.QIDOut = "4g"+m.text(13), "4h"+m.text(13)
	r.HostFilter, r.HostOut = "mf1.example.net", "out1.example.net"
	r.TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"
	r.MsgID = m.text(24) + "@" + r.SenderDomain
	r.Size, r.NRcpt = int64(1000+m.rng.IntN(100000)), 1
	r.TSFinal = r.TS + 3000
	r.SMTPCode, r.DSN = 250, "2.0.0"
	r.RemoteQID = m.text(12)
	r.Reason = "250 2.0.0 Ok: queued as " + r.RemoteQID
	r.Verdict, r.Score, r.MailID = "CLEAN", float64(m.rng.IntN(50))/10-2, m.text(12)
	r.ScanMS = int64(50 + m.rng.IntN(900))
	r.Relay, r.RelayIP = "mail."+r.RcptDomain, "10.1.2.3"
	r.Attempts = 1
	r.Delay, r.DelayBefore, r.DelayQueue, r.DelayConn, r.DelayTx = 1.2, 0.05, 0.01, 0.4, 0.74
	r.TotalMS, r.DeliveryMS = 2900, 1140
	r.Lines = 14
	if m.rng.IntN(40) == 0 {
		r.Outcome = flat.Bounced
		r.SMTPCode, r.DSN = 550, "5.1.1"
		r.Reason = "550 5.1.1 <" + r.Rcpt + ">: Recipient address rejected: User unknown"
		r.RemoteQID = ""
	}
}

func (m *Made) reject(r *flat.Row) {
	m.addresses(r)
	r.Dir = flat.DirIn
	r.Kind, r.Outcome, r.Stage = flat.KindReject, flat.Rejected, "RCPT"
	r.SMTPCode, r.DSN = 554, "5.7.1"
	r.Reason = "Service unavailable; Client host [" + r.ClientIP + "] blocked using zen.dnsbl.example"
	r.TSFinal, r.Lines = r.TS, 2
}

func (m *Made) abort(r *flat.Row) {
	r.Kind, r.Outcome, r.Stage = flat.KindAbort, flat.Aborted, "CONNECT"
	r.Reason = "lost connection"
	r.TSFinal, r.Lines = r.TS, 2
}

// Rows makes n rows.
func (m *Made) Rows(n int) []*flat.Row {
	all := make([]*flat.Row, n)
	for i := range all {
		all[i] = m.Next()
	}
	return all
}

// ID is the n-th of a row of ids for hand-made rows at ms.
func ID(ms int64, n uint64) flat.ID {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return flat.MakeID(ms, n, 0)
}
