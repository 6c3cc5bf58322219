// Package script has the commands that the scripts of several programs' tests
// use, besides those of package testscript.
package script

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// Status is "status N COMMAND...": it runs a command that must end with status N.
func Status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	default:
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("status %d, want %d; stderr: %s", got, want, ts.ReadFile("stderr"))
	}
}

// Bytes is "bytes FILE PIECE...": it appends pieces to a file: text in Go's string syntax
// without the quotes, or text*N, repeated.
func Bytes(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer f.Close()
	for _, piece := range args[1:] {
		n := 1
		if i := strings.LastIndexByte(piece, '*'); i >= 0 {
			n, err = strconv.Atoi(piece[i+1:])
			ts.Check(err)
			piece = piece[:i]
		}
		text, err := strconv.Unquote(`"` + piece + `"`)
		ts.Check(err)
		_, err = f.WriteString(strings.Repeat(text, n))
		ts.Check(err)
	}
}
