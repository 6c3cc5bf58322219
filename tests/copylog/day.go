package copylog

import (
	"container/heap"
	"math"
	"time"
)

// PerCopy is how many mails of a Day beside each copy wait, for minutes to
// hours, before they are sent.
const PerCopy = 10

// Day gives the lines of many copies in the order of their times, as a cluster
// logs them in a day: the copies begin close to each other when the day is
// busy, and overlap.
type Day struct {
	t      *Template
	copies int
	from   time.Time
	begun  int
	open   running
	buf    []byte

	waiting, most int
}

// NewDay makes a day from midnight on, UTC.
func (t *Template) NewDay(midnight time.Time, copies int) *Day {
	return &Day{t: t, copies: copies, from: midnight}
}

// Next is the next line, valid until the next call; nil after the last.
func (d *Day) Next() []byte {
	for d.begun < d.copies && (len(d.open) == 0 || !d.begins(d.begun).After(d.open[0].at())) {
		d.begin()
	}
	if len(d.open) == 0 {
		return nil
	}
	p := d.open[0]
	d.buf = p.append(d.buf[:0])
	if p.next() {
		heap.Fix(&d.open, 0)
		return d.buf
	}
	heap.Pop(&d.open)
	if _, ok := p.(*waitingMail); ok {
		d.waiting--
	}
	return d.buf
}

// begin begins the next copy, and the mails beside it.
func (d *Day) begin() {
	at := d.begins(d.begun)
	c := &aCopy{t: d.t, no: d.begun, ids: d.t.rename(d.begun), shift: at.Sub(d.t.times[0]), when: at}
	heap.Push(&d.open, c)
	for i := range PerCopy {
		no := d.begun*PerCopy + i
		begin := at.Add(time.Duration(i) * time.Second)
		heap.Push(&d.open, &waitingMail{no: no, begin: begin, end: begin.Add(time.Duration(5+no*7919%1195) * time.Minute)})
		d.waiting++
	}
	d.most = max(d.most, d.waiting)
	d.begun++
}

// Most is how many mails waited at most.
func (d *Day) Most() int { return d.most }

// begins is when a copy begins. The load is least at four in the morning, a
// ninth of what it is at four in the afternoon.
func (d *Day) begins(no int) time.Time {
	part := float64(no) / float64(d.copies)
	lo, hi := 0.0, 1.0 // of the day, by halves: what is before has no inverse of its own
	for range 50 {
		mid := (lo + hi) / 2
		if before(mid) < part {
			lo = mid
		} else {
			hi = mid
		}
	}
	return d.from.Add(time.Duration(lo * float64(24*time.Hour)))
}

// before is how much of a day's load comes before a part of the day.
func before(x float64) float64 {
	const depth, least = 0.8, 4.0 / 24
	wave := func(x float64) float64 { return math.Sin(2 * math.Pi * (x - least)) }
	return x - depth/(2*math.Pi)*(wave(x)-wave(0))
}

// part is a copy, or a mail that waits: something that has lines.
type part interface {
	at() time.Time // of its next line
	append(buf []byte) []byte
	next() bool
}

// running are parts that have begun, by the time of their next line.
type running []part

func (r running) Len() int           { return len(r) }
func (r running) Less(i, j int) bool { return r[i].at().Before(r[j].at()) }
func (r running) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *running) Push(x any)        { *r = append(*r, x.(part)) }
func (r *running) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

// aCopy is a copy of the template.
type aCopy struct {
	t        *Template
	no, line int
	when     time.Time
	shift    time.Duration
	ids      [][]byte
}

func (c *aCopy) at() time.Time { return c.when }

func (c *aCopy) append(buf []byte) []byte { return c.t.append(buf, c.line, c.when, false, c.no, c.ids) }

func (c *aCopy) next() bool {
	if c.line++; c.line == len(c.t.lines) {
		return false
	}
	// A log's lines are not quite in the order of their times; no copy may go
	// back behind the others.
	if at := c.t.times[c.line].Add(c.shift); at.After(c.when) {
		c.when = at
	}
	return true
}
