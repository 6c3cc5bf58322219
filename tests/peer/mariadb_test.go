package peer

import "testing"

func TestMariaDBStartsAgainAfterAKill(t *testing.T) {
	m := StartMariaDB(t)
	m.SQL("CREATE DATABASE a; CREATE TABLE a.t (x INT); INSERT INTO a.t VALUES (1), (2)")
	m.Kill()
	m.Start()
	if got := m.SQL("SELECT count(*) FROM a.t"); got != "2\n" {
		t.Fatalf("got %q, want 2", got)
	}
}
