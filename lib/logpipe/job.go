package logpipe

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// Job is a replay as a program is asked for it.
type Job struct {
	Options
	Name     string // of the program, before the summary
	Files    []string
	DB       string // type:where; see store.Open
	DryRun   bool   // parse and correlate only
	Unparsed bool   // show what was not understood
	JSON     bool

	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Run does the job and writes its results.
func (j *Job) Run(ctx context.Context) error {
	sources, err := openAll(j.Files, j.Stdin)
	if err != nil {
		return err
	}
	defer closeAll(sources)
	var db Store
	if !j.DryRun {
		d, err := store.Open(j.DB, store.ReadWrite)
		if err != nil {
			return err
		}
		defer d.Close()
		db = d
	}
	j.Meter = new(Meter)
	stop := j.Meter.Show(j.Stderr, sources)
	defer stop()
	sum, failed := Replay(ctx, j.Options, sources, db)
	stop()
	if sum != nil && (failed == nil || sum.Logs > 0) {
		if err := j.write(sum); err != nil {
			return err
		}
	}
	return failed
}

func (j *Job) write(sum *Summary) error {
	if j.Unparsed {
		if err := sum.WriteShapes(j.Stdout, j.JSON); err != nil {
			return err
		}
	}
	if j.JSON {
		return sum.WriteJSON(j.Stdout)
	}
	_, err := fmt.Fprintf(j.Stdout, "%s: %s\n", j.Name, sum.Text())
	return err
}

// openAll opens all sources. If one cannot be opened nothing is read, and the
// message names all such.
func openAll(names []string, stdin io.Reader) (all []*logsource.Source, err error) {
	var failed []error
	stdins := 0
	for _, name := range names {
		if name == "-" {
			if stdins++; stdins > 1 {
				return nil, sysexits.Errorf(sysexits.Usage, "standard input (-) is named twice")
			}
		}
		s, err := logsource.Open(name, stdin)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		all = append(all, s)
	}
	if failed != nil {
		closeAll(all)
		return nil, errors.Join(failed...)
	}
	return all, nil
}

func closeAll(sources []*logsource.Source) {
	for _, s := range sources {
		s.Close()
	}
}
