package store

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/tests/peer"
)

// Who may only SELECT can search, show and follow.
func TestMySQLReaderNeedsOnlySelect(t *testing.T) {
	m := mariaDB(t)
	db := kinds[1].open(t)
	name := mysqlOf(db).name
	m.SQL("CREATE USER '" + name + "r'@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT SELECT ON " + name + ".* TO '" + name + "r'@'127.0.0.1'")
	commit(t, db, &Batch{Rows: storetest.New(1, noon, 1000).Rows(300)})
	finish(t, db)
	ro := openAt(t, "mysql:"+m.CF(name, "user = "+name+"r", "password = secret"), ReadOnly)
	rows := find(t, ro, &Query{OldestFirst: true})
	if len(rows) != 300 {
		t.Fatalf("%d rows", len(rows))
	}
	if r, err := ro.Get(t.Context(), rows[7].ID, ""); err != nil || r == nil || !same(r, rows[7]) {
		t.Errorf("%+v, %v", r, err)
	}
	f := follow(t, ro, &Query{})
	commit(t, db, &Batch{Rows: []*flat.Row{named(noon, "one", flat.Sent, 1, "a.example")}})
	f.want(t, "one sent false")
	if got := find(t, ro, &Query{Domain: "a.example"}); len(got) != 1 {
		t.Errorf("%d rows of a domain", len(got))
	}
}

// A day that another program drops is gone from the next page on; the search
// goes on.
func TestMySQLDayDroppedUnderASearch(t *testing.T) {
	db := kinds[1].open(t)
	const day = 86400000
	var rows []*flat.Row
	for d := range int64(3) {
		for i := range int64(pageRows) {
			rows = append(rows, named(noon+d*day+i, "x", flat.Sent, 1, "a.example"))
		}
	}
	commit(t, db, &Batch{Rows: rows})
	finish(t, db)
	for name, q := range map[string]Query{"scan": {OldestFirst: true}, "index": {Rcpt: "@a.example", OldestFirst: true}} {
		res, err := db.Search(t.Context(), &q)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for r, err := range res.All() {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if r.TS >= noon+day && r.TS < noon+2*day {
				t.Fatalf("%s: a row of a day that was dropped", name)
			}
			if n++; n == 1 {
				statement(t, db, "DROP TABLE "+dayTable(flat.Day(noon+day)))
			}
		}
		if n != 2*pageRows {
			t.Errorf("%s: %d rows", name, n)
		}
		commit(t, db, &Batch{Rows: rows})
		finish(t, db)
	}
	statement(t, db, "DROP TABLE "+dayTable(flat.Day(noon+day)))
	if r, err := db.Get(t.Context(), rows[pageRows].ID, ""); r != nil || err != nil {
		t.Errorf("%+v, %v", r, err)
	}
	statement(t, db, "DROP TABLE "+mysqlChanges)
	ro, err := Open(db.Where(), ReadOnly)
	if err == nil {
		defer ro.Close()
		res, _ := ro.Search(t.Context(), &Query{})
		for _, err = range res.All() {
			break
		}
	}
	if err == nil || sysexits.Status(err) == sysexits.Bug || !strings.Contains(err.Error(), mysqlChanges) {
		t.Errorf("without table %s: %v", mysqlChanges, err)
	}
}

// A day that is made, and indexed, while a reader has its snapshot is seen by
// a new one.
func TestMySQLDayMadeWhileReading(t *testing.T) {
	db := kinds[1].open(t)
	commit(t, db, &Batch{Rows: []*flat.Row{named(noon, "x", flat.Sent, 1, "a.example")}})
	later := noon + 86400000
	runs := 0
	err := db.b.read(t.Context(), func(s session) error {
		if runs++; runs == 1 {
			commit(t, db, &Batch{Rows: []*flat.Row{named(later, "x", flat.Sent, 1, "a.example")}})
			finish(t, db)
		}
		c, err := db.compile(&Query{Rcpt: "@a.example"})
		if err != nil {
			return err
		}
		n := 0
		for _, err := range s.ids(c, flat.Day(later), 1) {
			if err != nil {
				return err
			}
			n++
		}
		if n != 1 {
			t.Errorf("%d ids, run %d", n, runs)
		}
		return nil
	})
	if err != nil || runs != 2 {
		t.Errorf("%d runs: %v", runs, err)
	}
}

// A server that hangs does not keep a search that is given up, and one that
// was restarted, or killed between two pages, is searched on.
func TestMySQLServerDies(t *testing.T) {
	peer.Need(t, "mariadbd")
	m := peer.StartMariaDB(t, "--local-infile=1")
	db := openAt(t, "mysql:"+m.CF("x"), ReadWrite)
	rows := storetest.New(1, noon, 1000).Rows(3 * pageRows)
	commit(t, db, &Batch{Rows: rows})
	finish(t, db)
	ro := openAt(t, "mysql:"+m.CF("x"), ReadOnly)

	f := follow(t, ro, &Query{Rcpt: "@a.example"})
	res, err := ro.Search(t.Context(), &Query{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range res.All() {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == pageRows/2 {
			m.Kill()
			m.Start()
		}
	}
	if n != len(rows) {
		t.Errorf("%d rows over a restart", n)
	}
	commit(t, db, &Batch{Rows: []*flat.Row{named(noon, "one", flat.Sent, 1, "a.example")}})
	f.want(t, "one sent false")

	m.Freeze()
	cause := fmt.Errorf("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, cause)
	defer cancel()
	begun := time.Now()
	for _, q := range []Query{{}, {QueueID: "4gX"}} {
		res, err := ro.Search(ctx, &q)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range res.All() {
			if err != cause {
				t.Errorf("%v", err)
			}
		}
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("a search that is given up takes %v", took)
	}
	m.Thaw()
	commit(t, db, &Batch{Rows: []*flat.Row{named(noon+1, "two", flat.Sent, 1, "a.example")}})
	f.want(t, "two sent false")
	if got := find(t, ro, &Query{}); len(got) != len(rows)+2 {
		t.Errorf("%d rows after all that", len(got))
	}

	m.Kill()
	res, _ = ro.Search(t.Context(), &Query{})
	for _, err := range res.All() {
		wantStatus(t, err, sysexits.Unavailable, fmt.Sprint("127.0.0.1:", m.Port))
	}
}

// Over a network a question costs what a hundred cost here: a search asks few.
func TestMySQLQuestions(t *testing.T) {
	m := mariaDB(t)
	db := kinds[1].open(t)
	var rows []*flat.Row
	const days = 30
	for d := range int64(days) {
		some := storetest.New(uint64(d)+1, noon+d*86400000, 60_000).Rows(200)
		for i, r := range some {
			if r.QIDIn != "" && i%50 == 0 {
				r.QIDIn, r.ClientIP, r.Rcpt, r.RcptDomain = "4gEACHDAY", "192.0.2.7", "rare@rare.example", "rare.example"
			}
		}
		rows = append(rows, some...)
	}
	commit(t, db, &Batch{Rows: rows})
	finish(t, db)
	where := db.Where()
	db.Close()
	ro := openAt(t, where, ReadOnly)
	find(t, ro, &Query{Limit: 1}) // knows the days now
	asked := func() int {
		n := 0
		if _, err := fmt.Sscanf(m.SQL("SHOW GLOBAL STATUS LIKE 'Com_select'"), "Com_select %d", &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	own := -asked()
	own += asked() // what the client asks by itself
	for _, tt := range []struct {
		name  string
		q     Query
		rows  int
		least int
		most  int // SELECTs, one of them for the number of the last commit
	}{
		{"newest", Query{Limit: 50}, 50, 2, 2},
		{"a domain's day", Query{Domain: "customer3.example", Since: noon - noon%86400000, Until: noon + 43200000, Limit: 50}, 1, 3, 3},
		{"a queue id each day", Query{QueueID: "4gEACHDAY"}, days, 3, 3},
		{"a queue id that is nowhere", Query{QueueID: "4gNONE"}, 0, 2, 2},
		{"a client each day", Query{Client: "192.0.2.7"}, days, 5, 9},
		{"a network", Query{Client: "192.0.2.0/24"}, days, 5, 9},
		{"a recipient each day", Query{Rcpt: "rare@rare.example"}, days, 5, 9},
	} {
		before := asked()
		got := find(t, ro, &tt.q)
		if n := asked() - before - own; n < tt.least || n > tt.most || len(got) < tt.rows {
			t.Errorf("%s: %d questions for %d rows; want %d to %d for %d", tt.name, n, len(got), tt.least, tt.most, tt.rows)
		}
	}
}
