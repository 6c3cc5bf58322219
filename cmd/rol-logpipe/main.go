// Rol-logpipe reads mail logs and writes one flat row for each mail and
// recipient, each refused recipient and each broken-off session.
package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rolmail/rolmail/lib/command"
	"github.com/rolmail/rolmail/lib/logpipe"
	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/trace"
	"github.com/rolmail/rolmail/lib/sysexits"
)

func main() { command.Main(app()) }

func app() *cli.App {
	return &cli.App{
		Name:      "rol-logpipe",
		Usage:     "read mail logs into the flat maillog",
		ArgsUsage: "FILE|- ...",
		Description: "Reads logs of Postfix and Amavis, plain, gzip or zstd, merged by time, and writes a " +
			"row for each mail and recipient. What an earlier run has read is not read again, even if the " +
			"file was renamed, compressed or has grown since.\n\n" +
			"Examples:\n" +
			"  rol-logpipe /var/log/mail.log\n" +
			"  rol-logpipe /var/log/mail.log.*.gz /var/log/mail.log\n" +
			"  rol-logpipe --dry-run --unparsed /var/log/mail.log\n" +
			"  ssh mx1 cat /var/log/mail.log | rol-logpipe -",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "db", Usage: "write to `DB`, as type:where, instead of maillog_db of rol.cf"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "parse and correlate only, write nothing"},
			&cli.BoolFlag{Name: "again", Usage: "read once more what was read before"},
			&cli.IntFlag{Name: "year", Usage: "`YEAR` of the first line, where lines have none"},
			&cli.StringFlag{Name: "timezone", Usage: "`ZONE` of lines that name none, such as Europe/Rome"},
			&cli.BoolFlag{Name: "unparsed", Usage: "show the kinds of lines that were not understood"},
			&cli.StringFlag{Name: "format", Value: "text", Usage: "summary in `FORMAT` text or json"},
		},
		Action: run,
	}
}

func run(c *cli.Context) error {
	if c.NArg() == 0 {
		return sysexits.Errorf(sysexits.Usage, "name the logs to read, or - for standard input; see rol-logpipe --help")
	}
	format := c.String("format")
	if format != "text" && format != "json" {
		return sysexits.Errorf(sysexits.Usage, "option --format: %q is not text or json", format)
	}
	if y := c.Int("year"); c.IsSet("year") && (y < 1970 || y > 9999) {
		return sysexits.Errorf(sysexits.Usage, "option --year: %d is not a year from 1970 to 9999", y)
	}
	cfg := command.Config(c)
	zone := cfg.Zone("maillog_timezone")
	if c.IsSet("timezone") {
		var err error
		if zone, err = time.LoadLocation(c.String("timezone")); err != nil {
			return sysexits.Errorf(sysexits.Usage, "option --timezone: %w", err)
		}
	}
	job := &logpipe.Job{
		Options: logpipe.Options{
			Parse: maillog.Options{Location: zone, Year: c.Int("year")},
			Trace: trace.Options{
				OwnNetworks:   cfg.Networks("maillog_own_networks"),
				OutgoingHosts: cfg.List("maillog_outgoing_hosts"),
				FilterRelays:  cfg.List("maillog_filter_relays"),
			},
			Again: c.Bool("again"),
		},
		Name: c.App.Name, Files: c.Args().Slice(), DB: command.String(c, "db", "maillog_db"),
		DryRun: c.Bool("dry-run"), Unparsed: c.Bool("unparsed"), JSON: format == "json",
		Stdin: c.App.Reader, Stdout: c.App.Writer, Stderr: c.App.ErrWriter,
	}
	return job.Run(c.Context)
}
