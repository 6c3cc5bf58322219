package store

import (
	"database/sql/driver"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
)

// explainMySQL is the plan of a statement: for each step the index it uses and
// what else is said.
func explainMySQL(t *testing.T, db *DB, sql string, args []any) (plan []string) {
	t.Helper()
	err := db.b.read(t.Context(), func(s session) error {
		plan = nil
		return s.(*myView).query(nil, "EXPLAIN "+sql, args, func(row []driver.Value) error {
			plan = append(plan, myText(row[5])+": "+myText(row[len(row)-1]))
			return nil
		})
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return plan
}

// Every search that has an index uses it, alone, without sorting and without
// looking at rows; every other one walks the day in order of id. None depends
// on statistics: the tables are almost empty.
func TestMySQLPlans(t *testing.T) {
	db := kinds[1].open(t)
	commit(t, db, &Batch{Rows: storetest.New(1, noon, 10).Rows(300)})
	finish(t, db)
	day := flat.Day(noon)
	check := func(q *Query, what, index, sql string, args []any) {
		t.Helper()
		for _, step := range explainMySQL(t, db, sql, args) {
			key, extra, _ := strings.Cut(step, ": ")
			if key != index || strings.Contains(extra, "filesort") || strings.Contains(extra, "temporary") ||
				strings.Contains(extra, "Backward index scan") || what == "ids" && !strings.Contains(extra, "Using index") {
				t.Errorf("%+v: %s uses %s, want %s: %s", *q, what, step, index, sql)
			}
		}
	}
	for _, q := range []Query{
		{},
		{QueueID: "4gX"},
		{MessageID: "x@y"},
		{Client: "192.0.2.1"},
		{Client: "192.0.2.0/24"},
		{Client: "192.0.2.128/26"},
		{Client: "10.0.0.0/9"},
		{Client: "2001:db8::/32"},
		{Client: "::/0"},
		{Rcpt: "x@customer3.example"},
		{Rcpt: "@customer3.example"},
		{Rcpt: "x*"},
		{Sender: "x@customer3.example"},
		{Sender: "<>"},
		{Domain: "customer3.example"},
		{Domain: "customer3.example", Sender: "*x*"},
		{Domain: "bücher.example", Rcpt: "a@bücher.example"},
		{Domain: "customer3.example", Rcpt: "@elsewhere.example", Outcomes: []string{"sent", "bounced"}},
		{ParentID: storetest.ID(noon, 1)},
		{Outcomes: []string{"expired"}, Kinds: []string{"mail"}, Verdicts: []string{"spam"}, Helo: "x", Text: "y"},
	} {
		for _, oldest := range []bool{true, false} {
			q.OldestFirst = oldest
			c, err := db.compile(&q)
			if err != nil {
				t.Fatal(err)
			}
			from, to := c.bounds()
			for i := range c.arms {
				a := &c.arms[i]
				check(&q, "ids", a.index, c.myIDsSQL(day, 0, a, 64), append(mysqlWords.args(nil, a.conds), from, to))
			}
			ids := []any{storetest.ID(noon, 1), storetest.ID(noon, 2)}
			check(&q, "rows", "PRIMARY", c.myRowsSQL(day, len(ids)), mysqlWords.args(ids, c.all))
			args := mysqlWords.args([]any{from, to}, c.all)
			for i := range c.arms {
				args = mysqlWords.args(args, c.arms[i].conds)
			}
			check(&q, "scan", "PRIMARY", c.myScanSQL(day, 64), args)
		}
	}
}

// Whatever is asked, no statement calls a function in its WHERE clause or
// joins tables, and what is asked is no part of its text.
func TestMySQLStatementsArePlain(t *testing.T) {
	call := regexp.MustCompile(`(?i)([\w']+) *\(`)
	words := []string{"IN", "AND", "OR", "INDEX", "WHERE", "ALL"}
	for _, w := range wantedOf(corpus(2500)) {
		c, err := compile(&w.q)
		if err != nil {
			t.Fatal(err)
		}
		all := []string{c.myScanSQL("20261123", 64), c.myRowsSQL("20261123", 3)}
		for i := range c.arms {
			all = append(all, c.myIDsSQL("20261123", i, &c.arms[i], 64))
		}
		for _, sql := range append(all, union(all)) {
			for _, m := range call.FindAllStringSubmatch(sql, -1) {
				if !slices.Contains(words, m[1]) {
					t.Errorf("%s: calls %s: %s", w.name, m[1], sql)
				}
			}
			plain := strings.ReplaceAll(sql, "ESCAPE '!'", "")
			if strings.Contains(sql, "JOIN") || strings.ContainsAny(plain, `'"@`) {
				t.Errorf("%s: %s", w.name, sql)
			}
		}
	}
}
