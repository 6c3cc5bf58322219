package command

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rolmail/rolmail/lib/suggest"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// What a command line asks for.
type asks int

const (
	asksAction asks = iota
	asksHelp
	asksVersion
	asksCommand // one is needed and none is named
)

// arrangement is a command line in the order that urfave's parser, which
// stops at the first operand, understands:
//
//	global options, command, its options, "--", operands
type arrangement struct {
	asks asks
	path []*cli.Command // the commands named, outermost first
	args []string
}

// level is a program or a command in the command line, with its options.
type level struct {
	flags []cli.Flag
	args  []string
	given map[string]bool
}

// arranger walks a command line once, as getopt_long(3) does.
type arranger struct {
	app      *cli.App
	levels   []*level // the program, then the commands named
	path     []*cli.Command
	operands []string
	asks     asks
}

// arrange brings a command line into urfave's order. It knows which options
// take a value, so it also finds every mistake but a wrong value.
func arrange(app *cli.App, args []string) (*arrangement, error) {
	a := &arranger{app: app}
	a.enter(app.Flags)
	for len(args) > 0 && a.asks == asksAction {
		arg := args[0]
		args = args[1:]
		var err error
		switch {
		case arg == "--":
			for _, word := range args {
				a.word(word)
			}
			args = nil
		case strings.HasPrefix(arg, "--"):
			args, err = a.long(arg[2:], args)
		case len(arg) > 1 && arg[0] == '-':
			args, err = a.short(arg[1:], args)
		default:
			a.word(arg)
		}
		if err != nil {
			return nil, a.usage(err)
		}
	}
	if err := a.finish(); err != nil {
		return nil, a.usage(err)
	}
	return &arrangement{asks: a.asks, path: a.path, args: a.result()}, nil
}

func (a *arranger) enter(flags []cli.Flag) {
	a.levels = append(a.levels, &level{flags: flags, given: map[string]bool{}})
}

// word takes what is no option: the name of a command, or an operand.
func (a *arranger) word(s string) {
	if len(a.operands) > 0 || !a.command(s) {
		a.operands = append(a.operands, s)
	}
}

// commands are those that may come next.
func (a *arranger) commands() []*cli.Command { return commandsOf(a.app, a.path) }

// command takes arg as the name of a command, if it is one.
func (a *arranger) command(arg string) bool {
	for _, c := range a.commands() {
		if c.HasName(arg) {
			a.path = append(a.path, c)
			a.enter(c.Flags)
			return true
		}
	}
	return false
}

// find looks for an option, innermost command first.
func (a *arranger) find(name string) (*level, cli.Flag) {
	for _, l := range slices.Backward(a.levels) {
		for _, f := range l.flags {
			if slices.Contains(f.Names(), name) {
				return l, f
			}
		}
	}
	return nil, nil
}

// optionNames are the options that may stand here, innermost command first.
func (a *arranger) optionNames() (all []string) {
	for _, l := range slices.Backward(a.levels) {
		for _, f := range l.flags {
			all = append(all, f.Names()[0])
		}
	}
	return all
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// long takes --name, --name=value or --name value; rest is what follows.
func (a *arranger) long(arg string, rest []string) ([]string, error) {
	name, value, hasValue := strings.Cut(arg, "=")
	l, f := a.find(name)
	if f == nil || len(name) < 2 {
		return nil, fmt.Errorf("unknown option --%s%s", name, suggest.DidYouMean(name, "--", a.optionNames()))
	}
	if !takesValue(f) {
		return rest, a.give(l, f, value, hasValue)
	}
	if !hasValue {
		if len(rest) == 0 {
			return nil, fmt.Errorf("option --%s needs a value", name)
		}
		value, rest = rest[0], rest[1:]
	}
	return rest, a.give(l, f, value, true)
}

// short takes -a, -abc for several without a value, -nVALUE and -n VALUE.
func (a *arranger) short(arg string, rest []string) ([]string, error) {
	for i, r := range arg {
		name := string(r)
		l, f := a.find(name)
		if f == nil {
			return nil, a.unknownShort(name, arg)
		}
		if !takesValue(f) {
			if err := a.give(l, f, "", false); err != nil {
				return nil, err
			}
			continue
		}
		value := arg[i+len(name):]
		if value == "" {
			if len(rest) == 0 {
				return nil, fmt.Errorf("option -%s needs a value", name)
			}
			value, rest = rest[0], rest[1:]
		}
		return rest, a.give(l, f, value, true)
	}
	return rest, nil
}

func (a *arranger) unknownShort(name, arg string) error {
	long, _, _ := strings.Cut(arg, "=")
	if _, f := a.find(long); f != nil && len(long) > 1 {
		return fmt.Errorf("unknown option -%s; did you mean --%s?", long, long)
	}
	return fmt.Errorf("unknown option -%s", name)
}

// give notes an option in the form that urfave's parser takes at its word.
func (a *arranger) give(l *level, f cli.Flag, value string, hasValue bool) error {
	name := f.Names()[0]
	switch {
	case l == a.levels[0] && name == flagHelp:
		a.asks = asksHelp
	case l == a.levels[0] && name == flagVersion:
		a.asks = asksVersion
	case takesValue(f):
		l.args = append(l.args, "--"+name+"="+value)
	case hasValue && value != "true" && value != "false":
		return fmt.Errorf("option --%s takes no value", name)
	case hasValue:
		l.args = append(l.args, "--"+name+"="+value)
	default:
		l.args = append(l.args, "--"+name)
	}
	l.given[name] = true
	return nil
}

// finish looks at the whole: is a command missing, an operand too much, a
// required option not there?
func (a *arranger) finish() error {
	if a.asks != asksAction {
		return nil
	}
	action, argsUsage := a.app.Action, a.app.ArgsUsage
	if n := len(a.path); n > 0 {
		action, argsUsage = a.path[n-1].Action, a.path[n-1].ArgsUsage
	}
	commands := a.commands()
	switch {
	case len(commands) > 0 && action == nil && len(a.operands) == 0:
		a.asks = asksCommand
		return nil
	case len(commands) > 0 && action == nil:
		known := names(commands)
		return fmt.Errorf("unknown command %.60q; there are %s%s", a.operands[0], strings.Join(known, ", "),
			suggest.DidYouMean(a.operands[0], "", known))
	case argsUsage == "" && len(a.operands) > 0:
		return fmt.Errorf("unexpected operand %.60q", a.operands[0])
	}
	for _, l := range a.levels {
		for _, f := range l.flags {
			r, ok := f.(cli.RequiredFlag)
			if ok && r.IsRequired() && !l.given[f.Names()[0]] && !fromEnv(f) {
				return fmt.Errorf("option --%s is missing", f.Names()[0])
			}
		}
	}
	return nil
}

func fromEnv(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && slices.ContainsFunc(d.GetEnvVars(), func(name string) bool {
		_, set := os.LookupEnv(name)
		return set
	})
}

func names(commands []*cli.Command) (all []string) {
	for _, c := range commands {
		if !c.Hidden {
			all = append(all, c.Name)
		}
	}
	return all
}

func (a *arranger) result() []string {
	var all []string
	for i, l := range a.levels {
		if i > 0 {
			all = append(all, a.path[i-1].Name)
		}
		all = append(all, l.args...)
	}
	return append(append(all, "--"), a.operands...)
}

// usage completes the message about a wrong command line.
func (a *arranger) usage(err error) error { return usage(err, fullName(a.app, a.path)) }

func usage(err error, name string) error {
	sep := "; "
	if strings.HasSuffix(err.Error(), "?") {
		sep = " "
	}
	return sysexits.Errorf(sysexits.Usage, "%w%ssee %s --help", err, sep, name)
}

// wrongValue rewords what urfave and package flag say about the value of an
// option, the one kind of mistake that arrange leaves to them.
func wrongValue(name string) cli.OnUsageErrorFunc {
	return func(_ *cli.Context, err error, _ bool) error {
		text := strings.Replace(err.Error(), " for flag -", " for option --", 1)
		text, _, _ = strings.Cut(text, ": strconv.")
		return usage(errors.New(strings.TrimSuffix(text, ": parse error")), name)
	}
}
