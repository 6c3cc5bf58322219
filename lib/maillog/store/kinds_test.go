package store

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/store/lite"
	"github.com/rolmail/rolmail/tests/peer"
)

// kind is a kind of database that a test is run on.
type kind struct {
	name string
	// fresh is where a new database of the test's own can be.
	fresh func(testing.TB) string
}

var kinds = []kind{
	{"sqlite", func(t testing.TB) string { return filepath.Join(t.TempDir(), "maillog.db") }},
	{"mysql", func(t testing.TB) string {
		return "mysql:" + mariaDB(t).CF(fmt.Sprintf("test%d", databases.Add(1)))
	}},
}

var databases atomic.Int64

// onBoth runs a test on each kind of database.
func onBoth(t *testing.T, f func(*testing.T, kind)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { f(t, k) })
	}
}

func (k kind) open(t testing.TB) *DB {
	t.Helper()
	return openAt(t, k.fresh(t), ReadWrite)
}

// server is the MariaDB of all tests, which have a database each. It is
// started by the first test that needs it and ends with the last.
var server struct {
	once sync.Once
	db   *peer.MariaDB
	tb   packageTB
}

// packageTB is a testing.TB whose end is that of the package's tests.
type packageTB struct {
	testing.TB
	cleanup []func()
}

func (p *packageTB) Cleanup(f func()) { p.cleanup = append(p.cleanup, f) }

func (p *packageTB) end() {
	for i := len(p.cleanup) - 1; i >= 0; i-- {
		p.cleanup[i]()
	}
}

func mariaDB(t testing.TB) *peer.MariaDB {
	t.Helper()
	for _, program := range []string{"mariadbd", "mariadb", "mariadb-install-db"} {
		peer.Need(t, program)
	}
	server.once.Do(func() {
		server.tb.TB = t
		server.db = peer.StartMariaDB(&server.tb, "--local-infile=1")
	})
	if server.db == nil {
		t.Fatal("no MariaDB: see the first test that failed")
	}
	return server.db
}

// sqlite is what is behind a DB that is a file.
func sqlite(db *DB) *sqliteDB { return db.b.(*sqliteDB) }

// mysqlOf is what is behind a DB that is in MySQL; nil if it is a file.
func mysqlOf(db *DB) *mysqlDB {
	m, _ := db.b.(*mysqlDB)
	return m
}

// statement runs a statement on the database itself, as another program would.
func statement(t testing.TB, db *DB, sql string) {
	t.Helper()
	if m := mysqlOf(db); m != nil {
		c, err := m.pool.Conn(t.Context())
		if err == nil {
			defer c.Close()
			_, err = c.ExecContext(t.Context(), sql)
		}
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return
	}
	c, err := lite.Open(uri(sqlite(db).path, ""), lite.Existing)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Exec(sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// dropIndex takes an index away from a day.
func dropIndex(t testing.TB, db *DB, day string, x index) {
	t.Helper()
	if mysqlOf(db) != nil {
		statement(t, db, "DROP INDEX "+x.name+" ON "+dayTable(day))
	} else {
		statement(t, db, "DROP INDEX "+indexName(day, x.name))
	}
}

// commitsKept is how many rows table changes has.
func commitsKept(t testing.TB, db *DB) (n int64) {
	t.Helper()
	err := db.b.read(t.Context(), func(s session) error {
		n = 0
		return s.commits(0, func(int64, []byte) bool { n++; return true })
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// dump is everything in the database, as text, but for the number of commits.
func dump(t testing.TB, db *DB) string {
	t.Helper()
	if m := mysqlOf(db); m != nil {
		return dumpMySQL(t, m)
	}
	var b bytes.Buffer
	var names []string
	c := sqlite(db).w.c
	err := each(c, "SELECT name, sql FROM sqlite_schema ORDER BY name", func(s *lite.Stmt) error {
		fmt.Fprintln(&b, s.Text(0), s.Text(1))
		if strings.HasPrefix(s.Text(1), "CREATE TABLE") {
			names = append(names, s.Text(0))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		err := each(c, "SELECT * FROM "+name, func(s *lite.Stmt) error {
			for i := range s.Columns() {
				if s.Null(i) {
					b.WriteString("null|")
				} else {
					fmt.Fprintf(&b, "%q|", s.Bytes(i))
				}
			}
			fmt.Fprintln(&b, name)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func dumpMySQL(t testing.TB, m *mysqlDB) string {
	t.Helper()
	var b strings.Builder
	c, err := m.pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	query := func(sql string) (all [][]any) {
		rows, err := c.QueryContext(context.Background(), sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		defer rows.Close()
		names, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			values := make([]any, len(names))
			at := make([]any, len(names))
			for i := range values {
				at[i] = &values[i]
			}
			if err := rows.Scan(at...); err != nil {
				t.Fatal(err)
			}
			all = append(all, values)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, table := range query("SHOW TABLES") {
		name := string(table[0].([]byte))
		if name == mysqlMeta {
			continue
		}
		for _, row := range append(query("SHOW CREATE TABLE "+name), query("SELECT * FROM "+name+" ORDER BY 1")...) {
			for _, v := range row {
				fmt.Fprintf(&b, "%q|", v)
			}
			fmt.Fprintln(&b, name)
		}
	}
	return b.String()
}
