package flat

import (
	"math"
	"strings"
)

// Type is the type of a column; a store maps it to its own.
type Type uint8

// Column types.
const (
	Text  Type = iota // UTF-8 or whatever bytes the log held; empty is NULL
	Int               // 64 bit; NoInt is NULL
	Float             // NaN is NULL
	Time              // Unix milliseconds, UTC; 0 is NULL
	Bool
	RowID // 16 bytes; zero is NULL
)

// Column is one column of the flat maillog. Exactly one of the pointers that
// its accessor returns is set, by type.
type Column struct {
	Name string
	Type Type
	Max  int // longest text kept, bytes; longer values are cut at a rune and marked with "…"

	Str   func(*Row) *string
	Int   func(*Row) *int64 // Int and Time
	Float func(*Row) *float64
	Bool  func(*Row) *bool
	ID    func(*Row) *ID
}

func str(name string, limit int, f func(*Row) *string) Column {
	return Column{Name: name, Type: Text, Max: limit, Str: f}
}
func num(name string, f func(*Row) *int64) Column { return Column{Name: name, Type: Int, Int: f} }
func sec(name string, f func(*Row) *float64) Column {
	return Column{Name: name, Type: Float, Float: f}
}

// Columns are the columns of every day table, in their order. The names are
// fixed: they are the keys of the JSON output and what other programs query.
var Columns = []Column{
	{Name: "id", Type: RowID, ID: func(r *Row) *ID { return &r.ID }},
	{Name: "ts", Type: Time, Int: func(r *Row) *int64 { return &r.TS }},
	{Name: "ts_final", Type: Time, Int: func(r *Row) *int64 { return &r.TSFinal }},
	str("kind", 8, func(r *Row) *string { return &r.Kind }),
	str("direction", 8, func(r *Row) *string { return &r.Dir }),
	str("outcome", 12, func(r *Row) *string { return &r.Outcome }),
	{Name: "complete", Type: Bool, Bool: func(r *Row) *bool { return &r.Complete }},
	str("evidence", 255, func(r *Row) *string { return &r.Evidence }),
	str("host_in", 255, func(r *Row) *string { return &r.HostIn }),
	str("instance_in", 64, func(r *Row) *string { return &r.InstanceIn }),
	str("qid_in", 32, func(r *Row) *string { return &r.QIDIn }),
	str("host_filter", 255, func(r *Row) *string { return &r.HostFilter }),
	str("host_out", 255, func(r *Row) *string { return &r.HostOut }),
	str("qid_out", 32, func(r *Row) *string { return &r.QIDOut }),
	str("client_ip", 45, func(r *Row) *string { return &r.ClientIP }),
	str("client_name", 255, func(r *Row) *string { return &r.ClientName }),
	str("client_port", 5, func(r *Row) *string { return &r.ClientPort }),
	str("helo", 255, func(r *Row) *string { return &r.Helo }),
	str("proto", 16, func(r *Row) *string { return &r.Proto }),
	str("tls", 128, func(r *Row) *string { return &r.TLS }),
	str("sasl_user", 255, func(r *Row) *string { return &r.SASLUser }),
	str("country", 2, func(r *Row) *string { return &r.Country }),
	str("sender", 320, func(r *Row) *string { return &r.Sender }),
	str("sender_domain", 255, func(r *Row) *string { return &r.SenderDomain }),
	str("rcpt", 320, func(r *Row) *string { return &r.Rcpt }),
	str("rcpt_domain", 255, func(r *Row) *string { return &r.RcptDomain }),
	str("orig_to", 320, func(r *Row) *string { return &r.OrigTo }),
	str("msgid", 512, func(r *Row) *string { return &r.MsgID }),
	str("subject", 512, func(r *Row) *string { return &r.Subject }),
	num("size", func(r *Row) *int64 { return &r.Size }),
	num("nrcpt", func(r *Row) *int64 { return &r.NRcpt }),
	str("stage", 32, func(r *Row) *string { return &r.Stage }),
	num("smtp_code", func(r *Row) *int64 { return &r.SMTPCode }),
	str("dsn", 12, func(r *Row) *string { return &r.DSN }),
	str("reason", 2048, func(r *Row) *string { return &r.Reason }),
	str("verdict", 32, func(r *Row) *string { return &r.Verdict }),
	sec("score", func(r *Row) *float64 { return &r.Score }),
	str("mail_id", 32, func(r *Row) *string { return &r.MailID }),
	str("quarantine", 255, func(r *Row) *string { return &r.Quarantine }),
	str("policy", 255, func(r *Row) *string { return &r.Policy }),
	num("scan_ms", func(r *Row) *int64 { return &r.ScanMS }),
	str("relay", 255, func(r *Row) *string { return &r.Relay }),
	str("relay_ip", 45, func(r *Row) *string { return &r.RelayIP }),
	str("remote_qid", 128, func(r *Row) *string { return &r.RemoteQID }),
	num("attempts", func(r *Row) *int64 { return &r.Attempts }),
	sec("delay", func(r *Row) *float64 { return &r.Delay }),
	sec("delay_before", func(r *Row) *float64 { return &r.DelayBefore }),
	sec("delay_queue", func(r *Row) *float64 { return &r.DelayQueue }),
	sec("delay_conn", func(r *Row) *float64 { return &r.DelayConn }),
	sec("delay_tx", func(r *Row) *float64 { return &r.DelayTx }),
	num("total_ms", func(r *Row) *int64 { return &r.TotalMS }),
	num("delivery_ms", func(r *Row) *int64 { return &r.DeliveryMS }),
	{Name: "parent_id", Type: RowID, ID: func(r *Row) *ID { return &r.ParentID }},
	num("lines", func(r *Row) *int64 { return &r.Lines }),
}

// Null reports whether the column has no value in r.
func (c *Column) Null(r *Row) bool {
	switch c.Type {
	case Text:
		return *c.Str(r) == ""
	case Int:
		return *c.Int(r) == NoInt
	case Time:
		return *c.Int(r) == 0
	case Float:
		return math.IsNaN(*c.Float(r))
	case RowID:
		return c.ID(r).IsZero()
	}
	return false
}

var textCols = func() (cols []*Column) {
	for i := range Columns {
		if Columns[i].Type == Text {
			cols = append(cols, &Columns[i])
		}
	}
	return cols
}()

// Clone returns a copy of r whose texts are one allocation of their own. The
// rows that package trace hands out live only as long as the call.
func (r *Row) Clone() *Row {
	c := *r
	n := 0
	for _, col := range textCols {
		n += len(*col.Str(&c))
	}
	var b strings.Builder
	b.Grow(n)
	for _, col := range textCols {
		b.WriteString(*col.Str(&c))
	}
	all := b.String()
	for _, col := range textCols {
		s := col.Str(&c)
		*s, all = all[:len(*s)], all[len(*s):]
	}
	return &c
}
