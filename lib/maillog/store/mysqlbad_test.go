package store

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/tests/peer"
)

// wantLineOf reports an error that is not one line with the words and the
// status.
func wantLineOf(t *testing.T, err error, status int, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	text := err.Error()
	if sysexits.Status(err) != status || strings.ContainsAny(text, "\n\r\x00") || len(text) > 600 {
		t.Errorf("status %d, want %d: %q", sysexits.Status(err), status, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in %q", w, text)
		}
	}
}

// Whoever may not get in, or may not write, is told why and what to do.
func TestMySQLRefused(t *testing.T) {
	m := peer.StartMariaDB(t)
	m.SQL(`CREATE USER writer@'127.0.0.1' IDENTIFIED BY 'right'; CREATE DATABASE logs;
		GRANT ` + mysqlWriteGrants + ` ON logs.* TO writer@'127.0.0.1'`)
	good := m.CF("logs", "user = writer", "password = right")
	db := openMy(t, good)
	commitMy(t, db, small(0))
	if err := db.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.close()
	open := func(cf string) error {
		db, err := openMySQL(cf, ReadWrite)
		if err == nil {
			db.close()
		}
		return err
	}
	wantLineOf(t, open(m.CF("logs", "user = writer", "password = wrong")), sysexits.NoPerm, "writer", "password", "see to user and password")

	cf := m.CF("gone", "user = root")
	m.SQL("DROP DATABASE gone")
	wantLineOf(t, open(cf), sysexits.Config, "there is no database", "gone", "CREATE DATABASE")

	for _, lacks := range []string{"CREATE", "INSERT", "UPDATE", "SELECT"} {
		user, name := "no"+strings.ToLower(lacks), "for"+strings.ToLower(lacks)
		var has []string
		for p := range strings.SplitSeq(mysqlWriteGrants, ", ") {
			if p != lacks {
				has = append(has, p)
			}
		}
		m.SQL(fmt.Sprintf("CREATE DATABASE %s; CREATE USER %s@'127.0.0.1'; GRANT %s ON %[1]s.* TO %[2]s@'127.0.0.1'",
			name, user, strings.Join(has, ", ")))
		cf := m.CF(name, "user = "+user)
		db, err := openMySQL(cf, ReadWrite)
		if err == nil {
			err = db.commit(t.Context(), small(0))
			db.close()
		}
		wantLineOf(t, err, sysexits.NoPerm, lacks+" ", "GRANT "+mysqlWriteGrants+" ON "+name+".* TO ", user)
	}
	m.SQL("CREATE DATABASE noindex; CREATE USER noindex@'127.0.0.1'; GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON noindex.* TO noindex@'127.0.0.1'")
	db = openMy(t, m.CF("noindex", "user = noindex"))
	commitMy(t, db, small(0))
	wantLineOf(t, db.finish(t.Context()), sysexits.NoPerm, "building indexes", "GRANT ")

	db = openMy(t, good)
	commitMy(t, db, small(1))
	m.SQL("SET GLOBAL read_only = 1")
	wantLineOf(t, db.commit(t.Context(), small(2)), sysexits.Unavailable, "read-only")
	wantLineOf(t, open(good), sysexits.Unavailable, "read")
	m.SQL("SET GLOBAL read_only = 0")
	commitMy(t, db, small(2))
	wantRows(t, db, append(small(1).Rows, small(2).Rows...))
}

// Tables that are not ours, or of a later release, are left alone.
func TestMySQLOthersTables(t *testing.T) {
	m := mariaDB(t)
	day := flat.Day(noon)
	for name, tt := range map[string]struct {
		sql    string // on top of a database of ours
		status int
		words  string
	}{
		"meta":      {"DROP TABLE maillog_meta; CREATE TABLE maillog_meta (x INT)", sysexits.Data, "another program's"},
		"no meta":   {"DROP TABLE maillog_meta", sysexits.Data, "no maillog_meta"},
		"empty":     {"DELETE FROM maillog_meta", sysexits.Data, "no schema version"},
		"newer":     {"UPDATE maillog_meta SET value = 2 WHERE name = 'schema'", sysexits.Data, "version of the database is 2 and this program knows up to 1; use a newer release"},
		"negative":  {"UPDATE maillog_meta SET value = -1 WHERE name = 'schema'", sysexits.Data, "version -1"},
		"no commit": {"DELETE FROM maillog_meta WHERE name = 'commit'", sysexits.Data, "lost its row"},
		"state":     {"DROP TABLE maillog_state", sysexits.Data, "maillog_state is gone"},
		"positions": {"ALTER TABLE maillog_positions DROP COLUMN updated", sysexits.Data, "maillog_positions has other columns"},
		"day":       {"ALTER TABLE maillog_" + day + " DROP COLUMN verdict", sysexits.Data, "has no column verdict"},
		"view":      {"DROP TABLE maillog_" + day + "; CREATE VIEW maillog_" + day + " AS SELECT 1 AS id", sysexits.Data, "has no column"},
		"narrow":    {"ALTER TABLE maillog_" + day + " MODIFY kind VARCHAR(2)", sysexits.Data, "does not take a row as it is"},
	} {
		t.Run(name, func(t *testing.T) {
			cf := newMy(t)
			cfg, err := mysqlpool.ReadFile(cf)
			if err != nil {
				t.Fatal(err)
			}
			db := openMy(t, cf)
			commitMy(t, db, small(0))
			if name == "narrow" {
				commitMy(t, db, &Batch{Delete: []flat.ID{small(0).Rows[0].ID}})
				m.SQL("DELETE FROM " + cfg.DBName + "." + dayTable(day))
			}
			db.close()
			m.SQL("USE " + cfg.DBName + ";" + tt.sql)
			before := m.SQL("SHOW TABLES FROM " + cfg.DBName)
			again, err := openMySQL(cf, ReadWrite)
			if err == nil {
				defer again.close()
				err = again.commit(t.Context(), small(0))
			}
			wantLineOf(t, err, tt.status, cf, tt.words)
			if after := m.SQL("SHOW TABLES FROM " + cfg.DBName); after != before {
				t.Errorf("tables were\n%s\nand are\n%s", before, after)
			}
		})
	}
	// A database with other programs' tables is no hindrance.
	cf := newMy(t)
	cfg, err := mysqlpool.ReadFile(cf)
	if err != nil {
		t.Fatal(err)
	}
	m.SQL("USE " + cfg.DBName + "; CREATE TABLE msgs (id INT); CREATE TABLE maillog_report (id INT)")
	commitMy(t, openMy(t, cf), small(0))
}

// However far the making of the tables came, or a later step, before the
// program was killed: the next one completes it.
func TestMySQLMigrate(t *testing.T) {
	m := mariaDB(t)
	second := []string{
		"CREATE TABLE IF NOT EXISTS maillog_extra (id INT PRIMARY KEY)",
		"ALTER TABLE maillog_positions ADD COLUMN IF NOT EXISTS extra INT",
		"REPLACE INTO maillog_extra VALUES (1)",
	}
	crash := fmt.Errorf("killed")
	for at := 0; ; at++ {
		cf := newMy(t)
		n := 0
		steps := []mysqlStep{func(ctx context.Context, w *mysqlWriter) error {
			for i := range mysqlTables {
				if n++; n == at {
					return crash
				}
				if _, err := w.exec(ctx, mysqlTables[i].create()); err != nil {
					return err
				}
			}
			return mysqlSteps[0](ctx, w)
		}, func(ctx context.Context, w *mysqlWriter) error {
			for _, sql := range second {
				if n++; n == at {
					return crash
				}
				if _, err := w.exec(ctx, sql); err != nil {
					return err
				}
			}
			if n++; n == at {
				return crash
			}
			return nil
		}}
		err := openSteps(t, cf, steps)
		if at > 0 && err == nil {
			break
		}
		if at > 0 && !strings.Contains(err.Error(), "killed") {
			t.Fatal(err)
		}
		at := at
		defer func(was int) { at = was }(at)
		n = 1000
		if err := openSteps(t, cf, steps); err != nil {
			t.Errorf("after a kill at statement %d: %v", at, err)
		}
		cfg, err := mysqlpool.ReadFile(cf)
		if err != nil {
			t.Fatal(err)
		}
		got := m.SQL("USE " + cfg.DBName + "; SELECT name, value FROM maillog_meta; SELECT * FROM maillog_extra; SELECT extra FROM maillog_positions")
		if got != "commit\t0\nschema\t2\n1\n" {
			t.Errorf("after a kill at statement %d: %q", at, got)
		}
		if _, err := openMySQL(cf, ReadWrite); err == nil || !strings.Contains(err.Error(), "newer release") {
			t.Errorf("a release before: %v", err)
		}
	}
}

// openSteps opens a database as a release with other steps would.
func openSteps(t *testing.T, cf string, steps []mysqlStep) error {
	t.Helper()
	cfg, err := mysqlpool.ReadFile(cf)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := mysqlpool.Open(cfg, mysqlpool.Options{Interpolate: true})
	if err != nil {
		t.Fatal(err)
	}
	db := &mysqlDB{where: cf, name: cfg.DBName, pool: pool}
	db.w = newMySQLWriter(db)
	db.w.steps = steps
	defer db.close()
	return db.w.open(t.Context())
}

// A day's table that is dropped under the writer is made again, and the batch
// written whole; what was in it is gone.
func TestMySQLDayDroppedUnderWriter(t *testing.T) {
	m := mariaDB(t)
	for _, n := range []int{5, lookAlways + 5} {
		cf := newMy(t)
		cfg, err := mysqlpool.ReadFile(cf)
		if err != nil {
			t.Fatal(err)
		}
		db := openMy(t, cf)
		made := storetest.New(1, noon, 10)
		commitMy(t, db, &Batch{Rows: made.Rows(n)})
		if err := db.finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.SQL("DROP TABLE " + cfg.DBName + "." + dayTable(flat.Day(noon)))
		rows := made.Rows(n)
		other := storetest.New(1, noon+dayMillis, 10).Rows(n)
		commitMy(t, db, &Batch{Rows: append(other, rows...), Positions: []Position{{Offset: 7}}})
		wantRows(t, db, append(rows, other...))
		if err := db.finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.SQL("DROP TABLE " + cfg.DBName + "." + dayTable(flat.Day(noon)))
		commitMy(t, db, &Batch{Delete: []flat.ID{rows[0].ID}})
		if err := db.finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.SQL("DROP TABLE " + cfg.DBName + "." + dayTable(flat.Day(noon+dayMillis)))
		db.w.days[flat.Day(noon+dayMillis)].indexed = false
		if err := db.finish(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A server that takes but short packets, or no LOAD DATA LOCAL, is written to
// as well.
func TestMySQLNarrow(t *testing.T) {
	m := peer.StartMariaDB(t, "--max-allowed-packet=16384")
	big := small(1)
	big.Rows = append(big.Rows, storetest.New(9, noon, 10).Rows(3000)...)
	big.Rows = append(big.Rows, strangeRows()...)
	for i := range 2000 {
		big.State = append(big.State, StateChange{fmt.Appendf(nil, "key%d", i), make([]byte, 300)})
	}
	big.State = append(big.State, StateChange{[]byte("big"), make([]byte, 8000)})
	for i := range 300 {
		big.Positions = append(big.Positions, Position{Prefix: [32]byte{byte(i), byte(i >> 8), 1}, Name: strings.Repeat("n", 900)})
	}
	gone := &Batch{}
	for _, r := range big.Rows[:1500] {
		gone.Delete = append(gone.Delete, r.ID)
	}
	for _, ch := range big.State[:1500] {
		gone.State = append(gone.State, StateChange{Key: ch.Key})
	}
	var dumps []string
	for _, how := range []string{"local", "refused"} {
		if how == "refused" {
			m.SQL("SET GLOBAL local_infile = 0")
		}
		db := openMy(t, m.CF(how))
		commitMy(t, db, big)
		wantRows(t, db, big.Rows)
		if db.w.local != (how == "local") {
			t.Errorf("%s: LOAD DATA LOCAL is %t", how, db.w.local)
		}
		commitMy(t, db, gone)
		for _, r := range big.Rows {
			r.Lines = min(r.Lines, 1<<62) + 1
		}
		commitMy(t, db, big)
		dumps = append(dumps, contents(t, db))
		for _, r := range big.Rows {
			r.Lines--
		}
	}
	wantSame(t, dumps[1], dumps[0])
}

// A full disk is told as such.
func TestMySQLDiskFull(t *testing.T) {
	db := openMy(t, newMy(t))
	for _, e := range []*mysql.MySQLError{
		{Number: 1114, Message: "The table 'maillog_20261123' is full"},
		{Number: 1021, Message: "Disk full (/tmp/x); waiting for someone to free some space..."},
	} {
		wantLineOf(t, db.fail(t.Context(), "writing", e), sysexits.IO, "writing", "make room")
	}
}

// Locks of others are waited for, and a deadlock is run again.
func TestMySQLLocked(t *testing.T) {
	cf := newMy(t)
	db := openMy(t, cf)
	commitMy(t, db, small(0))
	session := openOther(t, cf)
	other := func(sql string) {
		if _, err := session.ExecContext(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for n, lock := range []string{
		"SELECT * FROM maillog_meta FOR UPDATE", "UPDATE maillog_state SET data = 'x' WHERE k = 'n'",
	} {
		other("START TRANSACTION")
		other(lock)
		done := make(chan error, 1)
		go func() { done <- db.commit(t.Context(), small(int64(n)+1)) }()
		waiting(t, cf)
		if n == 1 {
			// The server ends the smaller transaction of a deadlock.
			other("INSERT INTO maillog_state SELECT CONCAT('heavy', seq), '' FROM seq_1_to_20000")
			other("UPDATE maillog_meta SET value = value WHERE name = 'commit'")
		}
		other("ROLLBACK")
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	wantSame(t, contents(t, db), undisturbed(t, 3, small))
}

// openOther is another program's session.
func openOther(t *testing.T, cf string) *mysqlpool.Conn {
	t.Helper()
	cfg, err := mysqlpool.ReadFile(cf)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := mysqlpool.Open(cfg, mysqlpool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	c, err := pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// waiting returns when a transaction waits for a lock.
func waiting(t *testing.T, cf string) {
	t.Helper()
	m := mariaDB(t)
	for deadline := time.Now().Add(20 * time.Second); ; {
		if m.SQL("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'") != "0\n" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody waits")
		}
	}
}
