package store

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// noon is 2026-11-23 12:00 UTC, in Unix ms.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).UnixMilli()

func openTemp(t testing.TB) *DB {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "maillog.db"), ReadWrite)
}

func openAt(t testing.TB, where string, mode Mode) *DB {
	t.Helper()
	db, err := Open(where, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func commit(t testing.TB, db *DB, b *Batch) {
	t.Helper()
	if err := db.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func finish(t testing.TB, db *DB) {
	t.Helper()
	if err := db.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// find runs a query and returns what it finds.
func find(t testing.TB, db *DB, q *Query) []*flat.Row {
	t.Helper()
	rows, _ := findPage(t, db, q)
	return rows
}

func findPage(t testing.TB, db *DB, q *Query) ([]*flat.Row, flat.ID) {
	t.Helper()
	res, err := db.Search(t.Context(), q)
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	var rows []*flat.Row
	for r, err := range res.All() {
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		rows = append(rows, r)
	}
	return rows, res.Next()
}

// row makes a row by hand.
func row(ms int64, n uint64, set func(*flat.Row)) *flat.Row {
	r := &flat.Row{}
	r.Clear()
	r.ID, r.TS, r.Lines = storetest.ID(ms, n), ms, 1
	r.Kind, r.Dir, r.Outcome = flat.KindMail, flat.DirIn, flat.Sent
	if set != nil {
		set(r)
	}
	return r
}

// full sets every column to something of its own.
func full(ms int64) *flat.Row {
	r := row(ms, 7, nil)
	for i := range flat.Columns {
		c := &flat.Columns[i]
		switch c.Type {
		case flat.Text:
			*c.Str(r) = fmt.Sprint(i)
		case flat.Int:
			*c.Int(r) = int64(i) - 30
		case flat.Float:
			*c.Float(r) = float64(i) / 8
		case flat.Bool:
			*c.Bool(r) = true
		case flat.Time:
			if c.Name != "ts" {
				*c.Int(r) = ms + int64(i)
			}
		case flat.RowID:
			if c.Name != "id" {
				*c.ID(r) = storetest.ID(ms, uint64(i))
			}
		}
	}
	return r
}

// value is a column's value in a comparable form.
func value(c *flat.Column, r *flat.Row) any {
	switch c.Type {
	case flat.Text:
		return *c.Str(r)
	case flat.Float:
		return math.Float64bits(*c.Float(r))
	case flat.Bool:
		return *c.Bool(r)
	case flat.RowID:
		return *c.ID(r)
	}
	return *c.Int(r)
}

// differ names the columns in which two rows differ.
func differ(got, want *flat.Row) string {
	var all []string
	for i := range flat.Columns {
		c := &flat.Columns[i]
		if g, w := value(c, got), value(c, want); g != w {
			all = append(all, fmt.Sprintf("%s is %q, want %q", c.Name, fmt.Sprint(g), fmt.Sprint(w)))
		}
	}
	return strings.Join(all, "; ")
}

func same(a, b *flat.Row) bool { return differ(a, b) == "" }

func TestRowsComeBackAsTheyWere(t *testing.T) { onBoth(t, testRowsComeBackAsTheyWere) }

func testRowsComeBackAsTheyWere(t *testing.T, k kind) {
	db := k.open(t)
	rows := []*flat.Row{row(noon, 1, nil), full(noon + 1)}
	rows[1].ClientIP = "2001:db8::1"
	negative := row(noon+2, 3, func(r *flat.Row) { r.Score, r.ScanMS, r.Size = -7.25, 0, math.MaxInt64 })
	strange := row(noon+3, 4, func(r *flat.Row) {
		r.Subject, r.Reason, r.Sender = "nul \x00 and \xff\xfe bad", "\x00", "a\x00b@\xf0\x9f"
		r.SenderDomain = flat.Domain(r.Sender)
		r.Score, r.Delay = math.Inf(1), math.Inf(-1)
	})
	rows = append(rows, negative, strange)
	commit(t, db, &Batch{Rows: rows})
	for range 2 {
		got := find(t, db, &Query{OldestFirst: true})
		if len(got) != len(rows) {
			t.Fatalf("%d rows, want %d", len(got), len(rows))
		}
		for i := range rows {
			if want := asKept(k, rows[i]); !same(got[i], want) {
				t.Errorf("row %d: %s", i, differ(got[i], want))
			}
		}
		finish(t, db)
	}
	if got := find(t, db, &Query{Text: "bad"}); len(got) != 1 || got[0].ID != strange.ID {
		t.Errorf("the word after a NUL finds %d rows", len(got))
	}
	if got := find(t, db, &Query{Sender: "a\x00b@\xf0\x9f"}); len(got) != 1 {
		t.Errorf("a sender with NUL and half a rune finds %d rows", len(got))
	}
}

// asKept is a row as a kind of database gives it back: MySQL keeps no bytes
// that are no UTF-8, and no infinity.
func asKept(k kind, r *flat.Row) *flat.Row {
	if k.name == "sqlite" {
		return r
	}
	c := *r
	for i := range flat.Columns {
		switch col := &flat.Columns[i]; col.Type {
		case flat.Text:
			*col.Str(&c) = string([]rune(*col.Str(&c)))
		case flat.Float:
			if f := col.Float(&c); math.IsInf(*f, 0) {
				*f = math.Copysign(math.MaxFloat64, *f)
			}
		}
	}
	return &c
}

func TestLongTextsAreCut(t *testing.T) { onBoth(t, testLongTextsAreCut) }

func testLongTextsAreCut(t *testing.T, k kind) {
	db := k.open(t)
	r := row(noon, 1, func(r *flat.Row) {
		r.Reason = strings.Repeat("ä", 2000)
		r.Country = "Italy"
		r.Helo = strings.Repeat("\xbf", 1000)
		r.Subject = strings.Repeat("x", 512)
	})
	commit(t, db, &Batch{Rows: []*flat.Row{r}})
	got := find(t, db, &Query{})[0]
	if want := strings.Repeat("ä", 1022) + "…"; got.Reason != want {
		t.Errorf("reason of %d bytes, want %d", len(got.Reason), len(want))
	}
	if k.name == "mysql" {
		r.Helo = strings.Repeat("\ufffd", 84) + "…"
	}
	if got.Country != "It" || got.Subject != r.Subject || len(got.Helo) != 255 || !strings.HasSuffix(got.Helo, "…") {
		t.Errorf("country %q, subject %d, helo %d bytes", got.Country, len(got.Subject), len(got.Helo))
	}
	before := dump(t, db)
	commit(t, db, &Batch{Rows: []*flat.Row{r}})
	if dump(t, db) != before {
		t.Error("a cut row, written again, changed something")
	}
}

func TestReplayChangesNothing(t *testing.T) { onBoth(t, testReplayChangesNothing) }

func testReplayChangesNothing(t *testing.T, k kind) {
	db := k.open(t)
	rows := storetest.New(1, noon, 60_000).Rows(3000 / scale)
	b := &Batch{
		Rows:      rows,
		State:     []StateChange{{[]byte("k"), []byte("v")}, {[]byte("empty"), []byte{}}},
		Positions: []Position{{Prefix: [32]byte{1}, PrefixLen: 100, Offset: 200, Name: "mail.log", Updated: 5}},
	}
	commit(t, db, b)
	finish(t, db)
	before := dump(t, db)
	b.Positions[0].Updated = 6
	commit(t, db, b)
	finish(t, db)
	slices.Reverse(rows)
	commit(t, db, &Batch{Rows: rows})
	if after := dump(t, db); after != before {
		t.Errorf("the dump has %d bytes, had %d", len(after), len(before))
	}
}

func TestUpsertKeepsWhatKnowsMore(t *testing.T) { onBoth(t, testUpsertKeepsWhatKnowsMore) }

func testUpsertKeepsWhatKnowsMore(t *testing.T, k kind) {
	db := k.open(t)
	put := func(lines int64, outcome string) {
		commit(t, db, &Batch{Rows: []*flat.Row{row(noon, 1, func(r *flat.Row) {
			r.Lines, r.Outcome, r.Sender = lines, outcome, "A@x.example"
		})}})
	}
	want := func(outcome string) {
		t.Helper()
		if got := find(t, db, &Query{}); len(got) != 1 || got[0].Outcome != outcome {
			t.Errorf("got %d rows, outcome %s, want %s", len(got), got[0].Outcome, outcome)
		}
	}
	put(5, flat.Deferred)
	put(4, flat.Unknown)
	want(flat.Deferred)
	put(5, flat.Sent)
	want(flat.Sent)
	put(9, flat.Bounced)
	want(flat.Bounced)
	commit(t, db, &Batch{Rows: []*flat.Row{row(noon, 1, func(r *flat.Row) {
		r.Lines, r.Outcome, r.Sender = 9, flat.Bounced, "a@x.example"
	})}})
	if got := find(t, db, &Query{}); got[0].Sender != "a@x.example" {
		t.Errorf("a change of case alone is not kept: %s", got[0].Sender)
	}
	// Twice in one batch: what knows more stays, whatever the order.
	commit(t, db, &Batch{Rows: []*flat.Row{
		row(noon, 1, func(r *flat.Row) { r.Lines, r.Outcome = 12, flat.Expired }),
		row(noon, 1, func(r *flat.Row) { r.Lines, r.Outcome = 10, flat.Sent }),
	}})
	want(flat.Expired)
}

func TestDelete(t *testing.T) { onBoth(t, testDelete) }

func testDelete(t *testing.T, k kind) {
	db := k.open(t)
	a, b := row(noon, 1, nil), row(noon, 2, nil)
	commit(t, db, &Batch{Rows: []*flat.Row{a, b}})
	commit(t, db, &Batch{Delete: []flat.ID{a.ID, storetest.ID(noon+90*86400000, 1)}})
	if got := find(t, db, &Query{}); len(got) != 1 || got[0].ID != b.ID {
		t.Errorf("%d rows are left", len(got))
	}
	if strings.Contains(dump(t, db), "maillog_2027") {
		t.Error("deleting made a table")
	}
}

func TestLoad(t *testing.T) { onBoth(t, testLoad) }

func testLoad(t *testing.T, k kind) {
	where := k.fresh(t)
	if k.name == "sqlite" {
		where = "sqlite:" + filepath.Join(t.TempDir(), "a ?#%41 b.db")
	}
	db := openAt(t, where, ReadWrite)
	pos := []Position{{Prefix: [32]byte{1}, PrefixLen: 9, Offset: 1 << 40, Name: "x\xff", Updated: 3}, {Prefix: [32]byte{2}}}
	commit(t, db, &Batch{
		State:     []StateChange{{[]byte{0, 1}, []byte("one")}, {[]byte("two"), []byte{}}, {[]byte("gone"), []byte("x")}},
		Positions: pos,
	})
	commit(t, db, &Batch{State: []StateChange{{Key: []byte("gone")}, {[]byte{0, 1}, []byte("uno")}}})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openAt(t, where, ReadWrite)
	got := map[string]string{}
	loaded, err := db.Load(t.Context(), func(key, data []byte) error {
		got[string(key)] = string(data)
		return nil
	})
	if err != nil || !slices.Equal(loaded, pos) {
		t.Errorf("positions %+v, %v", loaded, err)
	}
	if len(got) != 2 || got["\x00\x01"] != "uno" || got["two"] != "" {
		t.Errorf("state %q", got)
	}
	if _, err := db.Load(t.Context(), func(_, _ []byte) error { return os.ErrInvalid }); err == nil {
		t.Error("the error of the callback is lost")
	}
}

func TestPositionsAreBounded(t *testing.T) { onBoth(t, testPositionsAreBounded) }

func testPositionsAreBounded(t *testing.T, k kind) {
	db := k.open(t)
	b := &Batch{Rows: []*flat.Row{row(noon, 1, nil)}}
	for i := range maxPositions + 100 {
		b.Positions = append(b.Positions, Position{Prefix: [32]byte{byte(i), byte(i >> 8)}, Updated: int64(i)})
	}
	commit(t, db, b)
	finish(t, db)
	left, err := db.Load(t.Context(), func(_, _ []byte) error { return nil })
	if err != nil || len(left) != maxPositions {
		t.Fatalf("%d positions, %v", len(left), err)
	}
	for _, p := range left {
		if p.Updated < 100 {
			t.Fatalf("an old position stayed: %+v", p)
		}
	}
}

func TestDaysOfAYear(t *testing.T) { onBoth(t, testDaysOfAYear) }

func testDaysOfAYear(t *testing.T, k kind) {
	db := k.open(t)
	days := 400 / scale
	if k.name == "mysql" { // where making a table takes longer
		days = 70
	}
	var rows []*flat.Row
	for d := range int64(days) {
		rows = append(rows, row(noon-d*86400000, uint64(d), func(r *flat.Row) { r.QIDIn = "4gABC" }))
	}
	commit(t, db, &Batch{Rows: rows})
	finish(t, db)
	if got := find(t, db, &Query{QueueID: "4gABC"}); len(got) != days {
		t.Errorf("%d rows", len(got))
	}
	day := int64(86400000)
	got := find(t, db, &Query{Since: noon - 2*day, Until: noon})
	if len(got) != 2 || got[0].TS != noon-day || got[1].TS != noon-2*day {
		t.Errorf("two days back: %d rows", len(got))
	}
}

func wantStatus(t *testing.T, err error, status int, words ...string) {
	t.Helper()
	if err == nil || sysexits.Status(err) != status {
		t.Fatalf("status %d, error %v; want %d", sysexits.Status(err), err, status)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the message lacks %q: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a line: %q", err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(path("text"), []byte(strings.Repeat("Nov 23 no database\n", 100)), 0o644))
	must(os.WriteFile(path("short"), []byte("x"), 0o644))
	must(os.WriteFile(path("empty"), nil, 0o644))
	exec := func(name, sql string) {
		c, err := lite.Open(uri(path(name), ""), lite.Create)
		must(err)
		must(c.Exec(sql))
		must(c.Close())
	}
	exec("other", "CREATE TABLE accounts (x)")
	exec("other2", "CREATE TABLE meta (x)")
	must(openAt(t, path("newer"), ReadWrite).Close())
	exec("newer", "UPDATE meta SET value = 2")
	must(openAt(t, path("none"), ReadWrite).Close())
	exec("none", "DELETE FROM meta")

	for _, tt := range []struct {
		where  string
		mode   Mode
		status int
		words  string
	}{
		{path("missing"), ReadOnly, sysexits.Unavailable, "no such database; rol-logpipe --db"},
		{path("no/such/dir"), ReadOnly, sysexits.Unavailable, "rol-logpipe"},
		{path("no/such/dir"), ReadWrite, sysexits.CannotMake, "no such file or directory"},
		{dir, ReadOnly, sysexits.Data, "not a file"},
		{dir, ReadWrite, sysexits.CannotMake, "directory"},
		{path("text"), ReadOnly, sysexits.Data, "file is not a database"},
		{path("text"), ReadWrite, sysexits.Data, "file is not a database"},
		{path("short"), ReadOnly, sysexits.Data, "not a database"},
		{path("empty"), ReadOnly, sysexits.Data, "an empty file"},
		{path("other"), ReadOnly, sysexits.Data, "of another program"},
		{path("other"), ReadWrite, sysexits.Data, "of another program"},
		{path("other2"), ReadWrite, sysexits.Data, "of another program"},
		{path("newer"), ReadOnly, sysexits.Data, "use a newer release"},
		{path("newer"), ReadWrite, sysexits.Data, "version is 2"},
		{path("none"), ReadWrite, sysexits.Data, "no schema version"},
		{"pgsql:/etc/rol/x.cf", ReadOnly, sysexits.Config, `type "pgsql" is not known`},
		{"mysql:", ReadOnly, sysexits.Config, "want mysql:/etc/rol/maillog.cf"},
		{"sqlite:", ReadOnly, sysexits.Config, "a path is missing"},
		{"", ReadWrite, sysexits.Config, "a path is missing"},
		{"a\x00b", ReadWrite, sysexits.Config, "NUL"},
	} {
		db, err := Open(tt.where, tt.mode)
		if err == nil {
			db.Close()
		}
		t.Run(filepath.Base(tt.where), func(t *testing.T) { wantStatus(t, err, tt.status, tt.words) })
	}
	if data, _ := os.ReadFile(path("short")); string(data) != "x" {
		t.Error("a file that is no database was changed")
	}
}

func TestCommitNeedsAWriter(t *testing.T) { onBoth(t, testCommitNeedsAWriter) }

func testCommitNeedsAWriter(t *testing.T, k kind) {
	db := k.open(t)
	commit(t, db, &Batch{Rows: []*flat.Row{row(noon, 1, nil)}})
	ro := openAt(t, db.Where(), ReadOnly)
	wantStatus(t, ro.Commit(t.Context(), &Batch{}), sysexits.Bug)
	wantStatus(t, ro.Finish(t.Context()), sysexits.Bug)
}

func TestCancel(t *testing.T) { onBoth(t, testCancel) }

func testCancel(t *testing.T, k kind) {
	db := k.open(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := fmt.Errorf("enough")
	cancel(cause)
	if err := db.Commit(ctx, &Batch{Rows: []*flat.Row{row(noon, 1, nil)}}); err != cause {
		t.Errorf("Commit: %v", err)
	}
	if got := find(t, db, &Query{}); len(got) != 0 {
		t.Errorf("%d rows", len(got))
	}
	res, err := db.Search(ctx, &Query{})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range res.All() {
		if err != cause {
			t.Errorf("Search: %v", err)
		}
	}
}

// A search that finds nothing for long ends when its context does.
func TestCancelWhileLooking(t *testing.T) { onBoth(t, testCancelWhileLooking) }

func testCancelWhileLooking(t *testing.T, k kind) {
	db := k.open(t)
	commit(t, db, &Batch{Rows: storetest.New(1, noon, 1).Rows(40000 / scale)})
	cause := fmt.Errorf("enough")
	for range 20 {
		ctx, cancel := context.WithCancelCause(t.Context())
		res, err := db.Search(ctx, &Query{Outcomes: []string{flat.Expired}})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(2*time.Millisecond, func() { cancel(cause) })
		for _, err := range res.All() {
			if err != cause {
				t.Errorf("%v", err)
			}
		}
		cancel(nil)
	}
	if got := find(t, db, &Query{Limit: 5}); len(got) != 5 {
		t.Errorf("%d rows after all that", len(got))
	}
}
