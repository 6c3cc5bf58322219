package store

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// A database made by hand from what DDL says is one of ours, in which nothing
// is left to make.
func TestDDL(t *testing.T) { onBoth(t, testDDL) }

func testDDL(t *testing.T, k kind) {
	where := k.fresh(t)
	sql, err := DDL(where)
	if err != nil {
		t.Fatal(err)
	}
	if k.name == "mysql" {
		db := mariaDB(t)
		name := strings.TrimPrefix(filepath.Base(where), "mysql:")
		name, _, _ = strings.Cut(name, "-")
		db.SQL("USE " + name + "; " + sql)
	} else {
		c, err := lite.Open(uri(where, ""), lite.Create)
		if err != nil {
			t.Fatal(err)
		}
		for s := range strings.SplitSeq(strings.TrimSuffix(sql, ";\n"), ";\n") {
			if err := c.Exec(s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	byHand := openAt(t, where, ReadWrite)
	finish(t, byHand)
	got := dump(t, byHand)

	made := k.open(t)
	commit(t, made, &Batch{Rows: []*flat.Row{row(noon, 1, nil)}})
	finish(t, made)
	commit(t, made, &Batch{Delete: []flat.ID{row(noon, 1, nil).ID}})
	statement(t, made, "DELETE FROM "+map[string]string{"sqlite": "changes", "mysql": mysqlChanges}[k.name])
	if want := dump(t, made); got != want {
		t.Errorf("by hand\n%s\nby the program\n%s", got, want)
	}
	if flat.Day(noon) != exampleDay {
		t.Fatal("the test's day is another than DDL's")
	}
	if _, err := DDL("pgsql:x"); sysexits.Status(err) != sysexits.Config {
		t.Error(err)
	}
}
