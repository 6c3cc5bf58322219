package store

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
)

// followEvery is how often a follower looks for new commits. A look that finds
// nothing reads one number.
const followEvery = 250 * time.Millisecond

// Change is a row that was written.
type Change struct {
	Row    *flat.Row // nil: changes came faster than they were followed, and some are left out
	Update bool      // the row was there before
}

// Follower gives rows as they are written.
type Follower struct {
	ctx  context.Context
	db   *DB
	c    *compiled
	last int64 // the last commit seen, changes.seq
}

// Follow begins to follow what matches q, from now on. Of q, Limit, After and
// OldestFirst are not used.
func (db *DB) Follow(ctx context.Context, q *Query) (*Follower, error) {
	plain := *q
	plain.Limit, plain.After, plain.OldestFirst = 0, flat.ID{}, false
	c, err := compile(&plain)
	if err != nil {
		return nil, err
	}
	f := &Follower{ctx: ctx, db: db, c: c}
	err = db.read(ctx, func(r *reader) (err error) {
		f.last, err = r.c.Int("SELECT max(seq) FROM changes")
		return err
	})
	return f, err
}

// All gives changes until the context is done; that is no error.
func (f *Follower) All() iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		tick := time.NewTicker(followEvery)
		defer tick.Stop()
		for f.ctx.Err() == nil {
			changes, more, err := f.look()
			if err != nil {
				if f.ctx.Err() == nil {
					yield(Change{}, err)
				}
				return
			}
			for _, ch := range changes {
				if !yield(ch, nil) {
					return
				}
			}
			if more {
				continue
			}
			select {
			case <-f.ctx.Done():
			case <-tick.C:
			}
		}
	}
}

// look reads the changes of the next commits. more: there were some.
func (f *Follower) look() (changes []Change, more bool, err error) {
	next := f.last
	err = f.db.read(f.ctx, func(r *reader) error {
		t, err := nextCommits(r, f.last)
		if err != nil {
			return err
		}
		changes, more, next = nil, t.last != f.last, t.last
		if t.gap {
			changes = append(changes, Change{})
		}
		found, err := f.rows(r, t)
		changes = append(changes, found...)
		return err
	})
	f.last = next
	return changes, more, err
}

// touched is what some commits have touched, each row once.
type touched struct {
	last int64 // the last of the commits
	gap  bool  // some commits, or some rows of one, are not known any more
	ids  []flat.ID
	what map[flat.ID]byte
}

// nextCommits reads the commits behind last, but not too many.
func nextCommits(r *reader, last int64) (*touched, error) {
	t := &touched{last: last, what: map[flat.ID]byte{}}
	newest, err := r.c.Int("SELECT max(seq) FROM changes")
	if err != nil || newest == last {
		return t, err
	}
	if newest < last { // another database stands there now
		t.last, t.gap = newest, true
		return t, nil
	}
	s, err := r.c.Prepare("SELECT seq, ids FROM changes WHERE seq > ? ORDER BY seq")
	if err != nil {
		return nil, err
	}
	defer s.Close()
	s.BindInt(1, last)
	for len(t.ids) < maxChanged {
		more, err := s.Step()
		if err != nil || !more {
			return t, err
		}
		if seq := s.Int(0); seq != t.last+1 {
			if len(t.ids) > 0 {
				return t, nil // told next time, in its place
			}
			t.gap = true
		}
		t.last = s.Int(0)
		t.add(s.Bytes(1))
	}
	return t, nil
}

// add notes the rows of a commit. A row that is new to the follower stays new.
func (t *touched) add(ids []byte) {
	for ; len(ids) >= changeLen; ids = ids[changeLen:] {
		id := flat.ID(ids[1:changeLen])
		before, known := t.what[id]
		if !known {
			t.ids = append(t.ids, id)
		}
		if before != rowNew || ids[0] != rowChanged {
			t.what[id] = ids[0]
		}
	}
}

// rows reads the rows touched that match, as they are now.
func (f *Follower) rows(r *reader, t *touched) (all []Change, err error) {
	stmts := map[string]*lite.Stmt{}
	defer func() {
		for _, s := range stmts {
			s.Close()
		}
	}()
	for _, id := range t.ids {
		day := dayOfID(id)
		if t.what[id] == rowGone || less(id, f.c.from) || !f.c.to.IsZero() && !less(id, f.c.to) ||
			!slices.Contains(r.schema.days, day) {
			continue
		}
		s := stmts[day]
		if s == nil {
			if s, err = r.c.Prepare(f.c.rowSQL(day)); err != nil {
				return nil, err
			}
			stmts[day] = s
		}
		p := page{look: 1, want: 1}
		if err := f.c.step(r, s, id, &p); err != nil {
			return nil, err
		}
		for _, row := range p.rows {
			all = append(all, Change{Row: row, Update: t.what[id] == rowChanged})
		}
	}
	return all, nil
}
