package store

import (
	"context"
	"iter"
	"slices"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
)

const (
	// maxSpan is how many ids of a day an index may give without order, for a
	// network of clients. If there are more, rows are so frequent that reading
	// the day in order finds them soon.
	maxSpan = 10000

	pageRows = 256   // rows read in one transaction
	pageLook = 20000 // rows looked at in one transaction
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
	c, err := compile(q)
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
	ended bool    // there is nothing more
	look  int     // how many more rows may be looked at
	want  int     // how many more rows are wanted
}

func (p *page) full() bool { return p.want <= 0 || p.look <= 0 }

// goOn moves the bounds behind what a page has seen.
func (c *compiled) goOn(p *page) {
	switch {
	case p.seen.IsZero():
	case c.q.OldestFirst:
		c.from = successor(p.seen)
	default:
		c.to = p.seen
	}
}

func (db *DB) page(ctx context.Context, c *compiled, want int) (*page, error) {
	var p *page
	err := db.read(ctx, func(r *reader) error {
		p = &page{look: pageLook, want: want}
		for _, day := range c.daysOf(r.schema.days) {
			if err := c.day(r, day, p); err != nil {
				return err
			}
			if p.full() {
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
		if hi, found = slices.BinarySearch(days, dayOfID(c.to)); found {
			hi++
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

// bounds are those of the ids looked for: from <= id < to.
func (c *compiled) bounds(b *binder) {
	b.id(c.from)
	to := c.to
	if to.IsZero() {
		to = flat.MakeID(1<<48-1, ^uint64(0), ^uint64(0))
	}
	b.id(to)
}

// day looks through one day.
func (c *compiled) day(r *reader, day string, p *page) error {
	if len(c.arms) == 0 {
		return c.scan(r, day, p)
	}
	for i := range c.arms {
		if !r.schema.has(day, c.arms[i].index) {
			return c.scan(r, day, p)
		}
	}
	if c.arms[0].ordered {
		return c.merge(r, day, p)
	}
	ids, err := c.spanIDs(r, day)
	if err != nil {
		return err
	}
	if len(ids) > maxSpan {
		return c.scan(r, day, p)
	}
	return c.fetch(r, day, p, slices.Values(ids))
}

// take looks at a row that a statement is on.
func (c *compiled) take(r *reader, s *lite.Stmt, p *page) {
	p.look--
	if len(c.words) > 0 && !c.rawWords(s) {
		copy(p.seen[:], s.Bytes(0))
		return
	}
	row := r.rows.read(s)
	p.seen = row.ID
	if row = c.tenant.view(row); row == nil || !c.match(row) {
		return
	}
	p.rows = append(p.rows, row)
	p.want--
}

// rawWords is matchWords before a row is read: what it refuses cannot match.
func (c *compiled) rawWords(s *lite.Stmt) bool {
	for _, w := range c.words {
		if !slices.ContainsFunc(textOf, func(i int) bool { return containsFold(s.Bytes(i), w) }) {
			return false
		}
	}
	return true
}

// scan reads a day in order of id.
func (c *compiled) scan(r *reader, day string, p *page) error {
	s, err := r.c.Prepare(c.scanSQL(day))
	if err != nil {
		return err
	}
	defer s.Close()
	b := binder{s: s}
	c.bounds(&b)
	b.conds(c.all)
	for _, a := range c.arms {
		b.conds(a.conds)
	}
	for !p.full() {
		more, err := s.Step()
		if err != nil || !more {
			return err
		}
		c.take(r, s, p)
	}
	return nil
}

// spanIDs are the ids that an arm without order gives, put in order; more
// than maxSpan means that there are too many.
func (c *compiled) spanIDs(r *reader, day string) ([]flat.ID, error) {
	st, err := c.openIDs(r, day, &c.arms[0])
	if err != nil {
		return nil, err
	}
	defer st.s.Close()
	var ids []flat.ID
	for {
		if err := st.advance(); err != nil {
			return nil, err
		}
		if !st.more {
			break
		}
		ids = append(ids, st.id)
	}
	slices.SortFunc(ids, func(a, b flat.ID) int {
		if c.q.OldestFirst {
			return slices.Compare(a[:], b[:])
		}
		return slices.Compare(b[:], a[:])
	})
	return ids, nil
}

// idStream are the ids of an arm, one after another.
type idStream struct {
	s    *lite.Stmt
	id   flat.ID
	more bool
}

func (c *compiled) openIDs(r *reader, day string, a *arm) (*idStream, error) {
	s, err := r.c.Prepare(idsSQL(day, a, c.q.OldestFirst))
	if err != nil {
		return nil, err
	}
	b := binder{s: s}
	b.conds(a.conds)
	c.bounds(&b)
	return &idStream{s: s}, nil
}

func (st *idStream) advance() (err error) {
	if st.more, err = st.s.Step(); st.more {
		copy(st.id[:], st.s.Bytes(0))
	}
	return err
}

// merge reads a day by its arms, which all give ids in order.
func (c *compiled) merge(r *reader, day string, p *page) error {
	streams := make([]*idStream, 0, len(c.arms))
	defer func() {
		for _, st := range streams {
			st.s.Close()
		}
	}()
	for i := range c.arms {
		st, err := c.openIDs(r, day, &c.arms[i])
		if err != nil {
			return err
		}
		streams = append(streams, st)
		if err := st.advance(); err != nil {
			return err
		}
	}
	var failed error
	ids := func(yield func(flat.ID) bool) {
		for {
			next := c.first(streams)
			if next == nil {
				return
			}
			id := next.id
			for _, st := range streams { // a row may be found by several
				if st.more && st.id == id {
					if failed = st.advance(); failed != nil {
						return
					}
				}
			}
			if !yield(id) {
				return
			}
		}
	}
	if err := c.fetch(r, day, p, ids); err != nil {
		return err
	}
	return failed
}

// first is the stream whose id comes next.
func (c *compiled) first(streams []*idStream) *idStream {
	var best *idStream
	for _, st := range streams {
		if st.more && (best == nil || less(st.id, best.id) == c.q.OldestFirst) {
			best = st
		}
	}
	return best
}

// fetch reads the rows of ids.
func (c *compiled) fetch(r *reader, day string, p *page, ids iter.Seq[flat.ID]) error {
	var s *lite.Stmt
	defer func() {
		if s != nil {
			s.Close()
		}
	}()
	for id := range ids {
		if s == nil {
			var err error
			if s, err = r.c.Prepare(c.rowSQL(day)); err != nil {
				return err
			}
		}
		if err := c.step(r, s, id, p); err != nil || p.full() {
			return err
		}
	}
	return nil
}

// step reads the row of an id with a statement of rowSQL.
func (c *compiled) step(r *reader, s *lite.Stmt, id flat.ID, p *page) error {
	defer s.Reset()
	b := binder{s: s}
	b.id(id)
	b.conds(c.all)
	more, err := s.Step()
	if err != nil {
		return err
	}
	p.seen = id
	if more {
		c.take(r, s, p)
	} else {
		p.look--
	}
	return nil
}
