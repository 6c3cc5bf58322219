package main

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/tests/script"
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
			"status": script.Status, "bytes": script.Bytes, "gzip": pack(zip), "zstd": pack(zst), "head": head,
			"newer": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(storetest.Newer(ts.MkAbs(args[0])))
			},
		},
	})
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
