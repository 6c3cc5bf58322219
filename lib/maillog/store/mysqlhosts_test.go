package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/tests/peer"
)

// Of two hosts that do not have the same, the writer never goes on from the
// one where the other was: it says so, reads what there is, and does not come
// back before both are at the same commit.
func TestMySQLFailover(t *testing.T) {
	a, b := peer.StartMariaDB(t), peer.StartMariaDB(t)
	cf := filepath.Join(t.TempDir(), "logs.cf")
	text := fmt.Sprintf("hosts = %s %s\ndbname = logs\nuser = root\n", hostPort(a), hostPort(b))
	if err := os.WriteFile(cf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a.SQL("CREATE DATABASE logs")
	b.SQL("CREATE DATABASE logs")
	db, err := openMySQLWith(cf, ReadWrite, mysqlpool.Options{
		Probe: 20 * time.Millisecond, Backoff: 20 * time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		Healthy: 40 * time.Millisecond, CoolDown: 40 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	commitMy(t, db, small(0))
	commitMy(t, db, small(1))
	a.Kill()
	if err := db.commit(t.Context(), small(2)); !errors.Is(err, ErrMoved) {
		t.Fatal(err)
	}
	if pos, err := db.load(t.Context(), func(_, _ []byte) error { return nil }); err != nil || len(pos) > 0 {
		t.Fatal(pos, err)
	}
	for n := range int64(2) {
		commitMy(t, db, small(n))
	}
	// Both have two commits now, but not the same ones.
	a.Start()
	for deadline := time.Now().Add(300 * time.Millisecond); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if db.w.c.Stale() {
			t.Fatal("back to a host with another history")
		}
	}
	commitMy(t, db, small(2))
	wantHost(t, db, b)

	token := strings.TrimSpace(b.SQL("SELECT HEX(token) FROM logs.maillog_meta WHERE name = 'commit'"))
	a.SQL("UPDATE logs.maillog_meta SET value = 3, token = x'" + token + "' WHERE name = 'commit'") // as replication would
	for deadline := time.Now().Add(20 * time.Second); !db.w.c.Stale(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not back to the preferred host that has everything")
		}
	}
	commitMy(t, db, small(3))
	wantHost(t, db, a)
	wantRows(t, db, small(3).Rows)
}

func wantHost(t *testing.T, db *mysqlDB, m *peer.MariaDB) {
	t.Helper()
	if got := db.w.c.Host(); got != hostPort(m) {
		t.Errorf("the session is on %s, want %s", got, hostPort(m))
	}
}
