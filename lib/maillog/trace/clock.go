package trace

// logClock is the clock of timers, in microseconds since its first line. It
// follows the log's time stamps but never goes back. A step of more than an
// hour, either way, is believed only when stepConfirm lines in a row agree:
// one host with a wrong clock must not expire the others' mails, and a log
// that follows after a night must not be waited for.
type logClock struct {
	now  int64 // monotonic
	ref  int64 // log time that now stands for
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
				c.now += d
			}
			c.ref, c.odd = us, 0
		}
	case d > 0:
		c.now += d
		c.ref = us
		c.odd = 0
	default:
		c.odd = 0
	}
	if c.now >= c.next {
		c.next = c.now + expireEvery
		return true
	}
	return false
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

// item makes a thing a member of one queue.
type item struct {
	prev, next *item
	q          *queue
	at         int64 // logClock.now when last touched
	thing      any   // *leg, *session, *scan, *refusal
}

// queue is a doubly linked list, oldest first.
type queue struct {
	head, tail *item
	n          int
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

func (t *Tracer) unqueue(it *item) {
	if it.q != nil {
		it.q.remove(it)
	}
}

// eachDue calls f for the items of a queue, oldest first, that are older than
// age (microseconds) or more than limit. f takes each out of the queue or
// makes it young.
func (t *Tracer) eachDue(which int, age int64, limit int, f func(*item)) {
	q := &t.byQueue[which]
	for q.head != nil && (t.clock.now-q.head.at > age || limit > 0 && q.n > limit) {
		f(q.head)
	}
}
