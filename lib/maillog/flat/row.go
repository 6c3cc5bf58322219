// Package flat is the flat maillog: one Row for each mail and recipient, for
// each rejected recipient and for each broken-off session.
//
// It is the contract between the program that finds the rows in a log (package
// trace), the stores that keep them (package store) and everything that shows
// them. It has no behaviour beyond names, identity and text forms, and imports
// nothing but the standard library.
package flat

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"time"
)

// Kinds of row.
const (
	KindMail   = "mail"   // a mail and one of its recipients
	KindReject = "reject" // a recipient, a command or a message that was refused
	KindAbort  = "abort"  // a session or transaction that was broken off
)

// Directions. Out and local are mail that the cluster's own users really
// sent; in is everything whose sender is no more than a claim.
const (
	DirIn    = "in"
	DirOut   = "out"
	DirLocal = "local"
)

// Outcomes: what was true in the end, or so far while TSFinal is 0.
const (
	Sent        = "sent"
	Deferred    = "deferred"
	Bounced     = "bounced"
	Expired     = "expired"
	Rejected    = "rejected"
	Discarded   = "discarded"
	Quarantined = "quarantined"
	Held        = "held"
	Aborted     = "aborted"
	Unknown     = "unknown"
)

// Outcomes lists all outcomes, in the order people expect them in.
var Outcomes = []string{Sent, Deferred, Bounced, Expired, Rejected, Discarded, Quarantined, Held, Aborted, Unknown}

// NoInt marks an integer column as absent (SQL NULL).
const NoInt = math.MinInt64

// NoFloat marks a float column as absent (SQL NULL); test with math.IsNaN.
var NoFloat = math.NaN()

// ID identifies a row: 6 bytes of Unix milliseconds of the first line, big
// endian, then 10 bytes of hash. It sorts by time, and a replay of the same
// lines gives the same ID.
type ID [16]byte

// MakeID composes an ID from a time in Unix milliseconds and a 128-bit hash,
// of which the upper 80 bits are used.
func MakeID(ms int64, hi, lo uint64) ID {
	var id ID
	if ms < 0 {
		ms = 0
	}
	binary.BigEndian.PutUint64(id[0:8], uint64(ms)<<16)
	binary.BigEndian.PutUint64(id[6:14], hi)
	binary.BigEndian.PutUint16(id[14:16], uint16(lo>>48))
	return id
}

// UnixMilli returns the time in the ID.
func (id ID) UnixMilli() int64 { return int64(binary.BigEndian.Uint64(id[0:8]) >> 16) }

// IsZero reports whether the ID is unset.
func (id ID) IsZero() bool { return id == ID{} }

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads the 32 hexadecimal digits that String writes.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 32 {
		return id, fmt.Errorf("row id %q: want 32 hexadecimal digits", s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return id, fmt.Errorf("row id %q: want 32 hexadecimal digits", s)
	}
	return id, nil
}

// Day names the day table of a time in Unix milliseconds: 20261123, in UTC.
func Day(ms int64) string { return time.UnixMilli(ms).UTC().Format("20060102") }

// Row is one row of the flat maillog. Strings are empty, integers NoInt and
// floats NaN where the log does not say. Text is as the log has it, without
// the angle brackets of addresses and message ids; it is untrusted.
type Row struct {
	ID       ID
	TS       int64 // first line, Unix milliseconds
	TSFinal  int64 // when the outcome became final, Unix milliseconds; 0 while open
	Kind     string
	Dir      string // column direction
	Outcome  string
	Complete bool   // nothing is missing between the first line and the last
	Evidence string // how legs were joined, and what is missing

	HostIn, InstanceIn, QIDIn string // where it came in
	HostFilter                string // where Amavis ran
	HostOut, QIDOut           string // where it went out

	ClientIP, ClientName, ClientPort string
	Helo, Proto, TLS, SASLUser       string
	Country                          string

	Sender, SenderDomain string
	Rcpt, RcptDomain     string
	OrigTo               string
	MsgID, Subject       string
	Size, NRcpt          int64 // bytes; recipients of the whole mail

	Stage    string // rejects and aborts: CONNECT EHLO MAIL RCPT DATA END-OF-MESSAGE ...
	SMTPCode int64
	DSN      string // enhanced status code, RFC 3463
	Reason   string // the last word: our reject, or the remote server's

	Verdict    string // Amavis: CLEAN SPAM SPAMMY BANNED INFECTED UNCHECKED ...
	Score      float64
	MailID     string // Amavis mail_id
	Quarantine string
	Policy     string // Amavis policy banks
	ScanMS     int64  // milliseconds

	Relay, RelayIP, RemoteQID                          string
	Attempts                                           int64
	Delay, DelayBefore, DelayQueue, DelayConn, DelayTx float64 // seconds, as Postfix logs them
	TotalMS, DeliveryMS                                int64   // milliseconds

	ParentID ID // the mail whose bounce or notice this is
	Lines    int64
}

// Clear resets r to a row in which nothing is known.
func (r *Row) Clear() { *r = blank }

var blank = Row{
	Size: NoInt, NRcpt: NoInt, SMTPCode: NoInt, Score: NoFloat, ScanMS: NoInt, Attempts: NoInt,
	Delay: NoFloat, DelayBefore: NoFloat, DelayQueue: NoFloat, DelayConn: NoFloat, DelayTx: NoFloat,
	TotalMS: NoInt, DeliveryMS: NoInt,
}

// Domain returns what follows the last @ of an address, in lower case, or "".
func Domain(addr string) string {
	plain := true // ASCII without capitals: nothing to lower
	for i := len(addr) - 1; i >= 0; i-- {
		switch c := addr[i]; {
		case c == '@':
			if plain {
				return addr[i+1:]
			}
			return strings.ToLower(addr[i+1:])
		case c >= 0x80 || c-'A' < 26:
			plain = false
		}
	}
	return ""
}
