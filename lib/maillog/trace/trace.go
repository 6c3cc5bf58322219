// Package trace finds the mails in a mail log: it takes events (package
// maillog) in any order that syslog can bring them in and gives out flat rows
// (package flat).
//
// What it holds. A session is one smtpd(8) process and one client, or one
// postscreen(8) connection. A leg is one queue file: host and queue id, and
// the incarnation, because short queue ids come again. A scan is one Amavis
// verdict. Legs are joined to chains by edges, each with its evidence, in
// this order of trust: orig_queue_id; the Queue-ID and queued_as of Amavis;
// "queued as" in a relay's reply where that queue id is known here; forward,
// requeue and before-queue filter lines. An edge whose other end has not been
// seen waits for it. A bounce or notice is not joined, it names its parent.
//
// What comes out. A reject is a row at once. A chain gives one row for each
// final recipient; a session that broke off gives one for the open
// transaction, or for itself. A row is put again whenever it changes, under
// the same id, and withdrawn when it turns out to belong to another mail.
//
// What bounds it. Everything open sits in a queue with an age and the whole
// has a cap (Options); what runs out of either becomes a row that says it is
// incomplete, and a counter. What has had no line for a while is put aside: it
// costs a hundred bytes of memory then, and a kilobyte on the Shelf. The clock
// is the log's: it moves by the steps between lines, ignores a single host's
// wild ones, and never runs backwards, so that a replay gives the same rows and
// an old file does no harm. While no lines come, Idle lets it go on for less
// than a minute, so that what is done becomes final.
//
// What happens on restart. Changes gives the open state that changed since
// the last call, as opaque values by key, to be committed together with the
// rows and the input position; Restore takes them back. A tracer that goes on
// with them gives the rows that the one before would have given: all that its
// decisions depend on is in the state, ages and the order of things too. Only
// lines that come more than six minutes after their mail was done look like
// another mail then.
package trace

import (
	"net/netip"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// Options are what the log does not say, and the bounds. Zero values get the
// defaults.
type Options struct {
	OwnNetworks   []netip.Prefix // clients there send for us: direction out
	OutgoingHosts []string       // hosts or instances that take mail from inside only: direction out
	FilterRelays  []string       // host:port of content filters whose "queued as" names a leg of ours

	Linger      time.Duration // for late lines after a mail is done: 30 s
	Expect      time.Duration // for the other end of an edge: 15 min
	SessionIdle time.Duration // a session without disconnect: 6 h (smtpd's watchdog takes 5)
	LegAge      time.Duration // an undelivered mail without a line: 6 days
	Parts       time.Duration // for the pieces of a cut Amavis record: 10 s

	MaxSessions int // 200,000
	MaxLegs     int // open queue files, those put aside too: 600,000, for 200,000 mails of up to three
	MaxAtHand   int // of them in memory, if they cannot be put aside: 200,000
	MaxActive   int // of them under way; those that rest are put aside early if there are more: 4,096
	MaxScans    int // 50,000
	MaxLinger   int // complete mails held back for late lines: 16,384
	MaxRejects  int // rows for one session: 500
	MaxRcpts    int // of one leg: 10,000

	Shelf Shelf // for mails that wait; nil keeps them in memory
}

func (o *Options) defaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	num := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&o.Linger, 30*time.Second)
	def(&o.Expect, 15*time.Minute)
	def(&o.SessionIdle, 6*time.Hour)
	def(&o.LegAge, 6*24*time.Hour)
	def(&o.Parts, 10*time.Second)
	num(&o.MaxSessions, 200_000)
	num(&o.MaxLegs, 600_000)
	num(&o.MaxAtHand, 200_000)
	num(&o.MaxActive, 4096)
	num(&o.MaxScans, 50_000)
	num(&o.MaxLinger, 16_384)
	num(&o.MaxRejects, 500)
	num(&o.MaxRcpts, 10_000)
	if o.Shelf == nil {
		o.Shelf = &memShelf{}
	}
}

// Sink takes the rows.
type Sink interface {
	// Put inserts a row or replaces the one with its id. The row and its
	// strings live only as long as the call.
	Put(r *flat.Row)
	// Delete withdraws a row put before.
	Delete(id flat.ID)
}

// Tracer correlates events. It is not safe for concurrent use.
type Tracer struct {
	opt     Options
	sink    Sink
	stats   Stats
	key     hashKey
	clock   logClock
	outHost map[string]bool
	filters map[string]bool
	amavis  bool // an Amavis has been seen: its verdicts can be expected
	dovecot bool // a Dovecot has been seen

	nodes   map[string]*node
	recent  [256]*node
	sources [512]struct {
		id uint64
		n  *node
	}
	legs     map[uint64]*leg // by hash of the queue id; leg.next for others with it
	sessions map[uint64]*session
	scans    map[uint64]*scan
	wait     map[uint64][]waiter
	refused  map[uint64]*refusal
	tombs    tombs

	coder     coder
	restoring bool // since Restore
	hasKey    bool // restored
	newOwner  bool
	pending   []saved
	saving    bool // Changes are asked for
	graves    []grave
	dead      []tomb // since the last Changes
	err       error

	shelf    shelved
	again    []retry
	peaks    [4]int
	noShelf  bool // it is full
	shelfErr error
	link     *linker
	group    []*leg
	keys     []uint64
	copied   []copied
	parted   []*base
	found    []uint32
	taken    []byte // as read from the shelf

	byQueue [queueCount]queue
	dirt    []*item // what Changes has to save
	news    []*item // what Sync has to look at
	later   []*item // for the next Sync
	nlegs   int
	keep    *leg // not to be evicted: it has just had a line
	serial  uint64
	meta    []byte   // as last saved
	gone    [][]byte // keys of persisted objects that are no more

	freeLegs []*leg
	freeSess []*session
	freeScan []*scan
	row      flat.Row
	text     []byte // evidence of the row being built
	ids      []flat.ID
	depth    int // of rowsOf
	part     maillog.Event
}

// New returns a tracer that gives its rows to sink.
func New(opt Options, sink Sink) *Tracer {
	opt.defaults()
	t := &Tracer{
		opt: opt, sink: sink, key: newHashKey(),
		outHost: map[string]bool{}, filters: map[string]bool{},
		nodes: map[string]*node{}, legs: map[uint64]*leg{}, sessions: map[uint64]*session{},
		scans: map[uint64]*scan{}, wait: map[uint64][]waiter{}, refused: map[uint64]*refusal{},
	}
	t.link = newLinker(t)
	t.coder.t = t
	for i := range t.byQueue {
		t.byQueue[i].which = i
	}
	for _, h := range opt.OutgoingHosts {
		t.outHost[h] = true
	}
	for _, r := range opt.FilterRelays {
		t.filters[r] = true
	}
	return t
}

// Add takes one event. Events that are not Used are ignored.
func (t *Tracer) Add(ev *maillog.Event) {
	if ev.Class != maillog.Used {
		return
	}
	if t.settleDown(); t.err != nil {
		return
	}
	t.stats.Events++
	if t.clock.step(ev.Time) {
		t.expire()
	}
	n := t.nodeOf(ev)
	switch ev.Daemon {
	case maillog.Cleanup, maillog.Qmgr, maillog.Pickup, maillog.Bounce:
		t.owns(n)
	}
	t.event(n, ev)
	t.makeRoom()
}

func (t *Tracer) event(n *node, ev *maillog.Event) {
	switch ev.Kind {
	case maillog.KindAmavis, maillog.KindAmavisPart:
		t.amavisEvent(n, ev)
	case maillog.KindDovecot:
		t.dovecotEvent(ev)
	case maillog.KindScreenConnect, maillog.KindScreenPass, maillog.KindScreenViolation, maillog.KindScreenDisconnect:
		t.screenEvent(n, ev)
	case maillog.KindConnect, maillog.KindDisconnect, maillog.KindTLS, maillog.KindAuthFailed, maillog.KindAbuse:
		t.sessionEvent(n, ev)
	case maillog.KindLost:
		t.lost(n, ev)
	case maillog.KindProxy:
		t.proxy(n, ev)
	case maillog.KindReject:
		t.reject(n, ev)
	default:
		if ev.QID != nil {
			t.legEvent(n, ev)
		} else {
			t.noqueueEvent(n, ev)
		}
	}
}

// node is a host and one of its Postfix instances (or its Amavis).
type node struct {
	host, inst string
	hash       uint64 // of host
	instHash   uint64
	owner      bool // it runs a queue: cleanup, qmgr, pickup or bounce logged under it
}

// maxNodes bounds the table of hosts and instances; beyond it nodes are still
// right, but no longer shared.
const maxNodes = 4096

// nodeOf is node, with a short cut for sources that come again.
func (t *Tracer) nodeOf(ev *maillog.Event) *node {
	at := &t.sources[ev.Source%uint64(len(t.sources))]
	if ev.Source != 0 && at.id == ev.Source {
		return at.n
	}
	n := t.node(ev.Host, ev.Instance)
	at.id, at.n = ev.Source, n
	return n
}

func (t *Tracer) node(host, inst []byte) *node {
	h := tail4(host)*31 + tail4(inst) + uint32(len(host))*7 + uint32(len(inst))
	h *= 0x9E3779B1
	at := &t.recent[h>>24]
	if n := *at; n != nil && n.host == string(host) && n.inst == string(inst) {
		return n
	}
	*at = t.nodeNamed(string(host), string(inst))
	return *at
}

// tail4 is the last four bytes, where names differ.
func tail4(b []byte) uint32 {
	if n := len(b); n >= 4 {
		return uint32(b[n-1]) | uint32(b[n-2])<<8 | uint32(b[n-3])<<16 | uint32(b[n-4])<<24
	}
	h := uint32(0)
	for _, c := range b {
		h = h<<8 | uint32(c)
	}
	return h
}

func (t *Tracer) nodeNamed(host, inst string) *node {
	key := host + "\x00" + inst
	if n := t.nodes[key]; n != nil {
		return n
	}
	n := &node{host: host, inst: inst}
	t.hashNode(n)
	if len(t.nodes) < maxNodes {
		t.nodes[key] = n
	}
	return n
}

func (t *Tracer) hashNode(n *node) {
	n.hash, n.instHash = t.hash([]byte(n.host)), mix(t.hash([]byte(n.inst)), 1)
}

func (n *node) same(m *node) bool {
	return n == m || n != nil && m != nil && n.host == m.host && n.inst == m.inst
}

func (t *Tracer) hash(b []byte) uint64 { return t.key.sum(b) }
