package lite

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T) *Conn {
	t.Helper()
	c, err := Open("file:"+filepath.Join(t.TempDir(), "x.db"), Create)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestValuesComeBack(t *testing.T) {
	c := open(t)
	if err := c.Exec("CREATE TABLE x (a, b, c, d, e)"); err != nil {
		t.Fatal(err)
	}
	ins, err := c.Prepare("INSERT INTO x VALUES (?, ?, ?, ?, ?)")
	if err != nil {
		t.Fatal(err)
	}
	defer ins.Close()
	texts := []string{"", "a", "nul\x00inside", strings.Repeat("x", firstRoom-1), strings.Repeat("y", 3*firstRoom), "\xff"}
	for i, s := range texts {
		ins.BindText(1, s)
		ins.BindBlob(2, []byte(s))
		ins.BindInt(3, int64(i)-3)
		ins.BindFloat(4, float64(i)/4)
		if err := ins.Run(); err != nil { // ?5 stays NULL
			t.Fatal(err)
		}
		if c.Changes() != 1 {
			t.Errorf("%d changes", c.Changes())
		}
	}
	sel, err := c.Prepare("SELECT a, b, c, d, e, typeof(a), typeof(b) FROM x ORDER BY rowid")
	if err != nil {
		t.Fatal(err)
	}
	defer sel.Close()
	for i, s := range texts {
		if more, err := sel.Step(); !more || err != nil {
			t.Fatal(more, err)
		}
		if sel.Text(0) != s || string(sel.Bytes(1)) != s || sel.Int(2) != int64(i)-3 || sel.Float(3) != float64(i)/4 ||
			!sel.Null(4) || sel.Null(0) || sel.Text(5) != "text" || sel.Text(6) != "blob" {
			t.Errorf("row %d: %q %q", i, sel.Text(0), sel.Text(5))
		}
	}
	if more, err := sel.Step(); more || err != nil {
		t.Error(more, err)
	}
	if n, err := c.Int("SELECT count(*) FROM x"); n != int64(len(texts)) || err != nil {
		t.Error(n, err)
	}
}

func TestErrors(t *testing.T) {
	c := open(t)
	if _, err := c.Prepare("SELEC"); Code(err) != Generic || !strings.Contains(err.Error(), "syntax error") {
		t.Error(err)
	}
	if err := c.Exec("SELECT * FROM none"); Code(err) != Generic || !strings.Contains(err.Error(), "no such table") {
		t.Error(err)
	}
	s, err := c.Prepare("SELECT ?")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.BindInt(2, 1)
	if _, err := s.Step(); err == nil {
		t.Error("a parameter that is not there can be bound")
	}
	s.Reset()
	s.BindInt(1, 5)
	if more, err := s.Step(); !more || err != nil || s.Int(0) != 5 {
		t.Error("the statement does not recover:", err)
	}
	if _, err := Open("file:/no/such/dir/x.db", Create); Code(err) != CantOpen {
		t.Error(err)
	}
	if Code(nil) != 0 || Code(context.Canceled) != 0 {
		t.Error("a code for what is none of SQLite's")
	}
}

// A statement that would run for ever ends with its context, and the
// connection is as good as before.
func TestWatch(t *testing.T) {
	c := open(t)
	const forever = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		stop := c.Watch(ctx)
		if err := c.Exec(forever); Code(err) != Interrupt {
			t.Error(err)
		}
		stop()
		stop()
		cancel()
		if n, err := c.Int("SELECT 7"); n != 7 || err != nil {
			t.Error(n, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	c.Interrupt()
	if err := c.Close(); err != nil {
		t.Error("closing twice:", err)
	}
}
