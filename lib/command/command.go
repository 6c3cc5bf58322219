// Package command is how every program of the toolkit starts, reports and
// exits. It sets urfave/cli/v2 up so that programs behave well in pipes, under
// pipe(8) and in scripts, and nothing else knows os.Args, os.Exit or signals.
//
// A main.go declares a cli.App, and hands each action's work to a library:
//
//	// Rol-example counts the lines of its operands.
//	package main
//
//	func main() { command.Main(app()) }
//
//	func app() *cli.App {
//		return &cli.App{
//			Name:      "rol-example",
//			Usage:     "count lines",
//			ArgsUsage: "[FILE|-]...", // without ArgsUsage, operands are a usage error
//			Description: "Counts the lines of every FILE.\n\n" + // paragraphs are wrapped,
//				"Examples:\n" + // and what follows this word is shown as it is
//				"  rol-example /var/log/mail.log",
//			Flags: []cli.Flag{
//				&cli.StringFlag{Name: "db", Usage: "write to `DB`, as type:where"},
//			},
//			Action: run,
//		}
//	}
//
//	func run(c *cli.Context) error {
//		db := command.String(c, "db", "maillog_db") // flag over rol.cf over default
//		n, err := example.Count(c.Context, db, c.Args().Slice())
//		if err != nil {
//			return err // with a status of package sysexits; else it is a bug, 70
//		}
//		fmt.Fprintln(c.App.Writer, n) // results to Writer, never to os.Stdout
//		return nil
//	}
//
// Options may stand before, between and behind operands; "--" ends them. Short
// ones may be put together (-vn5). Options of the program are understood
// behind a subcommand too. Every program has --config FILE, -v (--verbose,
// may be repeated), --log-format, -V (--version) and -h (--help).
//
// The action's context is cancelled by SIGINT and SIGTERM; a second one kills.
// When the reader of standard output goes away, as head(1) does, the context
// is cancelled and the program ends with status 0 and no message.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/config"
	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/lib/term"
)

// urfave adds its help flag to every command, and looks for it by name, as
// long as this is set. Help is ours.
func init() { cli.HelpFlag = nil }

type options struct {
	delivery bool
}

// Option changes how a program runs.
type Option func(*options)

// Delivery is for programs that Postfix runs by pipe(8) or spawn(8). Postfix
// bounces the mail on most statuses, and on the 2 of a Go panic. So every
// failure but a sysexits.Permanent one exits with 75, try again, and a panic
// ends in a signal, which Postfix takes for a reason to defer.
func Delivery(o *options) { o.delivery = true }

// Main runs app with the process's arguments and exits.
func Main(app *cli.App, opts ...Option) {
	o := collect(opts)
	if o.delivery {
		debug.SetTraceback("crash")
		// A core of a mail program holds mail, and a crash loop fills the disk.
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	}
	// With SIGPIPE caught, writing to a pipe that nobody reads any more is an
	// error (EPIPE) to report or not, instead of the end of the process.
	// Unlike ignoring it, this is not inherited by children.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGINT) { // as a shell's background jobs have it
		signal.Notify(caught, syscall.SIGINT)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		sig := (<-caught).(syscall.Signal)
		signal.Reset(syscall.SIGINT, syscall.SIGTERM) // the next one kills
		cancel(interrupted{sig})
	}()
	status := run(ctx, app, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, o)
	if by, ok := errors.AsType[interrupted](context.Cause(ctx)); ok && status == by.status() {
		// Die of the signal as well, so that a shell ends its loop.
		signal.Reset(by.sig)
		if syscall.Kill(os.Getpid(), by.sig) == nil {
			time.Sleep(time.Second) // it comes when it comes, but at once
		}
	}
	os.Exit(status)
}

// interrupted is the cause of a context that a signal has cancelled.
type interrupted struct{ sig syscall.Signal }

func (i interrupted) Error() string { return "interrupted by signal: " + i.sig.String() }
func (i interrupted) status() int   { return 128 + int(i.sig) }

// errReaderGone is the cause of a context cancelled because nobody reads
// standard output any more.
var errReaderGone = errors.New("the reader of standard output has gone")

func collect(opts []Option) (o options) {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// Run runs app and returns the exit status; args are without the program's
// name. It is Main without the process around it, for tests. An app is good
// for one run.
func Run(app *cli.App, args []string, stdin io.Reader, stdout, stderr io.Writer, opts ...Option) int {
	return RunContext(context.Background(), app, args, stdin, stdout, stderr, opts...)
}

// RunContext is Run under a context that stands for the signals.
func RunContext(ctx context.Context, app *cli.App, args []string,
	stdin io.Reader, stdout, stderr io.Writer, opts ...Option,
) int {
	return run(ctx, app, args, stdin, stdout, stderr, collect(opts))
}

func run(ctx context.Context, app *cli.App, args []string, stdin io.Reader, stdout, stderr io.Writer, o options) int {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := &output{w: stdout, gone: func() { cancel(errReaderGone) }}
	p := &process{options: o, name: app.Name, stderr: stderr, config: config.Default()}
	p.log = slog.New(newTextHandler(stderr, app.Name, slog.LevelInfo))
	prepare(app, p, stdin, out, stderr)

	err := p.guarded(func() error { return p.main(ctx, app, args) })
	if werr := out.failure(); werr != nil {
		gone := errors.Is(werr, syscall.EPIPE) && !o.delivery
		switch {
		case gone && (err == nil || stopped(err) || errors.Is(err, syscall.EPIPE)):
			return sysexits.OK
		case !gone:
			err = sysexits.Errorf(sysexits.IO, "writing standard output: %w", werr)
		}
	}
	if by, ok := errors.AsType[interrupted](context.Cause(ctx)); ok && stopped(err) {
		err = sysexits.Wrap(by.status(), by)
	}
	p.report(err)
	return p.status(err)
}

// stopped reports whether err only says that the work was cancelled; libraries
// below do so in many words, and classify none of them.
func stopped(err error) bool {
	return errors.Is(err, context.Canceled) || err != nil && sysexits.Status(err) == sysexits.Bug
}

// process is what lib/command knows about one run; it travels in app.Metadata.
type process struct {
	options
	name   string
	stderr io.Writer
	log    *slog.Logger
	format string // of the log
	config *config.Config
}

const metadataKey = "github.com/rolmail/rolmail/lib/command"

func of(c *cli.Context) *process { return c.App.Metadata[metadataKey].(*process) }

// main parses the arguments and runs what they ask for.
func (p *process) main(ctx context.Context, app *cli.App, args []string) error {
	arranged, err := arrange(app, args)
	if err != nil {
		return err
	}
	switch arranged.asks {
	case asksHelp:
		return writeHelp(app.Writer, app, arranged.path)
	case asksVersion:
		_, err := fmt.Fprintln(app.Writer, Version(app.Name))
		return err
	case asksCommand:
		return p.missingCommand(app, arranged.path)
	}
	return app.RunContext(ctx, append([]string{app.Name}, arranged.args...))
}

// missingCommand tells, on standard error, which commands there are.
func (p *process) missingCommand(app *cli.App, path []*cli.Command) error {
	var b strings.Builder
	helpUsage(&b, app, path)
	helpCommands(&b, app, path)
	_, _ = io.WriteString(p.stderr, b.String())
	return sysexits.Errorf(sysexits.Usage, "a command is missing; see %s --help", fullName(app, path))
}

// guarded runs f and turns a panic into an error, after showing its stack.
func (p *process) guarded(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(p.stderr, "%s: panic: %v\n%s", p.name, v, debug.Stack())
			err = sysexits.Errorf(sysexits.Bug, "this is a bug, please report it with the lines above: %v", v)
		}
	}()
	return f()
}

// status is the exit status for err under the program's rules.
func (p *process) status(err error) int {
	if p.delivery && err != nil && !sysexits.IsPermanent(err) {
		return sysexits.TryAgain
	}
	return sysexits.Status(err)
}

// maxMessage is the longest error message shown, in bytes. Its text may come
// from a stranger.
const maxMessage = 2000

// report writes the one line about a failure.
func (p *process) report(err error) {
	if err == nil || sysexits.IsSilent(err) {
		return
	}
	text := strings.ReplaceAll(strings.TrimRight(err.Error(), "\n"), "\n", "; ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	if p.format == formatJSON || p.format == formatSyslog {
		p.log.Log(context.Background(), levelFatal, text)
	}
	if p.format != formatJSON {
		fmt.Fprintf(p.stderr, "%s: %s\n", p.name, term.Printable(text))
	}
}
