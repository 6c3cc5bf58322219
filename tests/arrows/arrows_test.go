// Package arrows holds the test that keeps the project in shape: which
// package may import which, who may talk to the process around it, what may
// stand at the top level, and how long a file may be.
package arrows

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

const module = "github.com/rolmail/rolmail/"

// pure packages parse, correlate and plan. They do no I/O, so that they can be
// tested by table and fuzz and give the same answer every time.
var pure = []string{"lib/maillog", "lib/maillog/flat", "lib/maillog/trace"}

// impure is what a pure package may not import, nor anything below it.
var impure = []string{
	"os", "net", "net/http", "net/rpc", "net/smtp", "net/mail", "syscall", "path/filepath", "io/ioutil",
	"io/fs", "database", "log", "plugin", "embed", "testing",
}

// pureHelpers may be imported by a pure package besides other pure ones.
var pureHelpers = []string{"lib/sysexits"}

// sqlPackages and what is below them know SQL; nothing else does.
var sqlPackages = []string{"lib/maillog/store", "lib/mysqlpool", "lib/partition", "lib/mailcluster"}

// sqlImports are database/sql and drivers.
var sqlImports = []string{
	"database/sql", "modernc.org/sqlite", "github.com/go-sql-driver/mysql", "github.com/mattn/go-sqlite3",
}

// processNames are what stands for the process: only lib/command uses them.
// Everything else gets readers, writers and a context, and returns an error.
var processNames = map[string][]string{
	"os":      {"Exit", "Args", "Stdin", "Stdout", "Stderr"},
	"fmt":     {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
	"log":     {"Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln", "Print", "Printf", "Println"},
	"syscall": {"Exit", "Kill"},
}

const (
	maxMain = 80  // lines of a main.go
	maxFile = 500 // lines of any file that is no test
)

// topLevel are the names allowed in the project's root, besides dot files and
// what .gitignore names.
var topLevel = []string{
	"cmd", "lib", "man", "contrib", "tests", "go.mod", "go.sum", "Makefile", "LICENSE", "README.md", "bin",
}

func under(dir string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return dir == root || strings.HasPrefix(dir, root+"/")
	})
}

// check returns what is wrong with a Go file, name relative to the root.
func check(name, src string) (wrong []string) {
	complain := func(format string, args ...any) {
		wrong = append(wrong, name+": "+fmt.Sprintf(format, args...))
	}
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}
	}
	dir, test := path.Dir(name), strings.HasSuffix(name, "_test.go")
	imports := map[string]string{} // name in the file -> path
	for _, spec := range f.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		local := path.Base(imported)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		imports[local] = imported
		for _, reason := range forbiddenImport(dir, imported, test) {
			complain("imports %s: %s", imported, reason)
		}
		if local == "." {
			complain("imports %s by a dot: names must tell where they come from", imported)
		}
	}
	if under(dir, []string{"cmd", "lib"}) && !under(dir, []string{"lib/command"}) && !test {
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(processNames[imports[x.Name]], sel.Sel.Name) {
					complain("uses %s.%s: only lib/command may", imports[x.Name], sel.Sel.Name)
				}
			}
			return true
		})
	}
	lines := strings.Count(src, "\n")
	if path.Base(name) == "main.go" && under(dir, []string{"cmd"}) && lines > maxMain {
		complain("%d lines: a main.go has at most %d, logic belongs in lib", lines, maxMain)
	}
	if !test && lines > maxFile {
		complain("%d lines: more than %d are several files", lines, maxFile)
	}
	return wrong
}

// forbiddenImport says why a package in dir may not import another.
func forbiddenImport(dir, imported string, test bool) (why []string) {
	no := func(s string) { why = append(why, s) }
	own, isOwn := strings.CutPrefix(imported, module)
	std := !strings.Contains(strings.Split(imported, "/")[0], ".")
	program := under(dir, []string{"cmd"})
	if isOwn && under(own, []string{"cmd"}) {
		no("nothing imports a program")
	}
	if isOwn && under(own, []string{"tests"}) && !test && !under(dir, []string{"tests"}) {
		no("only tests import from tests")
	}
	if isOwn && own == "lib/command" && !program && !under(dir, []string{"lib/command", "tests"}) {
		no("only programs know how a program starts")
	}
	if strings.HasPrefix(imported, "github.com/urfave/cli") && !program && dir != "lib/command" {
		no("only cmd and lib/command know the flag library")
	}
	if under(dir, []string{"tests"}) {
		return why
	}
	if imported == "flag" && dir != "lib/command" && !test {
		no("flags are lib/command's")
	}
	if imported == "os/signal" && dir != "lib/command" {
		no("signals are lib/command's")
	}
	if under(imported, sqlImports) && !under(dir, sqlPackages) {
		no("only the stores know SQL")
	}
	if slices.Contains(pure, dir) && !test {
		switch {
		case isOwn && !slices.Contains(pure, own) && !slices.Contains(pureHelpers, own):
			no("a pure package imports pure packages only")
		case !isOwn && !std:
			no("a pure package imports the standard library only")
		case std && imported != "net/netip" && under(imported, impure):
			no("a pure package does no I/O")
		}
	}
	return why
}

func TestArrows(t *testing.T) {
	root := os.DirFS(peer.Root(t))
	files := 0
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || name != "." && d.Name()[0] == '.') {
			return fs.SkipDir
		}
		if d.IsDir() || path.Ext(name) != ".go" {
			return nil
		}
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		files++
		for _, w := range check(name, string(src)) {
			t.Error(w)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Errorf("only %d Go files seen: is this the project?", files)
	}
}

func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir(peer.Root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		ignored := slices.Contains([]string{".test", ".prof"}, filepath.Ext(e.Name()))
		if e.Name()[0] != '.' && !ignored && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s stands at the top level; allowed are %s and dot files", e.Name(), strings.Join(topLevel, " "))
		}
	}
}

// Every rule is broken once here, to see that it is kept.
func TestTheRulesBite(t *testing.T) {
	long := strings.Repeat("\n", 501)
	for _, tt := range []struct{ name, src, want string }{
		{"cmd/a/main.go", `package main; import "github.com/rolmail/rolmail/cmd/b"`, "nothing imports a program"},
		{"lib/x/x.go", `package x; import "github.com/rolmail/rolmail/cmd/b"`, "nothing imports a program"},
		{"lib/x/x.go", `package x; import "github.com/rolmail/rolmail/tests/peer"`, "only tests import from tests"},
		{"lib/x/x_test.go", `package x; import "github.com/rolmail/rolmail/tests/peer"`, ""},
		{"lib/x/x.go", `package x; import "github.com/rolmail/rolmail/lib/command"`, "only programs know"},
		{"cmd/a/main.go", `package main; import "github.com/rolmail/rolmail/lib/command"`, ""},
		{"lib/x/x.go", `package x; import "github.com/urfave/cli/v2"`, "flag library"},
		{"lib/x/x.go", `package x; import "flag"`, "flags are"},
		{"cmd/a/main.go", `package main; import "github.com/urfave/cli/v2"`, ""},
		{"cmd/a/run.go", `package main; import "os/signal"`, "signals are"},
		{"lib/x/x.go", `package x; import "database/sql"`, "know SQL"},
		{"cmd/a/run.go", `package main; import _ "modernc.org/sqlite"`, "know SQL"},
		{"lib/maillog/store/sqlite/x.go", `package x; import "database/sql/driver"`, ""},
		{"lib/maillog/x.go", `package maillog; import "os"`, "no I/O"},
		{"lib/maillog/x_test.go", `package maillog; import "os"`, ""},
		{"lib/maillog/trace/x.go", `package trace; import "net/http"`, "no I/O"},
		{"lib/maillog/trace/x.go", `package trace; import "net/netip"`, ""},
		{"lib/maillog/trace/x.go", `package trace; import "github.com/rolmail/rolmail/lib/maillog/store"`, "pure packages only"},
		{"lib/maillog/flat/x.go", `package flat; import "golang.org/x/sys/unix"`, "standard library only"},
		{"lib/x/x.go", `package x; import "os"; func f() { os.Exit(1) }`, "uses os.Exit"},
		{"lib/x/x.go", `package x; import sys "os"; var a = sys.Args`, "uses os.Args"},
		{"cmd/a/main.go", `package main; import "fmt"; func f() { fmt.Println() }`, "uses fmt.Println"},
		{"cmd/a/main.go", `package main; import "os"; var w = os.Stdout`, "uses os.Stdout"},
		{"lib/x/x.go", `package x; import "log"; func f() { log.Fatal() }`, "uses log.Fatal"},
		{"lib/x/x.go", `package x; import . "os"`, "by a dot"},
		{"lib/command/x.go", `package command; import ("os"; "os/signal"; "flag"); func f() { os.Exit(1); signal.Reset() }`, ""},
		{"lib/x/x.go", `package x; type os struct{}; func f(o struct{ Exit func() }) { o.Exit() }`, ""},
		{"cmd/a/main.go", "package main\n" + long[:80], "a main.go has at most"},
		{"cmd/a/main.go", "package main\n" + long[:79], ""},
		{"lib/x/x.go", "package x\n" + long, "several files"},
		{"lib/x/x.go", "package", "expected"},
	} {
		got := strings.Join(check(tt.name, tt.src), "\n")
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %.80q: got %q, want %q", tt.name, tt.src, got, tt.want)
		}
	}
}
