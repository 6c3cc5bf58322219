package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/lib/mysqlpool"
)

// newMy is where a new database on the server of all tests is.
func newMy(t testing.TB) string {
	t.Helper()
	return mariaDB(t).CF(fmt.Sprintf("test%d", databases.Add(1)))
}

func openMySQL(cf string, mode Mode) (*mysqlDB, error) {
	return openMySQLWith(cf, mode, mysqlpool.Options{})
}

// openMy opens a MariaDB database for writing, until the end of the test.
func openMy(t testing.TB, cf string) *mysqlDB {
	t.Helper()
	db, err := openMySQLWith(cf, ReadWrite, mysqlpool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.close() })
	return db
}

func commitMy(t testing.TB, db *mysqlDB, b *Batch) {
	t.Helper()
	if err := db.commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// execMy runs a statement in the writer's session.
func execMy(t testing.TB, db *mysqlDB, sql string) {
	t.Helper()
	if _, err := db.w.exec(t.Context(), sql); err != nil {
		t.Fatalf("%.100s: %v", sql, err)
	}
}

// wantRows reports rows that the database has not got as they are.
func wantRows(t *testing.T, db *mysqlDB, rows []*flat.Row) {
	t.Helper()
	w := db.w
	for day, rows := range byDay(onePerID(rows)) {
		for _, r := range rows {
			n := 0
			err := w.old.each(t.Context(), w.c, w.byIDs("SELECT "+mysqlColumns+" FROM "+dayTable(day), 1,
				func(int) flat.ID { return r.ID }), func() {
				if n++; w.old.replacedBy(r) {
					t.Errorf("%s: has %.300q\nwant %.300q", r.ID, w.old.values, fmt.Sprintf("%+v", r))
				}
			})
			if err != nil || n != 1 {
				t.Errorf("%s: %d times, %v", r.ID, n, err)
			}
		}
	}
}

// Whatever is in a row comes to be in the database, by each of the ways there.
func TestMySQLValues(t *testing.T) {
	rows := onePerID(strangeRows())
	for name, set := range map[string]func(*mysqlWriter){
		"load":       func(*mysqlWriter) {},
		"look":       func(w *mysqlWriter) { w.look = true },
		"statements": func(w *mysqlWriter) { w.local = false },
		"small":      func(w *mysqlWriter) { w.local, w.packet = false, 1<<15 },
	} {
		t.Run(name, func(t *testing.T) {
			db := openMy(t, newMy(t))
			set(db.w)
			some := rows
			if name != "load" {
				some = rows[:min(len(rows), lookAlways-1)]
			}
			if name == "load" {
				some = append(storetest.New(1, noon+1000, 10).Rows(lookAlways), rows...)
			}
			commitMy(t, db, &Batch{Rows: some})
			wantRows(t, db, some)
			was := db.w.lastSeq
			commitMy(t, db, &Batch{Rows: some})
			if db.w.lastSeq != was {
				t.Error("the same rows, written again, changed something")
			}
			for _, r := range some {
				r.Lines = min(r.Lines, 1<<62) + 1
			}
			commitMy(t, db, &Batch{Rows: some})
			if db.w.lastSeq != was+1 {
				t.Errorf("changes went from %d to %d", was, db.w.lastSeq)
			}
			wantRows(t, db, some)
		})
	}
}

// A sequence of batches leaves the same behind in MariaDB and in SQLite: rows,
// state, positions and what followers are told.
func TestMySQLAsSQLite(t *testing.T) {
	lite, my := openTemp(t), openAt(t, "mysql:"+newMy(t), ReadWrite)
	rng := rand.New(rand.NewPCG(7, 11))
	made := storetest.New(5, noon-2*3600000, 30000)
	var known []*flat.Row
	for n := range 60 {
		b := randomBatch(rng, made, &known)
		if w := mysqlOf(my).w; n%3 == 0 {
			w.local = !w.local
		}
		commit(t, lite, b)
		commit(t, my, b)
		if n%10 == 9 {
			finish(t, lite)
			finish(t, my)
		}
		a, b2 := lastChange(t, lite), lastChange(t, my)
		if a != b2 {
			t.Fatalf("batch %d: SQLite says\n%s\nMariaDB\n%s", n, a, b2)
		}
	}
	a, b := find(t, lite, &Query{}), find(t, my, &Query{})
	if len(a) < 1000 || len(a) != len(b) {
		t.Fatalf("%d rows, %d in MariaDB", len(a), len(b))
	}
	for i := range a {
		if x, y := fmt.Sprintf("%+v", a[i]), fmt.Sprintf("%+v", b[i]); x != y {
			t.Fatalf("SQLite has\n%s\nMariaDB\n%s", x, y)
		}
	}
	if x, y := loaded(t, lite), loaded(t, my); x != y || !strings.Contains(x, "position") {
		t.Errorf("SQLite has\n%s\nMariaDB\n%s", x, y)
	}
}

// randomBatch has new rows, rows that were there with more, less and as many
// lines, the same row several times, deletions, state and positions.
func randomBatch(rng *rand.Rand, made *storetest.Made, known *[]*flat.Row) *Batch {
	b := &Batch{Rows: made.Rows([]int{0, 1, 10, 100, 400}[rng.IntN(5)])}
	*known = append(*known, b.Rows...)
	for range rng.IntN(60) {
		if len(*known) == 0 {
			break
		}
		i := rng.IntN(len(*known))
		r := (*known)[i].Clone()
		switch rng.IntN(5) {
		case 0:
			r.Lines, r.Outcome = r.Lines+1, flat.Bounced
		case 1:
			r.Lines, r.Outcome = r.Lines-1, flat.Deferred
		case 2:
			r.Reason, r.Score = fmt.Sprint("another ", rng.IntN(3)), float64(rng.IntN(10))/3
		case 3:
			b.Delete = append(b.Delete, r.ID)
			continue
		}
		if r.Lines > (*known)[i].Lines {
			(*known)[i] = r
		}
		b.Rows = append(b.Rows, r)
	}
	rng.Shuffle(len(b.Rows), func(i, j int) { b.Rows[i], b.Rows[j] = b.Rows[j], b.Rows[i] })
	for range rng.IntN(50) {
		ch := StateChange{Key: fmt.Appendf(nil, "\x00k\\%d", rng.IntN(60))}
		if rng.IntN(3) > 0 {
			ch.Data = make([]byte, rng.IntN(300))
			for i := range ch.Data {
				ch.Data[i] = byte(rng.Uint32())
			}
		}
		b.State = append(b.State, ch)
	}
	for range rng.IntN(3) {
		p := Position{PrefixLen: rng.Int64N(5), Offset: rng.Int64N(5), Name: "mail.log \xff\x00'", Updated: rng.Int64N(9)}
		p.Prefix[31] = byte(rng.IntN(4))
		b.Positions = append(b.Positions, p)
	}
	return b
}

// lastChange is the last entry of changes, in the order of the ids and with
// each id once: a row that was written and deleted is gone.
func lastChange(t *testing.T, db *DB) string {
	t.Helper()
	var out string
	err := db.b.read(t.Context(), func(s session) error {
		return s.commits(0, func(seq int64, ids []byte) bool {
			what := &touched{what: map[flat.ID]byte{}}
			what.add(ids)
			slices.SortFunc(what.ids, compareIDs)
			out = fmt.Sprintln(seq)
			for _, id := range what.ids {
				out += fmt.Sprintf("%s %c\n", id, what.what[id])
			}
			return true
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// loaded is what Load gives, in order.
func loaded(t testing.TB, db *DB) string {
	t.Helper()
	var all []string
	pos, err := db.Load(t.Context(), func(key, data []byte) error {
		all = append(all, fmt.Sprintf("%q %x", key, data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pos {
		all = append(all, fmt.Sprintf("position %+v", p))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// What is taken for new and is not costs a second run of the transaction, and
// then the writer looks first until that is no use any more.
func TestMySQLLooks(t *testing.T) {
	db := openMy(t, newMy(t))
	made := storetest.New(3, noon, 10)
	rows := made.Rows(lookAlways + 50)
	commitMy(t, db, &Batch{Rows: rows})
	if db.w.look {
		t.Error("it looks, and everything was new")
	}
	commitMy(t, db, &Batch{Rows: append(made.Rows(lookAlways), rows[7])})
	if !db.w.look {
		t.Error("it does not look, and a row was there")
	}
	commitMy(t, db, &Batch{Rows: made.Rows(3)})
	if !db.w.look {
		t.Error("a small batch says nothing")
	}
	commitMy(t, db, &Batch{Rows: made.Rows(lookAlways + 1)})
	if db.w.look {
		t.Error("it looks still, and everything was new")
	}
	execMy(t, db, "DELETE FROM "+dayTable(flat.Day(noon)))
}

// The indexes of a day that a killed writer has left are completed, those of
// a day that has them are not looked at again.
func TestMySQLFinish(t *testing.T) {
	cf := newMy(t)
	db := openMy(t, cf)
	commitMy(t, db, &Batch{Rows: storetest.New(3, noon, 10).Rows(300)})
	day := flat.Day(noon)
	execMy(t, db, mysqlAddIndexes(day, lateIndexes()[:2])) // of a finish that was killed
	db.close()

	db = openMy(t, cf)
	if err := db.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	have, err := db.w.indexes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := len(indexes) + 1; len(have[day]) != want {
		t.Errorf("indexes %q, want %d", have[day], want)
	}
	execMy(t, db, "ALTER TABLE "+dayTable(day)+" DROP INDEX msgid")
	commitMy(t, db, &Batch{Rows: storetest.New(4, noon+dayMillis, 10).Rows(3)})
	if err := db.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if have, err = db.w.indexes(t.Context()); err != nil || len(have[flat.Day(noon+dayMillis)]) != len(indexes)+1 {
		t.Errorf("%q, %v", have, err)
	}
}

func TestMySQLPositionsAreBounded(t *testing.T) {
	db := openMy(t, newMy(t))
	var all []Position
	for i := range maxPositions + 5 {
		p := Position{Updated: int64(i)}
		copy(p.Prefix[:], fmt.Sprintf("%032d", i))
		all = append(all, p)
	}
	commitMy(t, db, &Batch{Positions: all, Rows: storetest.New(3, noon, 10).Rows(1)})
	if err := db.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	pos, err := db.load(t.Context(), func(_, _ []byte) error { return nil })
	if err != nil || len(pos) != maxPositions {
		t.Fatalf("%d positions, %v", len(pos), err)
	}
	for _, p := range pos {
		if p.Updated < 5 {
			t.Errorf("%s, of the oldest, is there", p.Prefix[:])
		}
	}
}

func TestMySQLDDL(t *testing.T) {
	m := mariaDB(t)
	cf := newMy(t)
	cfg, err := mysqlpool.ReadFile(cf)
	if err != nil {
		t.Fatal(err)
	}
	// A day with all its indexes, made by hand, is one that the writer would
	// have made.
	m.SQL("USE " + cfg.DBName + ";\n" + mysqlDDL())
	db := openMy(t, cf)
	before := dumpMySQL(t, db)
	if err := db.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if dumpMySQL(t, db) != before {
		t.Error("tables made from the DDL had something to finish")
	}
	day := int64(dayMillis) * 20780
	commitMy(t, db, &Batch{Rows: storetest.New(3, day, 10).Rows(3)})
	if err := db.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	create := func(day string) string {
		return strings.ReplaceAll(m.SQL("SHOW CREATE TABLE "+cfg.DBName+"."+dayTable(day)), day, "")
	}
	if a, b := create(exampleDay), create(flat.Day(day)); a != b {
		t.Errorf("by hand:\n%s\nby the writer:\n%s", a, b)
	}
}
