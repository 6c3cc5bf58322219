package store

import (
	"context"
	"slices"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// Get returns the row of an id, as the owner of domain may see it ("": the
// postmaster); nil if there is none for these eyes.
func (db *DB) Get(ctx context.Context, id flat.ID, domain string) (*flat.Row, error) {
	c, err := db.compile(&Query{Domain: domain})
	if err != nil {
		return nil, err
	}
	var p page
	err = db.b.read(ctx, func(s session) error {
		p = page{look: 1, want: 1}
		day := dayOfID(id)
		if !slices.Contains(s.days(), day) {
			return nil
		}
		return c.fetch(s, day, &p, func(yield func(flat.ID, error) bool) { yield(id, nil) })
	})
	if err != nil || len(p.rows) == 0 {
		return nil, err
	}
	return p.rows[0], nil
}

// Siblings returns the rows of r's mail, r among them: one for each of its
// recipients that domain may see, at most limit, in order of id.
func (db *DB) Siblings(ctx context.Context, r *flat.Row, domain string, limit int) ([]*flat.Row, error) {
	if r.QIDIn == "" {
		return []*flat.Row{r}, nil
	}
	return db.some(ctx, limit, &Query{
		Domain: domain, QueueID: r.QIDIn, Since: r.TS, Until: r.TS + 1, OldestFirst: true,
	}, func(s *flat.Row) bool {
		return s.QIDIn == r.QIDIn && s.HostIn == r.HostIn && s.InstanceIn == r.InstanceIn
	})
}

// Children returns the rows of the bounces and notices that a mail caused, at
// most limit, in order of id.
func (db *DB) Children(ctx context.Context, id flat.ID, domain string, limit int) ([]*flat.Row, error) {
	return db.some(ctx, limit, &Query{Domain: domain, ParentID: id, Since: id.UnixMilli(), OldestFirst: true},
		func(*flat.Row) bool { return true })
}

func (db *DB) some(ctx context.Context, limit int, q *Query, ok func(*flat.Row) bool) ([]*flat.Row, error) {
	res, err := db.Search(ctx, q)
	if err != nil {
		return nil, err
	}
	var all []*flat.Row
	for r, err := range res.All() {
		if err != nil {
			return nil, err
		}
		if ok(r) {
			if all = append(all, r); len(all) >= limit {
				break
			}
		}
	}
	return all, nil
}
