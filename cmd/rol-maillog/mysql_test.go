package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rolmail/rolmail/tests/peer"
)

// Each script has a database of its own on a MariaDB that all share, and those
// that do not ask for a file's nature are the same as for SQLite.
func TestMySQLScripts(t *testing.T) {
	m := peer.StartMariaDB(t, "--local-infile=1")
	n := 0
	place := func(env *testscript.Env) string {
		n++
		env.Setenv("PORT", fmt.Sprint(m.Port))
		env.Setenv("DBNAME", fmt.Sprint("maillog", n))
		return "mysql:" + m.CF(env.Getenv("DBNAME"))
	}
	p := params(place)
	var err error
	if p.Files, err = filepath.Glob("testdata/mysql/*.txt"); err != nil {
		t.Fatal(err)
	}
	p.Cmds["sql"] = func(ts *testscript.TestScript, _ bool, args []string) {
		for _, sql := range args {
			m.SQL("USE " + ts.Getenv("DBNAME") + "; " + sql)
		}
	}
	// cf FILE NAME=VALUE...: a file as mysql_table(5) has it.
	p.Cmds["cf"] = func(ts *testscript.TestScript, _ bool, args []string) {
		values := map[string]string{"hosts": "127.0.0.1:" + ts.Getenv("PORT"), "dbname": ts.Getenv("DBNAME")}
		for _, arg := range args[1:] {
			name, value, _ := strings.Cut(arg, "=")
			values[name] = value
		}
		text := ""
		for name, value := range values {
			text += name + " = " + value + "\n"
		}
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
	}
	for _, name := range []string{"follow", "formats", "pages", "search", "show", "tenants"} {
		p.Files = append(p.Files, "testdata/script/"+name+".txt")
	}
	testscript.Run(t, p)
}
