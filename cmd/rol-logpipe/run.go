package main

import (
	"context"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rolmail/rolmail/lib/command"
	"github.com/rolmail/rolmail/lib/logpipe"
	"github.com/rolmail/rolmail/lib/logpipe/doctor"
	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/lib/maillog/trace"
	"github.com/rolmail/rolmail/lib/sysexits"
)

func usage(format string, args ...any) error {
	return sysexits.Errorf(sysexits.Usage, format, args...)
}

func run(c *cli.Context) error {
	format, err := formatOf(c)
	if err != nil {
		return err
	}
	if c.Bool("ddl") {
		return ddl(c)
	}
	opt, err := options(c)
	if err != nil {
		return err
	}
	if c.Bool("follow") || c.IsSet("pipe") || c.Bool("omprog") {
		return serve(c, opt)
	}
	if c.NArg() == 0 {
		return usage("name the logs to read, or - for standard input; see rol-logpipe --help")
	}
	dbs := databases(c)
	if len(c.StringSlice("db")) > 1 {
		return usage("option --db is given %d times: name one, and run the program once for each", len(dbs))
	}
	job := &logpipe.Job{
		Options: opt, Name: c.App.Name, Files: c.Args().Slice(), DB: dbs[0],
		DryRun: c.Bool("dry-run"), Unparsed: c.Bool("unparsed"), JSON: format == "json",
		Stdin: c.App.Reader, Stdout: c.App.Writer, Stderr: c.App.ErrWriter,
	}
	return job.Run(c.Context)
}

func formatOf(c *cli.Context) (string, error) {
	format := c.String("format")
	if format != "text" && format != "json" {
		return "", usage("option --format: %q is not text or json", format)
	}
	return format, nil
}

// databases are those named by --db, or by the configuration.
func databases(c *cli.Context) []string {
	if c.IsSet("db") {
		return c.StringSlice("db")
	}
	cfg := command.Config(c)
	return append([]string{cfg.String("maillog_db")}, cfg.List("maillog_also_db")...)
}

func ddl(c *cli.Context) error {
	text, err := store.DDL(databases(c)[0])
	if err != nil {
		return err
	}
	_, err = io.WriteString(c.App.Writer, text)
	return err
}

// options say how lines are read.
func options(c *cli.Context) (opt logpipe.Options, err error) {
	if y := c.Int("year"); c.IsSet("year") && (y < 1970 || y > 9999) {
		return opt, usage("option --year: %d is not a year from 1970 to 9999", y)
	}
	cfg := command.Config(c)
	zone := cfg.Zone("maillog_timezone")
	if c.IsSet("timezone") {
		if zone, err = time.LoadLocation(c.String("timezone")); err != nil {
			return opt, usage("option --timezone: %w", err)
		}
	}
	return logpipe.Options{
		Parse: maillog.Options{Location: zone, Year: c.Int("year")},
		Trace: trace.Options{
			OwnNetworks:   cfg.Networks("maillog_own_networks"),
			OutgoingHosts: cfg.List("maillog_outgoing_hosts"),
			FilterRelays:  cfg.List("maillog_filter_relays"),
		},
		Again: c.Bool("again"),
	}, nil
}

// serve runs the service.
func serve(c *cli.Context, opt logpipe.Options) error {
	for _, name := range []string{"dry-run", "again", "unparsed"} {
		if c.Bool(name) {
			return usage("option --%s is for a run that ends; leave out --follow, --pipe and --omprog", name)
		}
	}
	cfg := command.Config(c)
	s := &logpipe.Service{
		Options: opt, Program: command.Version(c.App.Name), DBs: databases(c),
		Follow: c.Bool("follow"), Files: c.Args().Slice(), Pipe: c.String("pipe"), Omprog: c.Bool("omprog"),
		Spool: command.String(c, "spool", "maillog_spool"), SpoolSize: cfg.Size("maillog_spool_size"),
		SyncEach: cfg.Bool("maillog_spool_sync_each"), Listen: command.String(c, "listen", "maillog_listen"),
		Stdin: c.App.Reader, Stdout: c.App.Writer, Log: command.Logger(c), Hangup: command.Hangups(c.Context),
		Interrupted: command.Interrupted, Now: time.Now,
	}
	return s.Run(c.Context)
}

const aboutStatus = "Asks the service that uses the spool how it is: sources, spool, databases, hosts.\n\n" +
	"Examples:\n  rol-logpipe status\n  rol-logpipe status --format json"

func status(c *cli.Context) error {
	format, err := formatOf(c)
	if err != nil {
		return err
	}
	r, err := logpipe.Ask(c.Context, command.String(c, "spool", "maillog_spool"))
	if err != nil {
		return err
	}
	if format == "json" {
		return logpipe.WriteReportJSON(c.App.Writer, r)
	}
	return logpipe.WriteReport(c.App.Writer, r, time.Now())
}

const aboutCheck = "Prints one line and performance data, and ends with 0 for OK, 1 for WARNING, 2 for CRITICAL.\n\n" +
	"Examples:\n  rol-logpipe check\n  rol-logpipe check --warning 2m --critical 15m --silence 6h"

func thresholds() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "warning", Value: "1m", Usage: "warn of a database that is `TIME` behind"},
		&cli.StringFlag{Name: "critical", Value: "10m", Usage: "one that is `TIME` behind is critical"},
		&cli.StringFlag{Name: "silence", Usage: "warn of a host that has been silent for `TIME`, instead of maillog_silence; 0 for never"},
		&cli.IntFlag{Name: "spool-warning", Value: 50, Usage: "warn of a spool that is `PERCENT` full; 0 for never"},
	}
}

func check(c *cli.Context) error {
	o := logpipe.CheckOptions{WarnSpool: c.Int("spool-warning")}
	for name, d := range map[string]*time.Duration{"warning": &o.WarnLag, "critical": &o.CritLag} {
		var err error
		if *d, err = command.Duration(c, name, ""); err != nil {
			return err
		}
	}
	var err error
	if o.Silence, err = command.Duration(c, "silence", "maillog_silence"); err != nil {
		return err
	}
	r, asked := logpipe.Ask(c.Context, command.String(c, "spool", "maillog_spool"))
	return logpipe.Check(c.App.Writer, r, asked, o)
}

const aboutDoctor = "Looks at Postfix, Amavis, rsyslog, journald, the clock, the spool and the logs named, " +
	"and says what loses lines, what blurs them, and what to write where. It changes nothing.\n\n" +
	"Ends with 0 if there is nothing to say but hints, 1 if something is blurred, 2 if lines get lost.\n\n" +
	"Examples:\n  rol-logpipe doctor\n  rol-logpipe doctor /var/log/mail.log"

func diagnose(c *cli.Context) error {
	format, err := formatOf(c)
	if err != nil {
		return err
	}
	dbs := databases(c)
	opt := doctor.Options{
		Files: c.Args().Slice(), Spool: command.String(c, "spool", "maillog_spool"),
		SpoolSize: command.Config(c).Size("maillog_spool_size"), Databases: dbs,
	}
	if store.OnServer(dbs[0]) {
		opt.DBTime = func(ctx context.Context) (time.Time, error) { return store.ServerTime(ctx, dbs[0]) }
	}
	found := doctor.Run(c.Context, opt)
	if err := doctor.Write(c.App.Writer, found, format == "json"); err != nil {
		return err
	}
	if status := doctor.Status(found); status != sysexits.OK {
		return sysexits.Silent(status)
	}
	return nil
}
