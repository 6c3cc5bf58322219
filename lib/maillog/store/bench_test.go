package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
)

const (
	benchBatch = 5000   // rows of a commit, as rol-logpipe makes them
	benchDay   = 200000 // rows of a day
	benchSmall = 20000  // and of one where kinds of database are compared
)

// load writes days of benchDay rows.
func load(b *testing.B, db *DB, days int) {
	b.Helper()
	loadDays(b, db, days, benchDay)
}

func loadDays(b *testing.B, db *DB, days, perDay int) {
	b.Helper()
	from := noon - noon%86400000
	for d := range int64(days) {
		made := storetest.New(uint64(d)+1, from+d*86400000, 86400000/int64(perDay))
		for range perDay / benchBatch {
			b.StopTimer()
			rows := made.Rows(benchBatch)
			b.StartTimer()
			if err := db.Commit(b.Context(), &Batch{Rows: rows}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func perSecond(b *testing.B, rows int) {
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkLoadNewDay writes a new day and builds its indexes.
func BenchmarkLoadNewDay(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		db := openTemp(b)
		b.StartTimer()
		load(b, db, 1)
		if err := db.Finish(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		db.Close()
		b.StartTimer()
	}
	perSecond(b, benchDay)
}

// BenchmarkLoadOnly is the part before the indexes.
func BenchmarkLoadOnly(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		db := openTemp(b)
		b.StartTimer()
		load(b, db, 1)
		b.StopTimer()
		db.Close()
		b.StartTimer()
	}
	perSecond(b, benchDay)
}

// BenchmarkLoadExistingDay writes into a day that has its indexes.
func BenchmarkLoadExistingDay(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		db := openTemp(b)
		commitB(b, db, storetest.New(99, noon, 1).Rows(1))
		if err := db.Finish(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		load(b, db, 1)
		b.StopTimer()
		db.Close()
		b.StartTimer()
	}
	perSecond(b, benchDay)
}

func commitB(b *testing.B, db *DB, rows []*flat.Row) {
	b.Helper()
	if err := db.Commit(b.Context(), &Batch{Rows: rows}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReplay writes rows that are there already.
func BenchmarkReplay(b *testing.B) {
	db := openTemp(b)
	rows := storetest.New(1, noon, 10).Rows(benchBatch)
	commitB(b, db, rows)
	for b.Loop() {
		commitB(b, db, rows)
	}
	perSecond(b, benchBatch)
}

// benchDB is 30 days of 200,000 rows. It is kept in $ROL_BENCH_DIR if that is
// set, as making it takes minutes.
func benchDB(b *testing.B) *DB {
	b.Helper()
	const days = 30
	dir := os.Getenv("ROL_BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	path := filepath.Join(dir, fmt.Sprintf("bench-%d-v%d.db", days, sqliteVersion))
	if _, err := os.Stat(path + ".done"); err != nil {
		_ = os.Remove(path)
		db := openAt(b, path, ReadWrite)
		load(b, db, days)
		if err := db.Finish(b.Context()); err != nil {
			b.Fatal(err)
		}
		db.Close()
		if err := os.WriteFile(path+".done", nil, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return openAt(b, path, ReadOnly)
}

// BenchmarkSearch is the first page of 50 rows over 30 days of 200,000 rows.
func BenchmarkSearch(b *testing.B) { benchSearch(b, benchDB(b), benchDay) }

// BenchmarkKinds is the same over 30 days of 20,000 rows, for each kind of
// database.
func BenchmarkKinds(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			db := k.open(b)
			loadDays(b, db, 30, benchSmall)
			if err := db.Finish(b.Context()); err != nil {
				b.Fatal(err)
			}
			benchSearch(b, db, benchSmall)
		})
	}
}

func benchSearch(b *testing.B, db *DB, perDay int64) {
	b.Helper()
	day := noon - noon%86400000 + 11*86400000
	sample := storetest.New(12, day, 86400000/perDay).Rows(5000)
	mail := sample[4000]
	for _, r := range sample[4000:] {
		if r.QIDOut != "" && r.RemoteQID != "" && r.Dir == flat.DirIn && r.ClientIP[:2] == "10" {
			mail = r
			break
		}
	}
	for _, tt := range []struct {
		name string
		q    Query
		rows int
	}{
		{"newest", Query{}, 50},
		{"domain-day", Query{Domain: "customer3.example", Since: day, Until: day + 86400000}, 50},
		{"domain", Query{Domain: "customer3.example"}, 50},
		{"small-domain-day", Query{Domain: "customer399.example", Since: day, Until: day + 86400000}, 50},
		{"qid-in", Query{QueueID: mail.QIDIn}, 1},
		{"qid-out", Query{QueueID: mail.QIDOut}, 1},
		{"qid-none", Query{QueueID: "4gNOSUCH"}, 0},
		{"client", Query{Client: mail.ClientIP}, 50},
		{"client-none", Query{Client: "192.0.2.77"}, 0},
		{"network24", Query{Client: mail.ClientIP + "/24"}, 50},
		{"network8", Query{Client: "10.0.0.0/8"}, 50},
		{"msgid", Query{MessageID: mail.MsgID}, 1},
		{"rcpt", Query{Rcpt: mail.Rcpt}, 50},
		{"rcpt-none", Query{Rcpt: "nobody@customer3.example"}, 0},
		{"sender", Query{Sender: mail.Sender}, 1},
		{"bounced", Query{Outcomes: []string{flat.Bounced}}, 50},
		{"text-day", Query{Text: "nosuchword", Since: day, Until: day + 86400000}, 0},
		{"export-day", Query{Since: day, Until: day + 86400000, Limit: int(perDay)}, 50},
	} {
		b.Run(tt.name, func(b *testing.B) {
			for b.Loop() {
				tt.q.Limit = max(tt.q.Limit, 50)
				res, err := db.Search(b.Context(), &tt.q)
				if err != nil {
					b.Fatal(err)
				}
				n := 0
				for _, err := range res.All() {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if n < tt.rows && (tt.rows < 50 || n == 0) || tt.rows == 0 && n > 0 {
					b.Fatalf("%d rows, want %d", n, tt.rows)
				}
			}
		})
	}
}

// BenchmarkScan looks for a word that is nowhere, in one day, and for an
// outcome that is.
func BenchmarkScan(b *testing.B) {
	db := benchDB(b)
	day := noon - noon%86400000 + 11*86400000
	for name, q := range map[string]Query{
		"text":    {Text: "nosuchword"},
		"outcome": {Outcomes: []string{flat.Expired}},
		"user@":   {Rcpt: "nosuch@"},
		"export":  {},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				q.Since, q.Until = day, day+86400000
				res, err := db.Search(b.Context(), &q)
				if err != nil {
					b.Fatal(err)
				}
				for _, err := range res.All() {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			perSecond(b, benchDay)
		})
	}
}

// BenchmarkManyDays is the first page over 400 days of 500 rows: what the
// number of tables costs.
func BenchmarkManyDays(b *testing.B) {
	writer := openTemp(b)
	for d := range int64(400) {
		commitB(b, writer, storetest.New(uint64(d), noon+d*86400000, 100).Rows(500))
	}
	if err := writer.Finish(b.Context()); err != nil {
		b.Fatal(err)
	}
	path := writer.Where()
	writer.Close()
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			openAt(b, path, ReadOnly).Close()
		}
	})
	db := openAt(b, path, ReadOnly)
	for _, tt := range []struct {
		name string
		q    Query
	}{
		{"newest", Query{Limit: 50}},
		{"domain", Query{Domain: "customer3.example", Limit: 50}},
		{"qid-none", Query{QueueID: "4gNOSUCH", Limit: 50}},
		{"rcpt-none", Query{Rcpt: "x@nowhere.example", Limit: 50}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			for b.Loop() {
				res, err := db.Search(b.Context(), &tt.q)
				if err != nil {
					b.Fatal(err)
				}
				for _, err := range res.All() {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
