package trace

import "time"

// logClock is the clock of timers, in microseconds since its first line. It
// follows the log's time stamps but never goes back. A step of more than an
// hour, either way, is believed only when stepConfirm lines in a row agree:
// one host with a wrong clock must not expire the others' mails, and a log
// that follows after a night must not be waited for.
//
// While no lines come it follows the wall for a while (idle). It is then ahead
// of the log, which catches up before it moves on: no time counts twice.
type logClock struct {
	now  int64 // monotonic
	log  int64 // the same by lines alone: now, but for what idle has added
	ref  int64 // log time that log now stands for
	odd  int   // lines in a row that are more than an hour off
	next int64 // now at which expire is due again
}

const (
	stepLimit   = 3600 * 1_000_000
	stepConfirm = 64
	expireEvery = 1_000_000
)

// step takes a line's time and reports whether timers are due for a look.
func (c *logClock) step(us int64) bool {
	d := us - c.ref
	switch {
	case c.ref == 0:
		c.ref = us
	case d > stepLimit || d < -stepLimit:
		if c.odd++; c.odd >= stepConfirm {
			if d > 0 {
				c.log += d
			}
			c.ref, c.odd = us, 0
		}
	case d > 0:
		c.log += d
		c.ref = us
		c.odd = 0
	default:
		c.odd = 0
	}
	return c.reach(c.log)
}

// idle lets the clock run to d after the last line, and reports whether timers
// are due for a look.
func (c *logClock) idle(d int64) bool {
	if c.ref == 0 {
		return false
	}
	return c.reach(c.log + d)
}

func (c *logClock) reach(us int64) bool {
	c.now = max(c.now, us)
	if c.now < c.next {
		return false
	}
	c.next = c.now + expireEvery
	return true
}

// idleSlack is how much later than the log's time the wall's runs the timers:
// lines that took so long more than the one before are not late.
const idleSlack = 5 * 1_000_000

// Idle tells that no line has come for d, by a monotonic clock; call it again
// and again while that grows. The timers of what is done run, so that its
// rows become final without a line: late lines are waited for as long as they
// would be while lines come. That is the bound, too: a log that says nothing for
// longer may have lost its way here, and what waits for lines that ought to
// come, the other end of an edge above all, goes on waiting.
//
// The rows are those of a replay of the same lines in the same order, if
// none of them came late and no clock of the log's made a step.
func (t *Tracer) Idle(d time.Duration) {
	if t.settleDown(); t.err != nil {
		return
	}
	most := t.opt.Linger.Microseconds() + endedLinger + 2*expireEvery
	defer t.makeRoom()
	if us := min(d.Microseconds()-idleSlack, most); us > 0 && t.clock.idle(us) {
		t.expire()
	}
}

// The queues of open things, each in the order of last touch.
const (
	qSession = iota // open sessions
	qEnded          // sessions that ended, held for late lines
	qActive         // legs under way
	qDone           // legs that are done, held for late lines
	qExpect         // done legs that wait for the other end of an edge
	qMaybe          // done legs whose scan may come in a log yet to be read
	qParked         // done legs whose chain is not
	qScan           // scans without a leg
	qRefused        // refused mails that wait for their verdict
	qNote           // what Dovecot said of mails not yet handed over
	qFront          // sessions that wait for the mail behind a before-queue filter
	qOpen           // legs of which only client= is known
	qWaiting        // undelivered legs without a line for a while
	queueCount
)

// item makes a thing a member of one queue, and of the lists of what has
// changed.
type item struct {
	prev, next *item
	q          *queue
	at         int64 // logClock.now when last touched
	thing      any   // *leg, *session, *scan, *note, *refusal, *front

	serial  uint64
	base    *base // the value of the state, of mails put aside, that it came from
	stored  bool  // in the state of an earlier Changes
	dirtyAt int32 // place in Tracer.dirt, from 1: changed since the last Changes
	freshAt int32 // place in Tracer.news, from 1: rows would differ from what was put
}

// dirty notes that Changes has something to save.
func (t *Tracer) dirty(it *item) {
	if it.dirtyAt == 0 {
		t.dirt = append(t.dirt, it)
		it.dirtyAt = int32(len(t.dirt))
	}
}

// fresh notes that Sync has rows to put. A tracer that goes on with the saved
// state has to know that, too.
func (t *Tracer) fresh(it *item) {
	if it.freshAt == 0 {
		t.dirty(it)
		t.news = append(t.news, it)
		it.freshAt = int32(len(t.news))
	}
}

// shown takes an item off the list of Sync.
func (t *Tracer) shown(it *item) {
	if it.freshAt == 0 {
		return
	}
	n := len(t.news) - 1
	t.news[it.freshAt-1] = t.news[n]
	t.news[n].freshAt = it.freshAt
	t.news[n], t.news = nil, t.news[:n]
	it.freshAt = 0
}

// unlist takes an item off both lists.
func (t *Tracer) unlist(it *item) {
	t.shown(it)
	if it.dirtyAt == 0 {
		return
	}
	n := len(t.dirt) - 1
	t.dirt[it.dirtyAt-1] = t.dirt[n]
	t.dirt[n].dirtyAt = it.dirtyAt
	t.dirt[n], t.dirt = nil, t.dirt[:n]
	it.dirtyAt = 0
}

// queue is a doubly linked list, oldest first.
type queue struct {
	head, tail *item
	n          int
	which      int
}

func (q *queue) remove(it *item) {
	if it.prev != nil {
		it.prev.next = it.next
	} else {
		q.head = it.next
	}
	if it.next != nil {
		it.next.prev = it.prev
	} else {
		q.tail = it.prev
	}
	it.prev, it.next, it.q = nil, nil, nil
	q.n--
}

// put moves an item to the end of queue which.
func (t *Tracer) put(it *item, which int) {
	q := &t.byQueue[which]
	it.at = t.clock.now
	if it.q == q && q.tail == it {
		return
	}
	if it.q != nil {
		it.q.remove(it)
	}
	it.prev, it.q = q.tail, q
	if q.tail != nil {
		q.tail.next = it
	} else {
		q.head = it
	}
	q.tail = it
	q.n++
}

// insert puts an item where its time belongs in queue which.
func (t *Tracer) insert(it *item, which int, at int64) {
	q := &t.byQueue[which]
	if it.q != nil {
		it.q.remove(it)
	}
	it.at, it.q = at, q
	after := q.tail // the item before it
	if q.head != nil && q.head.at > at {
		after = nil
	}
	for after != nil && after.at > at {
		after = after.prev
	}
	it.prev = after
	if after != nil {
		it.next, after.next = after.next, it
	} else {
		it.next, q.head = q.head, it
	}
	if it.next != nil {
		it.next.prev = it
	} else {
		q.tail = it
	}
	q.n++
}

func (t *Tracer) unqueue(it *item) {
	if it.q != nil {
		it.q.remove(it)
	}
}

// eachDue calls f for the items of a queue, oldest first, that are older than
// age (microseconds) by a clock, or more than limit. f takes each out of the
// queue or makes it young.
func (t *Tracer) eachDue(which int, clock, age int64, limit int, f func(*item)) {
	q := &t.byQueue[which]
	for q.head != nil && (clock-q.head.at > age || limit > 0 && q.n > limit) {
		f(q.head)
	}
}
