package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rolmail/rolmail/lib/config"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// ConfigEnv names the configuration file where --config does not.
const ConfigEnv = "ROL_CONFIG"

// Names of the global flags, besides help and version.
const (
	flagConfig    = "config"
	flagVerbose   = "verbose"
	flagLogFormat = "log-format"
	flagHelp      = "help"
	flagVersion   = "version"
)

// prepare makes app the toolkit's: global flags in, urfave's habits out.
func prepare(app *cli.App, p *process, stdin io.Reader, stdout, stderr io.Writer) {
	app.Reader, app.Writer, app.ErrWriter = stdin, stdout, stderr
	app.HideHelp, app.HideHelpCommand, app.HideVersion = true, true, true
	app.EnableBashCompletion = false
	app.Suggest = false
	app.UseShortOptionHandling = false
	app.DefaultCommand = ""
	app.DisableSliceFlagSeparator = true
	app.ExitErrHandler = func(*cli.Context, error) {}
	app.OnUsageError = wrongValue(app.Name)
	for _, c := range app.Commands {
		prepareCommand(c, app.Name)
	}
	app.Flags = append(app.Flags, globalFlags()...)
	if app.Metadata == nil {
		app.Metadata = map[string]any{}
	}
	app.Metadata[metadataKey] = p
	before := app.Before
	app.Before = func(c *cli.Context) error {
		if err := p.begin(c); err != nil || before == nil {
			return err
		}
		return before(c)
	}
}

func prepareCommand(c *cli.Command, parent string) {
	name := parent + " " + c.Name
	c.HideHelp, c.HideHelpCommand = true, true
	c.UseShortOptionHandling = false
	c.OnUsageError = wrongValue(name)
	for _, sub := range c.Subcommands {
		prepareCommand(sub, name)
	}
}

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: flagConfig, EnvVars: []string{ConfigEnv},
			Usage: "read settings from `FILE` instead of " + config.DefaultPath,
		},
		&cli.BoolFlag{
			Name: flagVerbose, Aliases: []string{"v"}, Count: new(int),
			Usage: "say more; may be repeated",
		},
		&cli.StringFlag{
			Name: flagLogFormat, Value: formatText,
			Usage: "messages in `FORMAT` text, json or syslog",
		},
		&cli.BoolFlag{Name: flagHelp, Aliases: []string{"h"}, Usage: "show this help"},
		&cli.BoolFlag{Name: flagVersion, Aliases: []string{"V"}, Usage: "show the version"},
	}
}

// begin sets up logging and configuration before the action.
func (p *process) begin(c *cli.Context) error {
	level := slog.LevelInfo
	if Verbose(c) > 0 {
		level = slog.LevelDebug
	}
	format := c.String(flagLogFormat)
	handler, err := newHandler(format, p.stderr, p.name, level)
	if err != nil {
		return err
	}
	p.format, p.log = format, slog.New(handler)
	if p.config, err = config.Load(c.String(flagConfig)); err != nil {
		return err
	}
	if p.config.Path != "" {
		p.log.Debug("settings read", "file", p.config.Path)
	}
	return nil
}

// Config is the configuration: the file over the defaults.
func Config(c *cli.Context) *config.Config { return of(c).config }

// Logger is where messages go. Their text is lower case without a period,
// says what, where and what to do, and quotes what strangers sent; a queue id
// has the key queue_id.
func Logger(c *cli.Context) *slog.Logger { return of(c).log }

// Verbose is how often -v was given.
func Verbose(c *cli.Context) int { return c.Count(flagVerbose) }

// String is the value of a flag if it was given, else that of a parameter.
func String(c *cli.Context, flag, param string) string {
	if c.IsSet(flag) {
		return c.String(flag)
	}
	return Config(c).Raw(param)
}

// Strings is String for a flag that may be repeated and a list.
func Strings(c *cli.Context, flag, param string) []string {
	if c.IsSet(flag) {
		return c.StringSlice(flag)
	}
	return Config(c).List(param)
}

// Networks is Strings for networks in CIDR notation.
func Networks(c *cli.Context, flag, param string) ([]netip.Prefix, error) {
	if !c.IsSet(flag) {
		return Config(c).Networks(param), nil
	}
	var all []netip.Prefix
	for _, s := range c.StringSlice(flag) {
		nets, err := config.ParseNetworks(s)
		if err != nil {
			return nil, sysexits.Errorf(sysexits.Usage, "option --%s: %w", flag, err)
		}
		all = append(all, nets...)
	}
	return all, nil
}

// Duration is String for times such as 90s, 1h30m or 5d. With param "" the
// flag's own default counts.
func Duration(c *cli.Context, flag, param string) (time.Duration, error) {
	if param != "" && !c.IsSet(flag) {
		return Config(c).Duration(param), nil
	}
	d, err := config.ParseDuration(c.String(flag))
	if err != nil {
		return 0, sysexits.Errorf(sysexits.Usage, "option --%s: %w", flag, err)
	}
	return d, nil
}

// Interrupted reports whether ctx, the action's or one made from it, was
// cancelled by a signal.
func Interrupted(ctx context.Context) bool {
	_, ok := context.Cause(ctx).(interrupted)
	return ok
}

// version may be set by the linker: -X github.com/rolmail/rolmail/lib/command.version=1.0.
var version string

// Version is the line that --version prints.
func Version(name string) string {
	v := version
	if info, ok := debug.ReadBuildInfo(); ok && v == "" {
		v = info.Main.Version
	}
	if v == "" {
		v = "(devel)"
	}
	return fmt.Sprintf("%s %s (%s %s/%s)", name, v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
