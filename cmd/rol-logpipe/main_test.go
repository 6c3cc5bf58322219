package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rol-logpipe": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("ROL_CONFIG", env.WorkDir+"/rol.cf")
			return os.WriteFile(env.WorkDir+"/rol.cf", nil, 0o600)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, errors.New("unknown condition " + cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": status, "bytes": writeBytes, "gzip": pack(zip), "zstd": pack(zst), "head": head,
			"newer": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(storetest.Newer(ts.MkAbs(args[0])))
			},
		},
	})
}

// status N COMMAND... runs a command that must end with status N.
func status(ts *testscript.TestScript, neg bool, args []string) {
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

// bytes FILE PIECE... appends pieces to a file: text in Go's string syntax
// without the quotes, or text*N, repeated.
func writeBytes(ts *testscript.TestScript, _ bool, args []string) {
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

// pack FROM TO compresses a file.
func pack(compress func([]byte) ([]byte, error)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		b, err := compress([]byte(ts.ReadFile(args[0])))
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
	}
}

func zip(b []byte) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	if err == nil {
		err = z.Close()
	}
	return out.Bytes(), err
}

func zst(b []byte) ([]byte, error) {
	e, err := zstd.NewWriter(nil)
	if err != nil {
		return nil, err
	}
	return e.EncodeAll(b, nil), nil
}

// head N FROM TO copies the first N bytes, or all but the last -N.
func head(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	b := ts.ReadFile(args[1])
	if n < 0 {
		n += len(b)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(b[:n]), 0o600))
}
