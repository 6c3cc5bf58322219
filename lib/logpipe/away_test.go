package logpipe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// flaky is a database that can be away, and that can lose the answer to a
// commit.
type flaky struct {
	database
	away, moved, deaf *atomic.Bool
}

var errAway = sysexits.Errorf(sysexits.Unavailable, "192.0.2.1:3306: connection refused")

func (f *flaky) Commit(ctx context.Context, b *store.Batch) error {
	if f.away.Load() {
		return errAway
	}
	if f.moved.CompareAndSwap(true, false) {
		return fmt.Errorf("%w: its commit is 7", store.ErrMoved)
	}
	err := f.database.Commit(ctx, b)
	if err == nil && f.deaf.CompareAndSwap(true, false) {
		return errAway // it is there, and nobody has heard
	}
	return err
}

// flakyService is a service whose database other.db can be made away.
func flakyService(t *testing.T, dir string, dbs ...string) (*live, *flaky) {
	f := &flaky{away: new(atomic.Bool), moved: new(atomic.Bool), deaf: new(atomic.Bool)}
	return newLive(t, dir, func(s *Service) {
		s.DBs = nil
		for _, name := range dbs {
			s.DBs = append(s.DBs, filepath.Join(dir, name))
		}
		s.SpoolSize, s.CommitRows = 1<<20, 100
		s.openDB = func(where string) (database, error) {
			db, err := store.Open(where, store.ReadWrite)
			if err != nil || filepath.Base(where) != "other.db" {
				return db, err
			}
			x := *f
			x.database = db
			return &x, nil
		}
	}), f
}

func sent(rows []*flat.Row) (n int) {
	for _, r := range rows {
		if r.Outcome == flat.Sent {
			n++
		}
	}
	return n
}

func TestAnOutage(t *testing.T) {
	l, f := flakyService(t, t.TempDir(), "other.db")
	db := l.DBs[0]
	now := time.Now()
	l.write(mail(1, now)...)
	until(t, "the first mail", func() bool { return sent(rowsOf(t, db)) == 1 })
	f.away.Store(true)
	for n := 2; n < 20; n++ {
		l.write(mail(n, now.Add(time.Duration(n)*time.Second))...)
	}
	until(t, "degraded", func() bool {
		r, err := Ask(t.Context(), l.Spool)
		return err == nil && r.Degraded != nil && strings.Contains(r.Reasons[0], "connection refused") && r.Databases[0].LagBytes > 10_000
	})
	f.away.Store(false)
	until(t, "all mails", func() bool { return sent(rowsOf(t, db)) == 19 })
	until(t, "all is well", func() bool {
		r, err := Ask(t.Context(), l.Spool)
		return err == nil && r.Degraded == nil && r.Databases[0].LagBytes == 0
	})
	l.stop()
}

// TestTheDatabaseIsElsewhere has a database that another writer has touched,
// and one whose answer to a commit was lost: state and position are read
// again, and nothing is lost or doubled.
func TestTheDatabaseIsElsewhere(t *testing.T) {
	l, f := flakyService(t, t.TempDir(), "other.db")
	db := l.DBs[0]
	now := time.Now()
	for n := 1; n <= 20; n++ {
		m := mail(n, now.Add(time.Duration(n)*time.Second))
		l.write(m[:4]...)
		switch n % 4 {
		case 1:
			f.moved.Store(true)
		case 3:
			f.deaf.Store(true)
		}
		until(t, "a provisional row", func() bool { return len(rowsOf(t, db)) == n })
		l.write(m[4:]...)
	}
	until(t, "all mails", func() bool { return sent(rowsOf(t, db)) == 20 })
	l.stop()
	for _, r := range rowsOf(t, db) {
		if r.Lines != 5 { // the session has the other two
			t.Errorf("a row of %d lines", r.Lines)
		}
	}
}

// TestOneOfTwoIsAway fills the spool while one database is away: the other one
// goes on, and the first one says what it has lost.
func TestOneOfTwoIsAway(t *testing.T) {
	l, f := flakyService(t, t.TempDir(), "m.db", "other.db")
	now := time.Now()
	l.write(mail(1, now)...)
	until(t, "the first mail", func() bool { return sent(rowsOf(t, l.DBs[0])) == 1 && sent(rowsOf(t, l.DBs[1])) == 1 })
	f.away.Store(true)
	const mails = 4000 // of some 700 bytes
	for n := 2; n <= mails; n++ {
		l.write(mail(n, now.Add(time.Duration(n-mails)*time.Second))...)
	}
	until(t, "all mails in the one", func() bool { return sent(rowsOf(t, l.DBs[0])) == mails })
	f.away.Store(false)
	var r *Report
	until(t, "the other catches up", func() bool {
		var err error
		r, err = Ask(t.Context(), l.Spool)
		return err == nil && r.Degraded == nil && r.Databases[1].LagBytes == 0
	})
	if lost := r.Databases[1].LostBytes; lost < 500_000 {
		t.Errorf("lost %d bytes", lost)
	}
	if n := sent(rowsOf(t, l.DBs[1])); n == mails || n < 2 {
		t.Errorf("%d of %d mails, with a spool of 1 MB", n, mails)
	}
	l.stop()
}

// TestAnOlderSpool has a spool from a backup: the database is ahead of it, and
// what comes next must not be taken for what the database has.
func TestAnOlderSpool(t *testing.T) {
	for _, late := range []bool{false, true} { // the database is away when the service starts
		dir := t.TempDir()
		l, _ := flakyService(t, dir, "other.db")
		db, now := l.DBs[0], time.Now()
		all := func(n int) func() bool { return func() bool { return sent(rowsOf(t, db)) == n } }
		l.write(mail(1, now)...)
		until(t, "the first mail", all(1))
		l.stop()
		old := filepath.Join(dir, "old")
		if err := os.CopyFS(old, os.DirFS(l.Spool)); err != nil {
			t.Fatal(err)
		}
		l, _ = flakyService(t, dir, "other.db")
		for n := 2; n <= 20; n++ {
			l.write(mail(n, now.Add(time.Duration(n)*time.Second))...)
		}
		until(t, "20 mails", all(20))
		l.stop()
		if err := os.RemoveAll(l.Spool); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(old, l.Spool); err != nil {
			t.Fatal(err)
		}
		for n := 21; n <= 60; n++ {
			l.write(mail(n, now.Add(time.Duration(n)*time.Second))...)
		}
		var shut atomic.Bool
		shut.Store(late)
		l = newLive(t, dir, func(s *Service) {
			s.DBs = []string{db}
			s.openDB = func(where string) (database, error) {
				if shut.Load() {
					return nil, errAway
				}
				return store.Open(where, store.ReadWrite)
			}
		})
		if late {
			until(t, "lines in the spool", func() bool {
				r, err := Ask(t.Context(), l.Spool)
				return err == nil && len(r.Sources) == 1 && r.Sources[0].Lines > 0 && r.Sources[0].Behind == 0
			})
			shut.Store(false)
		}
		until(t, "60 mails", all(60))
		l.stop()
		if rows := rowsOf(t, db); len(rows) != 60 {
			t.Errorf("%d rows of 60 mails", len(rows))
		}
	}
}
