package view

import (
	"context"
	"fmt"

	"github.com/rolmail/rolmail/lib/maillog/store"
)

// Follow shows rows as they are written, until the context is done.
func Follow(ctx context.Context, o *Options) error {
	if err := o.formats(formatTable, formatJSON); err != nil {
		return err
	}
	q, err := o.query()
	if err != nil {
		return err
	}
	db, err := o.open()
	if err != nil {
		return err
	}
	defer db.Close()
	f, err := db.Follow(ctx, q)
	if err != nil {
		return err
	}
	show := o.followTable()
	if o.Format == formatJSON {
		show = o.followJSON
	}
	for ch, err := range f.All() {
		if err != nil {
			return err
		}
		if ch.Row == nil {
			err = o.missed()
		} else {
			err = show(ch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) missed() error {
	_, err := fmt.Fprintf(o.Stderr, "%s: rows were written faster than they could be shown; search for those left out\n", o.Program)
	return err
}

// followTable shows each row in a table of fixed columns. A row that was there
// before is marked by "now".
func (o *Options) followTable() func(store.Change) error {
	t := newTable(o.Stdout, o.Now)
	t.set, t.id, t.addr = true, 16, 50
	if t.width > 0 {
		t.addr = min(t.addr, (t.width-len(stamp)-outcomeW-t.id-4*separator)*6/10)
	}
	return func(ch store.Change) error {
		outcome := ch.Row.Outcome
		if ch.Update {
			outcome = "now " + outcome
		}
		return t.line(ch.Row, outcome)
	}
}

// followJSON writes each row as search does, with a first key, change: new or
// changed.
func (o *Options) followJSON(ch store.Change) error {
	change := `{"change":"new",`
	if ch.Update {
		change = `{"change":"changed",`
	}
	b := append(appendJSON([]byte(change), ch.Row), '}', '\n')
	_, err := o.Stdout.Write(b)
	return err
}
