package store

import (
	"iter"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
)

// liteRow is the row that a statement is on.
type liteRow struct {
	s    *lite.Stmt
	rows *rowReader
}

func (r *liteRow) id() (id flat.ID) {
	copy(id[:], r.s.Bytes(0))
	return id
}
func (r *liteRow) text(col int) []byte { return r.s.Bytes(col) }
func (r *liteRow) row() *flat.Row      { return r.rows.read(r.s) }

func (r *reader) days() []string             { return r.schema.days }
func (r *reader) has(day, index string) bool { return r.schema.has(day, index) }

// scan reads a day in order of id.
func (r *reader) scan(c *compiled, day string, _ int, look func(rawRow) bool, _ func(flat.ID) bool) error {
	s, err := r.c.Prepare(c.scanSQL(day))
	if err != nil {
		return err
	}
	defer s.Close()
	b := binder{s: s}
	b.bounds(c)
	b.conds(c.all)
	for _, a := range c.arms {
		b.conds(a.conds)
	}
	row := &liteRow{s, &r.rawRows}
	for {
		more, err := s.Step()
		if err != nil || !more || !look(row) {
			return err
		}
	}
}

func (r *reader) span(c *compiled, day string) ([]flat.ID, error) {
	st, err := c.openIDs(r, day, &c.arms[0])
	if err != nil {
		return nil, err
	}
	defer st.s.Close()
	var ids []flat.ID
	for {
		if err := st.advance(); err != nil || !st.more {
			return ids, err
		}
		ids = append(ids, st.id)
	}
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
	b.bounds(c)
	return &idStream{s: s}, nil
}

func (st *idStream) advance() (err error) {
	if st.more, err = st.s.Step(); st.more {
		copy(st.id[:], st.s.Bytes(0))
	}
	return err
}

// ids goes through the arms' ids side by side.
func (r *reader) ids(c *compiled, day string, _ int) iter.Seq2[flat.ID, error] {
	return func(yield func(flat.ID, error) bool) {
		streams := make([]*idStream, 0, len(c.arms))
		defer func() {
			for _, st := range streams {
				st.s.Close()
			}
		}()
		for i := range c.arms {
			st, err := c.openIDs(r, day, &c.arms[i])
			if err == nil {
				streams = append(streams, st)
				err = st.advance()
			}
			if err != nil {
				yield(flat.ID{}, err)
				return
			}
		}
		for next := c.first(streams); next != nil; next = c.first(streams) {
			id := next.id
			for _, st := range streams { // a row may be found by several
				if st.more && st.id == id {
					if err := st.advance(); err != nil {
						yield(flat.ID{}, err)
						return
					}
				}
			}
			if !yield(id, nil) {
				return
			}
		}
	}
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

func (r *reader) rows(c *compiled, day string, _ int, ids iter.Seq[flat.ID], look func(flat.ID, rawRow) bool) error {
	var s *lite.Stmt
	row := &liteRow{rows: &r.rawRows}
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
			row.s = s
		}
		goOn, err := c.step(row, id, look)
		if err != nil || !goOn {
			return err
		}
	}
	return nil
}

// step reads the row of an id with a statement of rowSQL.
func (c *compiled) step(row *liteRow, id flat.ID, look func(flat.ID, rawRow) bool) (goOn bool, err error) {
	defer row.s.Reset()
	b := binder{s: row.s}
	b.id(id)
	b.conds(c.all)
	more, err := row.s.Step()
	if err != nil {
		return false, err
	}
	if !more {
		return look(id, nil), nil
	}
	return look(id, row), nil
}

func (r *reader) lastCommit() (int64, error) { return r.c.Int("SELECT max(seq) FROM changes") }

func (r *reader) commits(after int64, f func(seq int64, ids []byte) bool) error {
	s, err := r.c.Prepare("SELECT seq, ids FROM changes WHERE seq > ? ORDER BY seq")
	if err != nil {
		return err
	}
	defer s.Close()
	s.BindInt(1, after)
	for {
		more, err := s.Step()
		if err != nil || !more || !f(s.Int(0), s.Bytes(1)) {
			return err
		}
	}
}
