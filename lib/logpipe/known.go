package logpipe

import (
	"context"
	"strings"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store"
)

// searcher is a store that can be asked for rows.
type searcher interface {
	Search(ctx context.Context, q *store.Query) (*store.Result, error)
}

// A log that begins or ends in the middle of mails, which another log had
// whole, shows their tails or their heads only: they must not become second
// rows. Every row that lacks its head or its recipients is looked up before it
// is written, and left out when the store has the mail it is a part of.
const (
	tailDays = 6 * 24 * 3600 * 1000 // how long before its tail a mail may have begun, milliseconds
	tailLate = 5 * 60 * 1000        // how long after its end a line may come
)

// leftOut are the rows that were not written, and the rows that they are part of.
type leftOut map[flat.ID]flat.ID

// maxLeftOut bounds leftOut; what a bounce is about is rarely far before it.
const maxLeftOut = 10_000

// drop takes out of a batch what the store knows already and better.
func (l leftOut) drop(ctx context.Context, db searcher, b *store.Batch) error {
	kept := make([]*flat.Row, 0, len(b.Rows)) // not in place: a failure leaves the batch as it was
	for _, r := range b.Rows {
		if !headless(r) && (r.Kind != flat.KindMail || r.Rcpt != "") {
			kept = append(kept, r)
			continue
		}
		whole, err := known(ctx, db, r)
		if err != nil {
			return err
		}
		if whole.IsZero() {
			kept = append(kept, r)
			continue
		}
		if len(l) >= maxLeftOut {
			clear(l)
		}
		l[r.ID] = whole
	}
	b.Rows = kept
	for _, r := range kept {
		if whole, ok := l[r.ParentID]; ok {
			r.ParentID = whole
		}
	}
	return nil
}

// headless reports whether the first lines of what a row tells are missing.
func headless(r *flat.Row) bool {
	_, missing, found := strings.Cut(r.Evidence, "missing: ")
	if !found || r.Complete {
		return false
	}
	for what := range strings.SplitSeq(missing, ",") {
		switch what {
		case "client", "first leg", "connect", "all but the scan":
			return true
		}
	}
	return false
}

// known finds the row in the store that began earlier and tells of the same
// mail and recipient, or of the same session; zero if there is none.
func known(ctx context.Context, db searcher, r *flat.Row) (flat.ID, error) {
	q := &store.Query{Since: r.TS - tailDays, Until: r.TS + 1, QueueID: r.QIDIn}
	same := func(e *flat.Row) bool {
		in := e.QIDIn == r.QIDIn && e.HostIn == r.HostIn
		out := e.QIDOut == r.QIDIn && e.HostOut == r.HostIn
		return (in || out || e.MailID != "" && e.MailID == r.MailID) && (r.Rcpt == "" || strings.EqualFold(e.Rcpt, r.Rcpt)) && r.TS <= e.TSFinal+tailLate
	}
	if r.QIDIn == "" {
		if r.ClientIP == "" {
			return flat.ID{}, nil
		}
		q.QueueID, q.Client = "", r.ClientIP
		same = func(e *flat.Row) bool {
			return e.Kind == r.Kind && e.HostIn == r.HostIn && e.InstanceIn == r.InstanceIn && e.TSFinal == r.TSFinal
		}
	}
	found, err := db.Search(ctx, q)
	if err != nil {
		return flat.ID{}, err
	}
	for e, err := range found.All() {
		if err != nil {
			return flat.ID{}, err
		}
		if e.ID != r.ID && e.TSFinal != 0 && !headless(e) && same(e) {
			return e.ID, nil
		}
	}
	return flat.ID{}, nil
}
