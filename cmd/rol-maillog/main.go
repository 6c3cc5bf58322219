// Rol-maillog searches the flat maillog, tells the life of one mail, and shows
// rows as they come.
package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rolmail/rolmail/lib/command"
	"github.com/rolmail/rolmail/lib/maillog/view"
	"github.com/rolmail/rolmail/lib/sysexits"
)

func main() { command.Main(app()) }

func app() *cli.App {
	db := &cli.StringFlag{Name: "db", Usage: "search `DB`, as type:where, instead of maillog_db of rol.cf"}
	format := &cli.StringFlag{Name: "format", Value: "table", Usage: "results as `FORMAT` table or json"}
	domain := &cli.StringFlag{Name: "domain", Usage: "only what the owner of `DOMAIN` may see"}
	filter := append([]cli.Flag{db, domain}, filters()...)
	return &cli.App{
		Name: "rol-maillog", Usage: "search the flat maillog",
		Description: view.About,
		Commands: []*cli.Command{
			{
				Name: "search", Usage: "find mails, refusals and broken-off sessions, newest first",
				Description: view.AboutSearch, Action: action(view.Search),
				Flags: append(append([]cli.Flag{}, filter...),
					&cli.StringFlag{Name: "format", Value: "table", Usage: "results as `FORMAT` table, json or csv"},
					&cli.IntFlag{Name: "limit", Usage: "show at most `N` rows, 0 for all; 50 for people, all for programs"},
					&cli.StringFlag{Name: "cursor", Usage: "go on behind the page that ended with `CURSOR`"}),
			},
			{
				Name: "show", Usage: "tell the life of one mail", ArgsUsage: "ID|QUEUE-ID|MESSAGE-ID",
				Description: view.AboutShow, Flags: []cli.Flag{db, domain, format},
				Action: func(c *cli.Context) error {
					if c.NArg() != 1 {
						return sysexits.Errorf(sysexits.Usage, "name one id, queue id or message id; see rol-maillog show --help")
					}
					return view.Show(c.Context, options(c), c.Args().First())
				},
			},
			{
				Name: "follow", Usage: "show rows as they are written",
				Description: view.AboutFollow, Flags: append(append([]cli.Flag{}, filter...), format),
				Action: action(view.Follow),
			},
		},
	}
}

func filters() (all []cli.Flag) {
	for _, f := range view.Filters {
		if f.List {
			all = append(all, &cli.StringSliceFlag{Name: f.Name, Usage: f.Usage})
		} else {
			all = append(all, &cli.StringFlag{Name: f.Name, Usage: f.Usage})
		}
	}
	return all
}

func action(f func(context.Context, *view.Options) error) cli.ActionFunc {
	return func(c *cli.Context) error { return f(c.Context, options(c)) }
}

func options(c *cli.Context) *view.Options {
	return &view.Options{
		Program: c.App.Name, DB: command.String(c, "db", "maillog_db"), NamedDB: c.String("db"), Domain: c.String("domain"),
		Value: c.String, Values: c.StringSlice, Limit: c.Int("limit"), HasLimit: c.IsSet("limit"), Cursor: c.String("cursor"),
		Format: c.String("format"), Now: time.Now(), Stdout: c.App.Writer, Stderr: c.App.ErrWriter,
		Log: command.Logger(c),
	}
}
