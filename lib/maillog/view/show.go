package view

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/lib/term"
)

const (
	maxMails      = 20  // shown for one queue id or message id
	maxRecipients = 200 // of one mail
	maxChildren   = 10  // bounces of one recipient's mail
)

// Show tells the life of a mail: an id of a row or the beginning of one, a
// queue id, or a message id.
func Show(ctx context.Context, o *Options, what string) error {
	if err := o.formats(formatTable, formatJSON); err != nil {
		return err
	}
	if what == "" {
		return usage("the id of a row, a queue id or a message id is missing")
	}
	db, err := o.open()
	if err != nil {
		return err
	}
	defer db.Close()
	s := &shower{ctx: ctx, o: o, db: db, seen: map[flat.ID]bool{}}
	if o.Format == formatJSON {
		s.json = &jsonWriter{w: o.Stdout}
	} else {
		s.story = newStory(o)
	}
	if err := s.find(what); err != nil {
		return err
	}
	if s.mails == 0 {
		return sysexits.Errorf(NothingFound, "%.80q: no row has this id, queue id or message id", what)
	}
	if s.json != nil {
		return s.json.close()
	}
	if s.more {
		_, err = fmt.Fprintf(o.Stderr, "there are more mails than these %d; search for one and show its id\n", maxMails)
	}
	return err
}

// shower gathers the mails and shows one after another.
type shower struct {
	ctx   context.Context
	o     *Options
	db    *store.DB
	json  *jsonWriter
	story *story

	seen  map[flat.ID]bool // rows shown
	mails int
	more  bool
}

// find looks for what may be an id, a queue id or a message id, in this order;
// the first that finds something counts.
func (s *shower) find(what string) error {
	if q, ok := idQuery(what); ok {
		if err := s.all(q, func(r *flat.Row) bool { return strings.HasPrefix(r.ID.String(), strings.ToLower(what)) }); err != nil || s.mails > 0 {
			return err
		}
	}
	everything := func(*flat.Row) bool { return true }
	if err := s.all(&store.Query{QueueID: what}, everything); err != nil || s.mails > 0 {
		return err
	}
	return s.all(&store.Query{MessageID: what}, everything)
}

// idQuery is the query for the rows whose id begins with some digits: at least
// those of its time.
func idQuery(s string) (*store.Query, bool) {
	if len(s) < 12 || len(s) > 32 {
		return nil, false
	}
	id, err := flat.ParseID(s + strings.Repeat("0", 32-len(s)))
	if err != nil {
		return nil, false
	}
	return &store.Query{Since: id.UnixMilli(), Until: id.UnixMilli() + 1}, true
}

// all shows the mails of the rows that a query finds, newest first.
func (s *shower) all(q *store.Query, ok func(*flat.Row) bool) error {
	q.Domain = s.o.Domain
	res, err := s.db.Search(s.ctx, q)
	if err != nil {
		return err
	}
	for r, err := range res.All() {
		if err != nil {
			return err
		}
		if !ok(r) || s.seen[r.ID] {
			continue
		}
		if s.mails == maxMails {
			s.more = true
			return nil
		}
		s.mails++
		if err := s.mail(r); err != nil {
			return err
		}
	}
	return nil
}

// mail shows the mail that a row belongs to, with its other recipients and
// what came of it.
func (s *shower) mail(r *flat.Row) error {
	rows, err := s.db.Siblings(s.ctx, r, s.o.Domain, maxRecipients)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		rows = []*flat.Row{r}
	}
	children := map[flat.ID][]*flat.Row{}
	for _, row := range rows {
		s.seen[row.ID] = true
		if children[row.ID], err = s.db.Children(s.ctx, row.ID, s.o.Domain, maxChildren); err != nil {
			return err
		}
	}
	if s.json != nil {
		for _, row := range rows {
			if err := s.json.row(row); err != nil {
				return err
			}
			for _, c := range children[row.ID] {
				if s.seen[c.ID] {
					continue
				}
				s.seen[c.ID] = true
				if err := s.json.row(c); err != nil {
					return err
				}
			}
		}
		return nil
	}
	var parent *flat.Row
	if !r.ParentID.IsZero() {
		if parent, err = s.db.Get(s.ctx, r.ParentID, s.o.Domain); err != nil {
			return err
		}
	}
	if s.mails > 1 {
		if _, err := io.WriteString(s.o.Stdout, "\n"); err != nil {
			return err
		}
	}
	return s.story.tell(rows, children, parent)
}

// printable is term.Printable of a text that may be missing.
func printable(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return term.Printable(s)
}
