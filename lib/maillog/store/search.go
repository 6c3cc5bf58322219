package store

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

const (
	// maxSpan is how many ids of a day an index may give without order, for a
	// network of clients. If there are more, rows are so frequent that reading
	// the day in order finds them soon.
	maxSpan = 10000

	pageRows = 256   // rows read in one transaction
	pageLook = 20000 // rows looked at in one transaction

	// pageTime is after what time a transaction ends where the search is not
	// yet: a database keeps what a reader may still see, and its table cannot
	// be altered.
	pageTime = 2 * time.Second
)

// Result is what a search finds.
type Result struct {
	ctx  context.Context
	db   *DB
	c    *compiled
	next flat.ID
}

// Search looks for rows. Nothing is read before Result.All.
func (db *DB) Search(ctx context.Context, q *Query) (*Result, error) {
	c, err := db.compile(q)
	if err != nil {
		return nil, err
	}
	return &Result{ctx: ctx, db: db, c: c}, nil
}

// Next is, once All has ended, the cursor of the next page: Query.After. It is
// zero if the last row has been found; otherwise there may be more.
func (r *Result) Next() flat.ID { return r.next }

// All goes over the rows found, in order of id. It ends after an error. The
// rows are the caller's.
//
// Rows are read a page at a time, each page in a transaction of its own: a
// reader that is slow to go on keeps no lock, and rows that come meanwhile
// change nothing about those before them.
func (r *Result) All() iter.Seq2[*flat.Row, error] {
	return func(yield func(*flat.Row, error) bool) {
		c := *r.c
		r.next = flat.ID{}
		left := c.q.Limit
		for !c.none {
			want := pageRows
			if c.q.Limit > 0 {
				want = min(want, left)
			}
			p, err := r.db.page(r.ctx, &c, want)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, row := range p.rows {
				r.next = row.ID
				if !yield(row, nil) {
					return
				}
			}
			left -= len(p.rows)
			if c.q.Limit > 0 && left == 0 {
				return
			}
			c.goOn(p)
			if p.ended {
				break
			}
		}
		r.next = flat.ID{}
	}
}

// page is what one transaction finds.
type page struct {
	rows  []*flat.Row
	seen  flat.ID // the last id that was looked at
	edge  flat.ID // nothing before it, in the order of the search, is left; zero: not known
	ended bool    // there is nothing more
	look  int     // how many more rows may be looked at
	want  int     // how many more rows are wanted
	until time.Time
}

func (p *page) full() bool { return p.want <= 0 || p.look <= 0 }

// passed notes an edge, and says whether there is time to go on.
func (p *page) passed(edge flat.ID) bool {
	p.edge = edge
	return edge.IsZero() || time.Now().Before(p.until)
}

// goOn moves the bounds behind what a page has seen.
func (c *compiled) goOn(p *page) {
	seen := !p.seen.IsZero()
	switch edge := !p.edge.IsZero(); {
	case c.q.OldestFirst:
		if seen {
			c.from = maxID(c.from, successor(p.seen))
		}
		if edge {
			c.from = maxID(c.from, p.edge)
		}
	default:
		if _, to := c.bounds(); seen {
			c.to = minID(to, p.seen)
		}
		if _, to := c.bounds(); edge {
			c.to = minID(to, p.edge)
		}
	}
}

// edge is what the bounds are after a day.
func (c *compiled) edge(day string) flat.ID {
	first, end := dayBounds(day)
	switch {
	case !c.q.OldestFirst:
		return first
	case end == lastID: // or not known
		return flat.ID{}
	}
	return end
}

func (db *DB) page(ctx context.Context, c *compiled, want int) (*page, error) {
	var p *page
	err := db.b.read(ctx, func(s session) error {
		p = &page{look: pageLook, want: want, until: time.Now().Add(pageTime)}
		for _, day := range c.daysOf(s.days()) {
			if err := c.day(s, day, p); err != nil {
				return err
			}
			if p.full() || !p.passed(c.edge(day)) {
				return nil
			}
		}
		p.ended = true
		return nil
	})
	return p, err
}

// daysOf picks the days that the bounds touch, in the order of the search.
func (c *compiled) daysOf(days []string) []string {
	first := dayOfID(c.from)
	lo, _ := slices.BinarySearch(days, first)
	hi := len(days)
	if !c.to.IsZero() {
		var found bool
		day := dayOfID(c.to)
		if hi, found = slices.BinarySearch(days, day); found {
			if begin, _ := dayBounds(day); less(begin, c.to) {
				hi++
			}
		}
	}
	if lo >= hi {
		return nil
	}
	picked := slices.Clone(days[lo:hi])
	if !c.q.OldestFirst {
		slices.Reverse(picked)
	}
	return picked
}

// day looks through one day.
func (c *compiled) day(s session, day string, p *page) error {
	look := func(r rawRow) bool {
		c.take(r, p)
		return !p.full()
	}
	for i := range c.arms {
		if !s.has(day, c.arms[i].index) {
			return s.scan(c, day, p.want, look, p.passed)
		}
	}
	switch {
	case len(c.arms) == 0:
		return s.scan(c, day, p.want, look, p.passed)
	case c.arms[0].ordered:
		return c.fetch(s, day, p, s.ids(c, day, p.want))
	}
	ids, err := s.span(c, day)
	if err != nil {
		return err
	}
	if len(ids) > maxSpan {
		return s.scan(c, day, p.want, look, p.passed)
	}
	c.sort(ids)
	return c.fetch(s, day, p, func(yield func(flat.ID, error) bool) {
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	})
}

// sort puts ids in the order of the search.
func (c *compiled) sort(ids []flat.ID) {
	slices.SortFunc(ids, func(a, b flat.ID) int {
		if c.q.OldestFirst {
			return slices.Compare(a[:], b[:])
		}
		return slices.Compare(b[:], a[:])
	})
}

// fetch reads the rows of ids.
func (c *compiled) fetch(s session, day string, p *page, ids iter.Seq2[flat.ID, error]) error {
	var failed error
	plain := func(yield func(flat.ID) bool) {
		for id, err := range ids {
			if failed = err; err != nil || !yield(id) {
				return
			}
		}
	}
	err := s.rows(c, day, p.want, plain, func(id flat.ID, r rawRow) bool {
		if p.seen = id; r == nil {
			p.look--
		} else {
			c.take(r, p)
		}
		return !p.full()
	})
	if err == nil {
		err = failed
	}
	return err
}

// take looks at a row that a database gives. No row reaches anybody but
// through here.
func (c *compiled) take(r rawRow, p *page) {
	p.look--
	if len(c.words) > 0 && !c.rawWords(r) {
		p.seen = r.id()
		return
	}
	row := r.row()
	p.seen = row.ID
	if row = c.tenant.view(row); row == nil || !c.match(row) {
		return
	}
	p.rows = append(p.rows, row)
	p.want--
}

// rawWords is matchWords before a row is read: what it refuses cannot match.
func (c *compiled) rawWords(r rawRow) bool {
	for _, w := range c.words {
		if !slices.ContainsFunc(textOf, func(i int) bool { return containsFold(r.text(i), w) }) {
			return false
		}
	}
	return true
}
