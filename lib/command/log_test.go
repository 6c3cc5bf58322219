package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// talk says something at every level, then fails.
func talk(c *cli.Context) error {
	l := Logger(c)
	l.Debug("looking")
	l.Info("started", "file", "a b", "lines", 3)
	l.With("queue_id", "ABC").WithGroup("from").Warn("odd", "helo", "x\x1b[0m\n", slog.Group("", "ip", "::1"))
	l.Error("broken", slog.Group("g", "k", ""), slog.Attr{})
	return errors.New("it \x1bfails")
}

func TestTextLog(t *testing.T) {
	for _, args := range [][]string{nil, {"-v"}} {
		var stderr bytes.Buffer
		Run(&cli.App{Name: "rol-test", Action: talk}, args, nil, nil, &stderr)
		want := "rol-test: started file=\"a b\" lines=3\n" +
			`rol-test: warning: odd queue_id=ABC from.helo="x\x1b[0m\n" from.ip=::1` + "\n" +
			"rol-test: error: broken g.k=\"\"\n" +
			`rol-test: it \x1bfails` + "\n"
		if args != nil {
			want = "rol-test: debug: looking\n" + want
		}
		if stderr.String() != want {
			t.Errorf("%q:\n%s\nwant:\n%s", args, stderr.String(), want)
		}
	}
}

func TestJSONLog(t *testing.T) {
	var stderr bytes.Buffer
	Run(&cli.App{Name: "rol-test", Action: talk}, []string{"--log-format=json"}, nil, nil, &stderr)
	var levels, texts []string
	for line := range strings.Lines(stderr.String()) {
		var m struct{ Level, Msg, Program string }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if m.Program != "rol-test" {
			t.Errorf("%q: program %q", line, m.Program)
		}
		levels, texts = append(levels, m.Level), append(texts, m.Msg)
	}
	if !slices.Equal(levels, []string{"INFO", "WARN", "ERROR", "FATAL"}) ||
		!slices.Equal(texts, []string{"started", "odd", "broken", "it \x1bfails"}) {
		t.Errorf("levels %q, texts %q", levels, texts)
	}
}

// recorder stands for the system's log.
type recorder []string

func (r *recorder) note(level, s string) error { *r = append(*r, level+" "+s); return nil }
func (r *recorder) Debug(s string) error       { return r.note("debug", s) }
func (r *recorder) Info(s string) error        { return r.note("info", s) }
func (r *recorder) Warning(s string) error     { return r.note("warning", s) }
func (r *recorder) Err(s string) error         { return r.note("err", s) }
func (r *recorder) Crit(s string) error        { return r.note("crit", s) }

func TestSyslog(t *testing.T) {
	defer func(old func(string) (syslogger, error)) { dialSyslog = old }(dialSyslog)
	var got recorder
	var tag string
	dialSyslog = func(t string) (syslogger, error) { tag = t; return &got, nil }
	var stderr bytes.Buffer
	Run(&cli.App{Name: "rol-test", Action: talk}, []string{"-v", "--log-format", "syslog"}, nil, nil, &stderr)
	want := []string{
		"debug debug: looking", `info started file="a b" lines=3`,
		`warning warning: odd queue_id=ABC from.helo="x\x1b[0m\n" from.ip=::1`,
		`err error: broken g.k=""`, `crit fatal: it \x1bfails`,
	}
	if tag != "rol/rol-test" || !slices.Equal(got, want) {
		t.Errorf("tag %q, messages\n%q\nwant\n%q", tag, got, want)
	}
	if want := `rol-test: it \x1bfails` + "\n"; stderr.String() != want {
		t.Errorf("stderr %q, want %q", stderr.String(), want)
	}

	dialSyslog = func(string) (syslogger, error) { return nil, errors.New("no syslog") }
	stderr.Reset()
	status := Run(&cli.App{Name: "rol-test", Action: talk}, []string{"--log-format", "syslog"}, nil, nil, &stderr)
	if status != 69 || stderr.String() != "rol-test: option --log-format=syslog: no syslog\n" {
		t.Errorf("without a syslog daemon: status %d, stderr %q", status, stderr.String())
	}
}

func TestLinkedVersion(t *testing.T) {
	defer func(old string) { version = old }(version)
	version = "v1.2.3"
	if got := Version("x"); !strings.HasPrefix(got, "x v1.2.3 (go") {
		t.Errorf("Version = %q", got)
	}
}

func TestWhatHelpShows(t *testing.T) {
	app := &cli.App{
		Name: "rol-test", Usage: "x", UsageText: "rol-test one\nrol-test two", Description: "Examples:\n  rol-test one",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "secret", Hidden: true},
			&cli.StringFlag{Name: "plain"},
			&cli.IntFlag{Name: "year", Usage: "the `YEAR`"},
			&cli.StringSliceFlag{Name: "tag", Value: cli.NewStringSlice("a", "b")},
			&cli.StringFlag{Name: "a-long-name-it-is", Usage: "take `SOMETHING`", Value: "z"},
		},
	}
	for _, f := range app.Flags { // as the parser does before anything is shown
		_ = f.Names()
	}
	var b strings.Builder
	if err := writeHelp(&b, app, nil); err != nil {
		t.Fatal(err)
	}
	want := `rol-test - x

USAGE
   rol-test one
   rol-test two

OPTIONS
   --plain VALUE
   --year YEAR          the YEAR
   --tag VALUE          may be repeated (default: a, b)
   --a-long-name-it-is SOMETHING
                        take SOMETHING (default: z)

EXAMPLES
   rol-test one
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}
