package store

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/tests/peer"
)

// BenchmarkMySQLEncode is the client's part of LOAD DATA.
func BenchmarkMySQLEncode(b *testing.B) {
	rows := storetest.New(1, noon, 7).Rows(benchBatch)
	e := &encoder{}
	for _, r := range rows {
		e.row(r)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		e.buf = e.buf[:0]
		e.row(rows[n%len(rows)])
		n++
	}
	b.SetBytes(int64(len(e.buf)))
	perSecond(b, 1)
}

// bare is LOAD DATA of rows that are encoded already into a new day whose
// indexes are there, in one transaction or in batches: what the server alone
// takes.
func bare(b *testing.B, db *mysqlDB, day string, rows []*flat.Row, batch int, late bool) time.Duration {
	b.Helper()
	w := db.w
	sql := []string{"DROP TABLE IF EXISTS " + dayTable(day), mysqlCreateDay(day)}
	if !late {
		sql = append(sql, mysqlAddIndexes(day, lateIndexes()))
	}
	for _, s := range sql {
		if _, err := w.exec(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
	e := &encoder{}
	ends := []int{0}
	for _, r := range rows {
		e.row(r)
		ends = append(ends, len(e.buf))
	}
	begun := time.Now()
	for i := 0; i < len(rows); i += batch {
		data := e.buf[ends[i]:ends[min(i+batch, len(rows))]]
		mysql.RegisterReaderHandler("bench", func() io.Reader { return bytes.NewReader(data) })
		n, err := w.exec(b.Context(), "LOAD DATA LOCAL INFILE 'Reader::bench' INTO TABLE "+dayTable(day)+" CHARACTER SET binary")
		if err != nil || n != int64(min(batch, len(rows)-i)) {
			b.Fatal(n, err)
		}
	}
	if late {
		if _, err := w.exec(b.Context(), mysqlAddIndexes(day, lateIndexes())); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(begun)
}

// ours is commit of the same rows into a new day, with the indexes at the end.
func ours(b *testing.B, db *mysqlDB, day string, rows []*flat.Row) (commit, whole time.Duration) {
	b.Helper()
	if _, err := db.w.exec(b.Context(), "DROP TABLE IF EXISTS "+dayTable(day)); err != nil {
		b.Fatal(err)
	}
	delete(db.w.days, day)
	begun := time.Now()
	for i := 0; i < len(rows); i += benchBatch {
		some := rows[i:min(i+benchBatch, len(rows))]
		commitMy(b, db, &Batch{Rows: some, Positions: []Position{{Offset: int64(i)}}})
	}
	commit = time.Since(begun)
	if err := db.finish(b.Context()); err != nil {
		b.Fatal(err)
	}
	return commit, time.Since(begun)
}

// BenchmarkMySQLLoad compares commit and finish with a bare LOAD DATA of the
// same rows, run in turns.
func BenchmarkMySQLLoad(b *testing.B) {
	db := openMy(b, peer.StartMariaDB(b).CF("a"))
	rows := storetest.New(1, noon-noon%dayMillis, dayMillis/benchDay).Rows(benchDay)
	day := flat.Day(noon)
	var load, indexed, late, commit, whole time.Duration
	for b.Loop() {
		indexed += bare(b, db, day, rows, len(rows), false)
		late += bare(b, db, day, rows, benchBatch, true)
		c, w := ours(b, db, day, rows)
		commit, whole = commit+c, whole+w
	}
	_ = load
	n := float64(len(rows)) * float64(b.N)
	b.ReportMetric(n/indexed.Seconds(), "bare-rows/s")
	b.ReportMetric(n/late.Seconds(), "bare-late-rows/s")
	b.ReportMetric(n/commit.Seconds(), "commit-rows/s")
	b.ReportMetric(n/whole.Seconds(), "commit+finish-rows/s")
	b.ReportMetric(indexed.Seconds()/whole.Seconds(), "ratio-to-bare")
	b.ReportMetric(late.Seconds()/whole.Seconds(), "ratio-to-bare-late")
}

// BenchmarkMySQLReplay writes rows that are there already.
func BenchmarkMySQLReplay(b *testing.B) {
	db := openMy(b, peer.StartMariaDB(b).CF("a"))
	rows := storetest.New(1, noon, 10).Rows(benchBatch)
	commitMy(b, db, &Batch{Rows: rows})
	for b.Loop() {
		commitMy(b, db, &Batch{Rows: rows})
	}
	perSecond(b, benchBatch)
}

// BenchmarkMySQLFollow is a commit as a busy follower makes it: half of its
// rows are new, the others are those of the commit before, with more lines.
func BenchmarkMySQLFollow(b *testing.B) {
	db := openMy(b, peer.StartMariaDB(b).CF("a"))
	made := storetest.New(1, noon, 10)
	before := made.Rows(500)
	commitMy(b, db, &Batch{Rows: before})
	if err := db.finish(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		rows := made.Rows(500)
		for _, r := range before {
			r.Lines++
		}
		commitMy(b, db, &Batch{Rows: append(before, rows...)})
		before = rows
	}
	perSecond(b, 1000)
}

// BenchmarkMySQLStatements is a server that takes no LOAD DATA LOCAL.
func BenchmarkMySQLStatements(b *testing.B) {
	db := openMy(b, peer.StartMariaDB(b).CF("a"))
	db.w.local = false
	made := storetest.New(1, noon-noon%dayMillis, dayMillis/benchDay)
	for b.Loop() {
		b.StopTimer()
		rows := made.Rows(benchBatch)
		b.StartTimer()
		commitMy(b, db, &Batch{Rows: rows})
	}
	perSecond(b, benchBatch)
}

// BenchmarkMySQLState reads the state of 200,000 open mails.
func BenchmarkMySQLState(b *testing.B) {
	db := openMy(b, peer.StartMariaDB(b).CF("a"))
	var all []StateChange
	for i := range 200000 {
		all = append(all, StateChange{fmt.Appendf(nil, "L%08d", i), bytes.Repeat([]byte{byte(i), 7, 'x'}, 150)})
	}
	begun := time.Now()
	commitMy(b, db, &Batch{State: all})
	wrote := time.Since(begun)
	for b.Loop() {
		n := 0
		if _, err := db.load(b.Context(), func(_, _ []byte) error { n++; return nil }); err != nil || n != len(all) {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(wrote.Seconds(), "s-to-write")
}
