package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
)

// following gathers what a follower says, until it is told to stop.
type following struct {
	ch     chan string
	cancel context.CancelFunc
}

func follow(t *testing.T, db *DB, q *Query) *following {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f, err := db.Follow(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	fo := &following{make(chan string, 100000), cancel}
	go func() {
		defer close(fo.ch)
		for ch, err := range f.All() {
			switch {
			case err != nil:
				fo.ch <- err.Error()
			case ch.Row == nil:
				fo.ch <- "missed"
			default:
				fo.ch <- fmt.Sprint(ch.Row.MsgID, " ", ch.Row.Outcome, " ", ch.Update)
			}
		}
	}()
	t.Cleanup(cancel)
	return fo
}

func (f *following) want(t *testing.T, want ...string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for _, w := range want {
		select {
		case got := <-f.ch:
			if got != w {
				t.Errorf("got %q, want %q", got, w)
			}
		case <-deadline:
			t.Fatalf("no %q", w)
		}
	}
}

func named(ms int64, name, outcome string, lines int64, domain string) *flat.Row {
	return row(ms, 1, func(r *flat.Row) {
		r.MsgID, r.Outcome, r.Lines = name, outcome, lines
		r.Rcpt, r.RcptDomain = "x@"+domain, domain
	})
}

func TestFollow(t *testing.T) { onBoth(t, testFollow) }

func testFollow(t *testing.T, k kind) {
	writer := k.open(t)
	put := func(rows ...*flat.Row) { t.Helper(); commit(t, writer, &Batch{Rows: rows}) }
	put(named(noon, "old", flat.Sent, 1, "a.example"))
	ro := openAt(t, writer.Where(), ReadOnly)
	all, mine := follow(t, ro, &Query{}), follow(t, ro, &Query{Domain: "a.example"})
	sent := follow(t, ro, &Query{Outcomes: []string{flat.Sent}, Since: noon + 3})

	put(named(noon+1, "one", flat.Deferred, 1, "a.example"), named(noon+2, "two", flat.Sent, 1, "b.example"))
	all.want(t, "one deferred false", "two sent false")
	mine.want(t, "one deferred false")
	put(named(noon+1, "one", flat.Sent, 2, "a.example"))
	put(named(noon+1, "one", flat.Sent, 2, "a.example")) // no change
	commit(t, writer, &Batch{Delete: []flat.ID{storetest.ID(noon+2, 1)}})
	put(named(noon+3, "three", flat.Sent, 1, "a.example"))
	all.want(t, "one sent true", "three sent false")
	mine.want(t, "one sent true", "three sent false")
	sent.want(t, "three sent false")

	all.cancel()
	if _, more := <-all.ch; more {
		t.Error("more was said after the end")
	}
}

// A follower that begins while nobody writes hears of a writer that comes and
// goes.
func TestFollowOverWriters(t *testing.T) { onBoth(t, testFollowOverWriters) }

func testFollowOverWriters(t *testing.T, k kind) {
	db := k.open(t)
	commit(t, db, &Batch{Rows: []*flat.Row{named(noon, "old", flat.Sent, 1, "a.example")}})
	path := db.Where()
	db.Close()
	f := follow(t, openAt(t, path, ReadOnly), &Query{})
	for i := range int64(3) {
		db := openAt(t, path, ReadWrite)
		commit(t, db, &Batch{Rows: []*flat.Row{named(noon+i+1, fmt.Sprint(i), flat.Sent, 1, "a.example")}})
		db.Close()
		f.want(t, fmt.Sprint(i, " sent false"))
	}
}

func TestFollowerLeftBehind(t *testing.T) { onBoth(t, testFollowerLeftBehind) }

func testFollowerLeftBehind(t *testing.T, k kind) {
	db := k.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f, err := db.Follow(ctx, &Query{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(keepCommits + 10) {
		commit(t, db, &Batch{Rows: []*flat.Row{named(noon+i, "x", flat.Sent, 1, "a.example")}})
	}
	missed, rows := 0, 0
	for ch, err := range f.All() {
		if err != nil {
			t.Fatal(err)
		}
		if ch.Row == nil {
			missed++
		} else if rows++; rows == keepCommits {
			break
		}
	}
	if missed != 1 {
		t.Errorf("missed %d times", missed)
	}
	// One huge commit.
	var rowsIn []*flat.Row
	for i := range int64(maxChanged + 5) {
		rowsIn = append(rowsIn, named(noon+10000+i, "y", flat.Sent, 1, "a.example"))
	}
	commit(t, db, &Batch{Rows: rowsIn})
	missed, rows = 0, 0
	for ch, err := range f.All() {
		if err != nil {
			t.Fatal(err)
		}
		if ch.Row == nil {
			missed++
		} else if rows++; rows == maxChanged {
			break
		}
	}
	if missed != 1 {
		t.Errorf("missed %d times in a huge commit", missed)
	}
	if n := commitsKept(t, db); n > keepCommits {
		t.Errorf("%d commits are kept", n)
	}
}
