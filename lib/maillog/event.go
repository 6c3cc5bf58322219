// Package maillog turns one line of a mail log into one typed Event.
//
// It holds no state beyond what the reading of a year-less time stamp needs,
// does no I/O, allocates nothing a line, and never fails: a line is an event
// worth correlating (Used), known and of no use (Noise), a mail program's
// line in a shape not known (Unparsed), or no syslog line at all (Foreign).
// Which text belongs to which program and version is said beside each parser,
// with the Postfix source file or manual page it was taken from.
package maillog

// Class says what became of a line.
type Class uint8

// Classes. Lines in = Used + Noise + Unparsed + Foreign.
const (
	Foreign  Class = iota // not a syslog line
	Unparsed              // a mail program's line in a shape not known
	Noise                 // known, and of no use to the flat maillog
	Used                  // an event for package trace
)

// Kind is what an event says.
type Kind uint8

// Kinds of event. Those from KindInfo on carry fields but no state.
const (
	KindNone Kind = iota

	// smtpd sessions (src/smtpd/smtpd.c)
	KindConnect    // connect from
	KindDisconnect // disconnect from, with Counters since 3.0
	KindLost       // lost connection, timeout, too many errors ... after Stage
	KindTLS        // TLS connection established from the client
	KindAuthFailed // SASL authentication failed
	KindAbuse      // non-SMTP command, improper pipelining, bare newline: Text says which

	// queue files
	KindClient   // client=
	KindPickup   // uid= (sendmail submission)
	KindMsgID    // message-id=
	KindQueued   // from=, size=, nrcpt= (queue active)
	KindExpired  // status=expired or force-expired
	KindDelivery // to=, relay=, status=
	KindRemoved  // removed, by qmgr or (Daemon) postsuper
	KindCanceled // removed (canceled), removed (discarded): cleanup, 3.10
	KindHeld     // postsuper: placed on hold
	KindReleased // postsuper: released from hold
	KindRequeued // postsuper: requeued
	KindNotify   // bounce: NewQID is a notice about QID
	KindLegNote  // any other line with a queue id: it belongs to the mail and changes nothing

	// policy
	KindReject  // reject, milter-reject, header and body rejects
	KindHold    // hold action, milter-hold
	KindDiscard // discard action, milter-discard
	KindCheck   // warn, info, filter, redirect, replace ...: no outcome of its own
	KindProxy   // proxy-accept, proxy-reject

	// postscreen
	KindScreenConnect
	KindScreenPass       // PASS OLD, PASS NEW, ALLOWLISTED
	KindScreenViolation  // PREGREET, HANGUP, DNSBL ...: Action
	KindScreenDisconnect // DISCONNECT

	// content
	KindAmavis     // Passed or Blocked, whole
	KindAmavisPart // a piece of a record that Amavis cut
	KindDovecot    // LMTP, LDA and Sieve outcomes

	// fields without state, class Noise
	KindInfo
)

// Daemon is the program that logged, as far as it matters.
type Daemon uint8

// Daemons. DaemonUnknown is Postfix where the ident does not tell which.
const (
	DaemonNone Daemon = iota
	DaemonUnknown
	Smtpd
	Cleanup
	Qmgr
	Pickup
	Bounce
	Delivery // smtp, lmtp, local, virtual, pipe, error, retry, discard
	Postscreen
	Postsuper
	OtherPostfix
	Amavis
	Dovecot
)

// Status is what a delivery agent said of a recipient.
type Status uint8

// Delivery statuses, src/global/log_adhoc.c and its callers.
const (
	StatusNone Status = iota
	StatusSent
	StatusDeferred
	StatusBounced
	StatusExpired
	StatusDeliverable   // address probe
	StatusUndeliverable // address probe
	StatusOther         // a word that this version does not know
)

// Counter is one "name=accepted/all" pair of a disconnect line; where Postfix
// writes one number both are equal.
type Counter struct{ OK, All int32 }

// Counters are those of a disconnect line that decide outcomes. Seen is false
// before Postfix 3.0, which logs none.
type Counters struct {
	Seen                   bool
	Auth, Mail, Rcpt, Data Counter // Data is DATA and BDAT
	Quit, Commands         Counter
}

// Event is one parsed line. Byte slices point into the line and live as long
// as it; nil means absent, empty means the line says it is empty (from=<>).
type Event struct {
	Fields
	Scan Scan // KindAmavis, KindAmavisPart

	scanSet bool
}

// Fields is an Event but for its Scan, which few lines have and which is
// therefore cleared only where it was set.
type Fields struct {
	Class Class
	Kind  Kind

	// header
	Time     int64 // Unix microseconds, UTC
	Coarse   bool  // the time stamp has whole seconds only
	Host     []byte
	Tag      []byte // ident as logged, without [pid]
	Instance []byte // first path element of the ident: syslog_name
	Program  []byte // last path element
	Daemon   Daemon
	PID      int64
	Source   uint64 // names the combination of Host, Tag and PID while the process runs; 0: not known
	Repeat   int    // how often the message was said, 1 unless a repeat counter says more
	Msg      []byte

	QID     []byte
	NoQueue bool // NOQUEUE

	Action []byte // the word before the colon, or the violation's name
	Stage  []byte
	Code   int    // SMTP reply code, 0 if none
	DSN    []byte // enhanced status code
	Text   []byte // reason

	ClientName, ClientIP, ClientPort      []byte
	Sender, Rcpt, OrigTo                  []byte
	Helo, Proto                           []byte
	SASLMethod, SASLUser                  []byte
	OrigQID, OrigClientName, OrigClientIP []byte
	TLSProto, TLSCipher                   []byte
	MsgID, Subject                        []byte
	Size                                  int64 // bytes, -1 if absent
	NRcpt                                 int64 // -1 if absent

	Relay, RelayName, RelayIP, RelayPort []byte
	Delay                                int64    // microseconds, -1 if absent
	Delays                               [4]int64 // before queue manager, in it, connection, transmission; Delays[0] -1 if absent
	Status                               Status
	StatusWord                           []byte
	RemoteQID                            []byte // queue id in the relay's reply
	FromMTA                              bool   // the reply is a content filter's that passes on its own next hop's
	AmID                                 []byte // Amavis log id in the reply
	Session                              []byte // Dovecot's session id, in its lines and in its LMTP reply

	NewQID []byte // KindNotify, "forwarded as"
	Notice []byte // KindNotify: "sender non-delivery notification"

	Counters Counters
}

// Scan is an Amavis verdict, amavisd 2.6 to 2.13 ($log_templ,
// $log_verbose_templ and $log_recip_templ).
type Scan struct {
	AmID       []byte
	PerRcpt    bool   // a line of $log_recip_templ
	Passed     bool   // Passed, else Blocked
	Verdict    []byte // CLEAN, SPAM, BANNED ...
	Detail     []byte // what was found: "BANNED (x.exe)" -> x.exe
	Actions    []byte // DiscardedInbound,Quarantined
	Policy     []byte
	Rcpts      []byte // "<a>,<b>" as logged: see NextRcpt
	Quarantine []byte
	QueueID    []byte
	MailID     []byte
	Score      float64 // NaN if absent or "-"
	QueuedAs   []byte  // "Q1/Q2"
	MS         int64   // -1 if absent
	Part       []byte  // KindAmavisPart: the text
	Head, More bool    // KindAmavisPart: it begins a record; it goes on
}

// reset clears what an earlier line left.
func (ev *Event) reset() {
	if ev.scanSet {
		ev.Scan, ev.scanSet = Scan{}, false
	}
	ev.Fields = Fields{} // by itself: a literal would be made elsewhere and copied
	ev.Repeat, ev.Size, ev.NRcpt, ev.Delay = 1, -1, -1, -1
	ev.Delays = [4]int64{-1, -1, -1, -1}
}

// NextRcpt takes the first address off an Amavis recipient list.
func NextRcpt(list []byte) (addr, rest []byte, ok bool) {
	if len(list) == 0 || list[0] != '<' {
		return nil, nil, false
	}
	for i := 1; i < len(list); i++ {
		if list[i] == '>' && (i+1 == len(list) || list[i+1] == ',' && i+2 < len(list) && list[i+2] == '<') {
			if i+1 == len(list) {
				return list[1:i], nil, true
			}
			return list[1:i], list[i+2:], true
		}
	}
	return list[1:], nil, true
}
