package command_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/rolmail/rolmail/lib/command"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// seen is what the action of a test program got.
type seen struct {
	ran      string
	operands []string
	tags     []string
	text     string
	limit    int
	dry      bool
	verbose  int
}

// flat is a program without commands.
func flat(s *seen, action func(*cli.Context) error) *cli.App {
	return &cli.App{
		Name: "rol-test", Usage: "try things", ArgsUsage: "[FILE|-]...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "db", Aliases: []string{"d"}, Usage: "the `DB` to use"},
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 50, Usage: "show `N` rows"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"y"}, Usage: "only look"},
			&cli.StringSliceFlag{Name: "tag", Usage: "a `TAG`"},
		},
		Action: func(c *cli.Context) error {
			*s = seen{
				ran: "flat", operands: c.Args().Slice(), tags: c.StringSlice("tag"), text: c.String("db"),
				limit: c.Int("limit"), dry: c.Bool("dry-run"), verbose: command.Verbose(c),
			}
			if action != nil {
				return action(c)
			}
			return nil
		},
	}
}

// nested is a program with commands.
func nested(s *seen) *cli.App {
	sub := func(name string) cli.ActionFunc {
		return func(c *cli.Context) error {
			*s = seen{
				ran: name, operands: c.Args().Slice(), text: c.String("domain"),
				tags: c.StringSlice("outcome"), verbose: command.Verbose(c),
			}
			return nil
		}
	}
	return &cli.App{
		Name: "rol-nest", Usage: "try commands",
		Flags: []cli.Flag{&cli.StringFlag{Name: "db", Usage: "the `DB` to use"}},
		Commands: []*cli.Command{
			{
				Name: "search", Usage: "find", Description: "Finds.\n\nExamples:\n  rol-nest search --domain x",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "domain", Usage: "only `D`"},
					&cli.StringSliceFlag{Name: "outcome", Usage: "only `O`"},
					&cli.IntFlag{Name: "count", Usage: "only `N`"},
				},
				Action: sub("search"),
			},
			{Name: "show", Usage: "show one", ArgsUsage: "ID", Action: sub("show")},
		},
	}
}

func runApp(t *testing.T, app *cli.App, opts []command.Option, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	t.Setenv(command.ConfigEnv, "")
	os.Unsetenv(command.ConfigEnv)
	var out, errs bytes.Buffer
	status = command.Run(app, args, strings.NewReader(""), &out, &errs, opts...)
	return status, out.String(), errs.String()
}

// Every command line, and what the action gets of it: urfave/cli alone takes
// h, help and --generate-bash-completion away, splits slices, takes -v for
// the version, and stops at the first operand.
func TestArguments(t *testing.T) {
	base := seen{ran: "flat", limit: 50}
	with := func(f func(*seen)) seen { s := base; f(&s); return s }
	ops := func(o ...string) func(*seen) { return func(s *seen) { s.operands = o } }
	for _, tt := range []struct {
		args string
		want seen
	}{
		{"", base},
		{"a b", with(ops("a", "b"))},
		{"h", with(ops("h"))},
		{"help", with(ops("help"))},
		{"help x", with(ops("help", "x"))},
		{"--generate-bash-completion", seen{}},
		{"-- --generate-bash-completion", with(ops("--generate-bash-completion"))},
		{"x -- --generate-bash-completion", with(ops("x", "--generate-bash-completion"))},
		{"-", with(ops("-"))},
		{"--tag a,b --tag c", with(func(s *seen) { s.tags = []string{"a,b", "c"} })},
		{"-v", with(func(s *seen) { s.verbose = 1 })},
		{"-vv --verbose", with(func(s *seen) { s.verbose = 3 })},
		{"FILE --dry-run", with(func(s *seen) { s.operands = []string{"FILE"}; s.dry = true })},
		{"a -n 3 b --db=x c", with(func(s *seen) { s.operands = []string{"a", "b", "c"}; s.limit = 3; s.text = "x" })},
		{"-n3 -dx", with(func(s *seen) { s.limit = 3; s.text = "x" })},
		{"-yvn3", with(func(s *seen) { s.limit = 3; s.dry = true; s.verbose = 1 })},
		{"-n -3", with(func(s *seen) { s.limit = -3 })},
		{"--db --dry-run", with(func(s *seen) { s.text = "--dry-run" })},
		{"--db --help", with(func(s *seen) { s.text = "--help" })},
		{"--db=a=b", with(func(s *seen) { s.text = "a=b" })},
		{"--db=", base},
		{"--dry-run=false", base},
		{"--db x -d y", with(func(s *seen) { s.text = "y" })},
		{"--db x db", with(func(s *seen) { s.text = "x"; s.operands = []string{"db"} })},
		{"-- a --dry-run -n", with(ops("a", "--dry-run", "-n"))},
		{"-- -- x", with(ops("--", "x"))},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var got seen
			status, stdout, stderr := runApp(t, flat(&got, nil), nil, strings.Fields(tt.args)...)
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			if tt.want.ran != "" && (status != 0 || stdout != "" || stderr != "") {
				t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		args string
		want seen
	}{
		{"search --domain a.example", seen{ran: "search", text: "a.example"}},
		{"-v search -v --db x", seen{ran: "search", verbose: 2}},
		{"search --outcome a,b", seen{ran: "search", tags: []string{"a,b"}}},
		{"show help", seen{ran: "show", operands: []string{"help"}}},
		{"show h --db x", seen{ran: "show", operands: []string{"h"}}},
		{"show search", seen{ran: "show", operands: []string{"search"}}},
		{"-- show -- -x", seen{ran: "show", operands: []string{"--", "-x"}}},
		{"show -- --help", seen{ran: "show", operands: []string{"--help"}}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var got seen
			status, stdout, stderr := runApp(t, nested(&got), nil, strings.Fields(tt.args)...)
			if fmt.Sprint(got) != fmt.Sprint(tt.want) || status != 0 || stdout != "" || stderr != "" {
				t.Errorf("got  %+v, status %d, stdout %q, stderr %q\nwant %+v", got, status, stdout, stderr, tt.want)
			}
		})
	}
}

func TestUsageErrors(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--generate-bash-completion", "rol-test: unknown option --generate-bash-completion; see rol-test --help"},
		{"--dry-rum", "rol-test: unknown option --dry-rum; did you mean --dry-run? see rol-test --help"},
		{"--dry", "rol-test: unknown option --dry; did you mean --dry-run? see rol-test --help"},
		{"-q", "rol-test: unknown option -q; see rol-test --help"},
		{"-limit 3", "rol-test: unknown option -limit; did you mean --limit? see rol-test --help"},
		{"--n 3", "rol-test: unknown option --n; see rol-test --help"},
		{"--db", "rol-test: option --db needs a value; see rol-test --help"},
		{"-n", "rol-test: option -n needs a value; see rol-test --help"},
		{"--limit x", `rol-test: invalid value "x" for option --limit; see rol-test --help`},
		{"--dry-run=maybe", "rol-test: option --dry-run takes no value; see rol-test --help"},
		{"--log-format xml", `rol-test: option --log-format: "xml": want text, json or syslog`},
		{"--\x1b[31m", `rol-test: unknown option --\x1b[31m; see rol-test --help`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var got seen
			status, stdout, stderr := runApp(t, flat(&got, nil), nil, strings.Fields(tt.args)...)
			if status != 64 || stdout != "" || stderr != tt.want+"\n" || got.ran != "" {
				t.Errorf("status %d, stdout %q, ran %q\nstderr %q\nwant   %q", status, stdout, got.ran, stderr, tt.want)
			}
		})
	}
	for _, tt := range []struct{ args, want string }{
		{"find", `rol-nest: unknown command "find"; there are search, show; see rol-nest --help`},
		{"serch", `rol-nest: unknown command "serch"; there are search, show; did you mean search? see rol-nest --help`},
		{"help", `rol-nest: unknown command "help"; there are search, show; see rol-nest --help`},
		{"search x", `rol-nest: unexpected operand "x"; see rol-nest search --help`},
		{"search --count x", `rol-nest: invalid value "x" for option --count; see rol-nest search --help`},
		{"search --limit 3", "rol-nest: unknown option --limit; see rol-nest search --help"},
		{"--domain x search", "rol-nest: unknown option --domain; see rol-nest --help"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var got seen
			status, stdout, stderr := runApp(t, nested(&got), nil, strings.Fields(tt.args)...)
			if status != 64 || stdout != "" || stderr != tt.want+"\n" || got.ran != "" {
				t.Errorf("status %d, stdout %q, ran %q\nstderr %q\nwant   %q", status, stdout, got.ran, stderr, tt.want)
			}
		})
	}
}

func TestNoCommandShowsUsageOnStderr(t *testing.T) {
	var got seen
	status, stdout, stderr := runApp(t, nested(&got), nil)
	if status != 64 || stdout != "" || !strings.HasPrefix(stderr, "USAGE\n") ||
		!strings.Contains(stderr, "   search               find\n") ||
		!strings.HasSuffix(stderr, "\nrol-nest: a command is missing; see rol-nest --help\n") {
		t.Errorf("status %d, stdout %q, stderr:\n%s", status, stdout, stderr)
	}
}

func TestRequiredOption(t *testing.T) {
	app := func() *cli.App {
		return &cli.App{
			Name: "rol-test", Action: func(*cli.Context) error { return nil },
			Flags: []cli.Flag{&cli.StringFlag{Name: "name", Required: true, EnvVars: []string{"ROL_TEST_NAME"}}},
		}
	}
	status, stdout, stderr := runApp(t, app(), nil)
	if status != 64 || stdout != "" || stderr != "rol-test: option --name is missing; see rol-test --help\n" {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
	if status, _, stderr = runApp(t, app(), nil, "--name", "x"); status != 0 {
		t.Errorf("given: status %d, %s", status, stderr)
	}
	t.Setenv("ROL_TEST_NAME", "x")
	if status, _, stderr = runApp(t, app(), nil); status != 0 {
		t.Errorf("from the environment: status %d, %s", status, stderr)
	}
}

func TestExitStatus(t *testing.T) {
	plain := errors.New("plain")
	for _, tt := range []struct {
		name             string
		err              error
		status, delivery int
		stderr           string
	}{
		{"done", nil, 0, 0, ""},
		{"unclassified", plain, 70, 75, "rol-test: plain\n"},
		{"classified", sysexits.Wrap(sysexits.Config, plain), 78, 75, "rol-test: plain\n"},
		{"verdict", sysexits.Silent(3), 3, 75, ""},
		{"permanent", sysexits.Permanent(67, plain), 67, 67, "rol-test: plain\n"},
		{"cli.Exit does not exit", cli.Exit("bye", 5), 70, 75, "rol-test: bye\n"},
		{"joined", errors.Join(plain, sysexits.Errorf(74, "other")), 74, 75, "rol-test: plain; other\n"},
		{"hostile", errors.New("a\x1b[2Jb\rc\u202ed"), 70, 75, `rol-test: a\x1b[2Jb\rc\u202ed` + "\n"},
		{"long", errors.New(strings.Repeat("ä", 4000)), 70, 75, "rol-test: " + strings.Repeat("ä", 1000) + "…\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, d := range []bool{false, true} {
				opts, want := []command.Option(nil), tt.status
				if d {
					opts, want = []command.Option{command.Delivery}, tt.delivery
				}
				app := flat(new(seen), func(*cli.Context) error { return tt.err })
				status, stdout, stderr := runApp(t, app, opts)
				if status != want || stdout != "" || stderr != tt.stderr {
					t.Errorf("delivery %v: status %d, want %d; stdout %q, stderr %q, want %q",
						d, status, want, stdout, stderr, tt.stderr)
				}
			}
		})
	}
	if status, _, _ := runApp(t, flat(new(seen), nil), []command.Option{command.Delivery}, "--no-such"); status != 75 {
		t.Errorf("usage error in a delivery: status %d, want 75", status)
	}
}

func TestPanicIsABug(t *testing.T) {
	app := flat(new(seen), func(*cli.Context) error { panic("oh") })
	status, _, stderr := runApp(t, app, nil)
	if status != 70 || !strings.Contains(stderr, "command_test.go:") ||
		!strings.HasSuffix(stderr, "rol-test: this is a bug, please report it with the lines above: oh\n") {
		t.Errorf("status %d, stderr:\n%s", status, stderr)
	}
}

// failing is a standard output that fails.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "/dev/stdout", Err: f.err}
}

func TestStandardOutputFails(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		stderr string
	}{
		{syscall.ENOSPC, 74, "rol-test: writing standard output: write /dev/stdout: no space left on device\n"},
		{syscall.EPIPE, 0, ""},
	} {
		// Nothing may be taken for delivered because nobody was listening.
		app := flat(new(seen), func(c *cli.Context) error { _, _ = c.App.Writer.Write([]byte("x")); return nil })
		if status := command.Run(app, nil, nil, failing{tt.err}, io.Discard, command.Delivery); status != 75 {
			t.Errorf("%v in a delivery: status %d, want 75", tt.err, status)
		}
		for _, heeds := range []bool{true, false} { // whether the program looks at the error
			t.Run(fmt.Sprint(tt.err, heeds), func(t *testing.T) {
				var ctx context.Context
				app := flat(new(seen), func(c *cli.Context) error {
					ctx = c.Context
					if _, err := io.WriteString(c.App.Writer, "x"); heeds {
						return err
					}
					if tt.err == syscall.EPIPE && c.Context.Err() == nil {
						t.Error("the context is not cancelled")
					}
					return nil
				})
				var stderr bytes.Buffer
				status := command.Run(app, nil, nil, failing{tt.err}, &stderr)
				if status != tt.status || stderr.String() != tt.stderr {
					t.Errorf("status %d, stderr %q", status, stderr.String())
				}
				if command.Interrupted(ctx) {
					t.Error("taken for a signal")
				}
			})
		}
		var stderr bytes.Buffer
		if status := command.Run(flat(new(seen), nil), []string{"--help"}, nil, failing{tt.err}, &stderr); status != tt.status {
			t.Errorf("--help with %v: status %d, want %d", tt.err, status, tt.status)
		}
	}
}

// A reader that went away hides no other failure.
func TestReaderGoneAndFailed(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
	}{
		{context.Canceled, 0},
		{errors.New("sql: interrupted"), 0}, // what a library says when it is told to stop
		{sysexits.Wrap(sysexits.IO, syscall.EPIPE), 0},
		{sysexits.Errorf(sysexits.Data, "no mail log"), 65},
	} {
		app := flat(new(seen), func(c *cli.Context) error { _, _ = c.App.Writer.Write([]byte("x")); return tt.err })
		var stderr bytes.Buffer
		status := command.Run(app, nil, nil, failing{syscall.EPIPE}, &stderr)
		if status != tt.status || (stderr.Len() == 0) != (status == 0) {
			t.Errorf("%v: status %d, stderr %q", tt.err, status, stderr.String())
		}
	}
}

func TestConfiguration(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.cf", "maillog_db = sqlite:/good\nmaillog_outgoing_hosts = out1, out2\n")
	bad := write("bad.cf", "\nmaillog_bd = x\n")
	for _, tt := range []struct {
		name, env, args, want string
		status                int
	}{
		{"defaults", "", "", "sqlite:/var/lib/rol/maillog.db []", 0},
		{"file", "", "--config " + good, "sqlite:/good [out1 out2]", 0},
		{"environment", good, "", "sqlite:/good [out1 out2]", 0},
		{"flag over environment", bad, "--config " + good, "sqlite:/good [out1 out2]", 0},
		{"flags over file", "", "--db x --tag a --config " + good, "x [a]", 0},
		{"wrong file", "", "--config " + bad, "rol-test: bad.cf:2: unknown parameter \"maillog_bd\"; did you mean maillog_db?", 78},
		{"missing file", "", "--config " + dir + "/none", "rol-test: configuration file: open " + dir + "/none", 78},
		{"missing file in the environment", dir + "/none", "", "rol-test: configuration file: open", 78},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := flat(new(seen), func(c *cli.Context) error {
				fmt.Fprintln(c.App.Writer, command.String(c, "db", "maillog_db"),
					command.Strings(c, "tag", "maillog_outgoing_hosts"))
				return nil
			})
			t.Setenv(command.ConfigEnv, tt.env)
			if tt.env == "" {
				os.Unsetenv(command.ConfigEnv)
			}
			var out bytes.Buffer
			status := command.Run(app, strings.Fields(tt.args), nil, &out, &out)
			if status != tt.status || !strings.HasPrefix(out.String(), tt.want) {
				t.Errorf("status %d, %q, want %d, %q", status, out.String(), tt.status, tt.want)
			}
		})
	}
}

func TestNetworksAndDurationFlags(t *testing.T) {
	app := func() *cli.App {
		return &cli.App{
			Name:  "rol-test",
			Flags: []cli.Flag{&cli.StringSliceFlag{Name: "net"}, &cli.StringFlag{Name: "age"}},
			Action: func(c *cli.Context) error {
				nets, err := command.Networks(c, "net", "maillog_own_networks")
				if err != nil {
					return err
				}
				fmt.Fprintln(c.App.Writer, nets)
				if c.IsSet("age") {
					age, err := command.Duration(c, "age", "")
					fmt.Fprintln(c.App.Writer, age)
					return err
				}
				return nil
			},
		}
	}
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{nil, 0, "[127.0.0.1/32 ::1/128]\n"},
		{[]string{"--net", "10.0.0.0/8, 192.0.2.1", "--net=2001:db8::/32", "--age=1h30m"}, 0, "[10.0.0.0/8 192.0.2.1/32 2001:db8::/32]\n1h30m0s\n"},
		{[]string{"--net", "10.0.0.1/8"}, 64, `rol-test: option --net: "10.0.0.1/8": the address has bits beyond its mask; did you mean 10.0.0.0/8?` + "\n"},
		{[]string{"--age", "5"}, 64, "[127.0.0.1/32 ::1/128]\n0s\nrol-test: option --age: \"5\": want a time with a unit, such as 30s, 10m, 1h30m, 5d or 2w\n"},
	} {
		status, stdout, stderr := runApp(t, app(), nil, tt.args...)
		if status != tt.status || stdout+stderr != tt.want {
			t.Errorf("%q: status %d, %q, want %d, %q", tt.args, status, stdout+stderr, tt.status, tt.want)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, arg := range []string{"-V", "--version", "-vV"} {
		status, stdout, stderr := runApp(t, nested(new(seen)), nil, arg)
		if f := strings.Fields(stdout); status != 0 || stderr != "" || len(f) != 4 || f[0] != "rol-nest" || !strings.HasPrefix(f[2], "(go1.") {
			t.Errorf("%s: status %d, stdout %q, stderr %q", arg, status, stdout, stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	app := flat(new(seen), nil)
	app.Description = "Tries things, and says so in a sentence that is longer than a line of eighty columns can be.\n\n" +
		"A second paragraph:\n  kept as it is\n\nExamples:\n  rol-test a\n  rol-test b | head"
	status, stdout, stderr := runApp(t, app, nil, "x", "--help", "--nonsense")
	want := `rol-test - try things

USAGE
   rol-test [OPTION]... [FILE|-]...

DESCRIPTION
   Tries things, and says so in a sentence that is longer than a line of eighty
   columns can be.

   A second paragraph:
     kept as it is

OPTIONS
   -d, --db DB          the DB to use
   -n, --limit N        show N rows (default: 50)
   -y, --dry-run        only look
   --tag TAG            a TAG; may be repeated
   --config FILE        read settings from FILE instead of /etc/rol/rol.cf (or
                        $ROL_CONFIG)
   -v, --verbose        say more; may be repeated
   --log-format FORMAT  messages in FORMAT text, json or syslog (default: text)
   -h, --help           show this help
   -V, --version        show the version

EXAMPLES
   rol-test a
   rol-test b | head
`
	if status != 0 || stderr != "" || stdout != want {
		t.Errorf("status %d, stderr %q, stdout:\n%s\nwant:\n%s", status, stderr, stdout, want)
	}
	for line := range strings.Lines(stdout) {
		if len(strings.TrimRight(line, "\n")) > 80 {
			t.Errorf("more than 80 columns: %q", line)
		}
	}
}

func TestHelpOfACommand(t *testing.T) {
	for _, args := range [][]string{{"search", "--help"}, {"search", "-h"}, {"search", "--domain", "x", "--help"}, {"-v", "search", "-vh"}} {
		status, stdout, stderr := runApp(t, nested(new(seen)), nil, args...)
		if status != 0 || stderr != "" ||
			!strings.HasPrefix(stdout, "rol-nest search - find\n\nUSAGE\n   rol-nest search [OPTION]...\n\nDESCRIPTION\n   Finds.\n") ||
			!strings.Contains(stdout, "\nSEARCH OPTIONS\n   --domain D ") || !strings.Contains(stdout, "\nGLOBAL OPTIONS\n   --db DB ") ||
			!strings.HasSuffix(stdout, "\nEXAMPLES\n   rol-nest search --domain x\n") {
			t.Errorf("%q: status %d, stderr %q, stdout:\n%s", args, status, stderr, stdout)
		}
	}
	status, stdout, _ := runApp(t, nested(new(seen)), nil, "--help")
	if status != 0 || !strings.Contains(stdout, "   rol-nest search|show [OPTION]...\n") ||
		!strings.Contains(stdout, "\nCOMMANDS\n   search               find\n   show                 show one\n") {
		t.Errorf("status %d, stdout:\n%s", status, stdout)
	}
}

func TestInputReachesTheProgram(t *testing.T) {
	app := flat(new(seen), func(c *cli.Context) error {
		_, err := io.Copy(c.App.Writer, c.App.Reader)
		return err
	})
	var out bytes.Buffer
	if status := command.Run(app, []string{"-"}, strings.NewReader("in"), &out, io.Discard); status != 0 || out.String() != "in" {
		t.Errorf("status %d, stdout %q", status, out.String())
	}
}

func TestBeforeOfTheProgramRuns(t *testing.T) {
	var order []string
	app := flat(new(seen), func(*cli.Context) error { order = append(order, "action"); return nil })
	app.Before = func(c *cli.Context) error { order = append(order, command.Config(c).String("maillog_db")); return nil }
	if status, _, stderr := runApp(t, app, nil); status != 0 || !slices.Equal(order, []string{"sqlite:/var/lib/rol/maillog.db", "action"}) {
		t.Errorf("status %d, order %q, stderr %q", status, order, stderr)
	}
}
