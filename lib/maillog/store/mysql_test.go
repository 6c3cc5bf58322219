package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/tests/peer"
)

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

// dumpMy is all that a database holds, but the tokens.
func dumpMy(t testing.TB, m *peer.MariaDB, name string) string {
	t.Helper()
	var b strings.Builder
	for table := range strings.FieldsSeq(m.SQL("SHOW TABLES FROM `" + name + "`")) {
		what := "*"
		if table == mysqlMeta {
			what = "name, value"
		}
		fmt.Fprintf(&b, "%s\n%s", table, m.SQL(fmt.Sprintf("SELECT %s FROM `%s`.`%s` ORDER BY 1", what, name, table)))
	}
	return b.String()
}

func TestMySQLCommit(t *testing.T) {
	m := peer.StartMariaDB(t)
	db := openMy(t, m.CF("a"))
	for _, n := range []int{1, loadFrom - 1, loadFrom, lookAlways, lookAlways + 1, 1000} {
		made := storetest.New(uint64(n), noon+int64(n)*86400000, 7)
		commitMy(t, db, &Batch{Rows: made.Rows(n)})
		if got := m.SQL("SELECT COUNT(*) FROM a." + dayTable(flat.Day(made.From))); got != fmt.Sprintf("%d\n", n) {
			t.Errorf("%d rows: %s", n, got)
		}
	}
	if err := db.finish(t.Context()); err != nil {
		t.Error(err)
	}
	t.Log(m.SQL("SHOW CREATE TABLE a." + dayTable(flat.Day(noon+86400000))))
	t.Log(m.SQL("SELECT * FROM a.maillog_meta; SELECT seq, length(ids) from a.maillog_changes"))
}
