package store

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// followEvery is how often a follower looks for new commits. A look that finds
// nothing reads one number.
const followEvery = 250 * time.Millisecond

// followPatience is how long a follower waits for a server that is gone.
const followPatience = time.Minute

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
	c, err := db.compile(&plain)
	if err != nil {
		return nil, err
	}
	f := &Follower{ctx: ctx, db: db, c: c}
	err = db.b.read(ctx, func(s session) (err error) {
		f.last, err = s.lastCommit()
		return err
	})
	return f, err
}

// All gives changes until the context is done; that is no error. When the
// database's server is away it goes on where it was as soon as that is back,
// and ends after a minute.
func (f *Follower) All() iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		tick := time.NewTicker(followEvery)
		defer tick.Stop()
		var failing time.Time // since when
		for f.ctx.Err() == nil {
			changes, more, err := f.look()
			switch {
			case err == nil:
				failing = time.Time{}
			case failing.IsZero() && f.db.b.passes(err):
				failing = time.Now()
			case !f.db.b.passes(err) || time.Since(failing) > followPatience:
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
	err = f.db.b.read(f.ctx, func(s session) error {
		t, err := nextCommits(s, f.last)
		if err != nil {
			return err
		}
		changes, more, next = nil, t.last != f.last, t.last
		if t.gap {
			changes = append(changes, Change{})
		}
		found, err := f.rows(s, t)
		changes = append(changes, found...)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	f.last = next
	return changes, more, nil
}

// touched is what some commits have touched, each row once.
type touched struct {
	last int64 // the last of the commits
	gap  bool  // some commits, or some rows of one, are not known any more
	ids  []flat.ID
	what map[flat.ID]byte
}

// nextCommits reads the commits behind last, but not too many.
func nextCommits(s session, last int64) (*touched, error) {
	t := &touched{last: last, what: map[flat.ID]byte{}}
	newest, err := s.lastCommit()
	if err != nil || newest == last {
		return t, err
	}
	if newest < last { // another database stands there now
		t.last, t.gap = newest, true
		return t, nil
	}
	err = s.commits(last, func(seq int64, ids []byte) bool {
		if seq != t.last+1 {
			if len(t.ids) > 0 {
				return false // told next time, in its place
			}
			t.gap = true
		}
		t.last = seq
		t.add(ids)
		return len(t.ids) < maxChanged
	})
	return t, err
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

// rows reads the rows touched that match, as they are now, and gives them in
// the order in which they were touched.
func (f *Follower) rows(s session, t *touched) (all []Change, err error) {
	var days []string
	byDay := map[string][]flat.ID{}
	for _, id := range t.ids {
		if t.what[id] == rowGone || less(id, f.c.from) || !f.c.to.IsZero() && !less(id, f.c.to) {
			continue
		}
		day := dayOfID(id)
		if byDay[day] == nil {
			days = append(days, day)
		}
		byDay[day] = append(byDay[day], id)
	}
	found := map[flat.ID]*flat.Row{}
	for _, day := range days {
		if !slices.Contains(s.days(), day) {
			continue
		}
		ids := byDay[day]
		err := s.rows(f.c, day, len(ids), slices.Values(ids), func(id flat.ID, r rawRow) bool {
			if r == nil {
				return true
			}
			p := page{look: 1, want: 1}
			if f.c.take(r, &p); len(p.rows) > 0 {
				found[id] = p.rows[0]
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	for _, id := range t.ids {
		if row := found[id]; row != nil {
			all = append(all, Change{Row: row, Update: t.what[id] == rowChanged})
		}
	}
	return all, nil
}
