// Rol-logpipe reads mail logs and writes one flat row for each mail and
// recipient, each refused recipient and each broken-off session: once through
// the logs that there are, or as the service that follows them for years.
package main

import (
	"github.com/urfave/cli/v2"

	"github.com/rolmail/rolmail/lib/command"
)

func main() { command.Main(app()) }

func app() *cli.App {
	spool := &cli.StringFlag{Name: "spool", Usage: "let lines wait in `DIR` instead of maillog_spool of rol.cf"}
	format := &cli.StringFlag{Name: "format", Value: "text", Usage: "results in `FORMAT` text or json"}
	return &cli.App{
		Name:      "rol-logpipe",
		Usage:     "read mail logs into the flat maillog",
		ArgsUsage: "FILE|- ...",
		Description: "Reads logs of Postfix and Amavis, plain, gzip or zstd, merged by time, and writes a " +
			"row for each mail and recipient. What an earlier run has read is not read again, even if the " +
			"file was renamed, compressed or has grown since.\n\n" +
			"With --follow, --pipe or --omprog it is a service: it goes on reading what is written, through " +
			"rotations, crashes and outages of the database, until SIGTERM.\n\n" +
			"Examples:\n" +
			"  rol-logpipe /var/log/mail.log.*.gz /var/log/mail.log\n" +
			"  rol-logpipe --dry-run --unparsed /var/log/mail.log\n" +
			"  rol-logpipe --follow /var/log/mail.log\n" +
			"  rol-logpipe --follow --db mysql:/etc/rol/db.cf '/var/log/remote/*/mail.log'\n" +
			"  rol-logpipe status",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "db", Usage: "write to `DB`, as type:where, instead of maillog_db of rol.cf; a service writes several"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on reading the files as they grow and rotate"},
			&cli.StringFlag{Name: "pipe", Usage: "read from `FIFO` for ever"},
			&cli.BoolFlag{Name: "omprog", Usage: "be rsyslog's child: lines on standard input, each acknowledged"},
			spool,
			&cli.StringFlag{Name: "listen", Usage: "answer /metrics and /healthz on `ADDR`, host:port or unix:/path"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "parse and correlate only, write nothing"},
			&cli.BoolFlag{Name: "again", Usage: "read once more what was read before"},
			&cli.IntFlag{Name: "year", Usage: "`YEAR` of the first line, where lines have none"},
			&cli.StringFlag{Name: "timezone", Usage: "`ZONE` of lines that name none, such as Europe/Rome"},
			&cli.BoolFlag{Name: "unparsed", Usage: "show the kinds of lines that were not understood"},
			&cli.BoolFlag{Name: "ddl", Usage: "show the tables of the database as SQL"},
			format,
		},
		Action: run,
		Commands: []*cli.Command{
			{
				Name: "status", Usage: "show what the service is doing", Description: aboutStatus,
				Flags: []cli.Flag{spool, format}, Action: status,
			},
			{
				Name: "check", Usage: "judge the service for Nagios or Icinga", Description: aboutCheck,
				Flags: append([]cli.Flag{spool}, thresholds()...), Action: check,
			},
			{
				Name: "doctor", Usage: "say what on this machine loses or blurs lines", ArgsUsage: "[FILE|GLOB]...",
				Description: aboutDoctor, Flags: []cli.Flag{spool, format}, Action: diagnose,
			},
		},
	}
}
