package logpipe

import (
	"context"
	"os"
	"time"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// feed is a live source.
type feed struct {
	run    func(context.Context) error
	report func(now time.Time) []SourceReport
	again  func() // look at the files again; may be nil
}

// start runs a feed; its end by the context is no failure.
func (f *feed) start(ctx context.Context) error {
	err := f.run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// checkSources says what is wrong with the sources that were asked for.
func (s *Service) checkSources() error {
	n := 0
	for _, asked := range []bool{s.Follow, s.Pipe != "", s.Omprog} {
		if asked {
			n++
		}
	}
	switch {
	case n != 1:
		return sysexits.Errorf(sysexits.Usage, "use one of --follow, --pipe and --omprog")
	case s.Follow && len(s.Files) == 0:
		return sysexits.Errorf(sysexits.Usage, "option --follow: name the files to follow, or - for standard input")
	case !s.Follow && len(s.Files) > 0:
		return sysexits.Errorf(sysexits.Usage, "%.80q: files are for --follow; --pipe and --omprog have none", s.Files[0])
	}
	return nil
}

// openFeeds makes the sources that were asked for. resume are positions that
// the databases know.
func (s *Service) openFeeds(resume []logsource.Mark) ([]feed, error) {
	switch {
	case s.Omprog:
		in, err := s.stdin()
		if err != nil {
			return nil, err
		}
		o := logsource.NewOmprog(in, s.Stdout, s.spool, logsource.OmprogOptions{Log: s.Log})
		return []feed{{run: o.Run, report: plain("omprog", o.Stats)}}, nil
	case s.Pipe != "":
		p, err := logsource.NewPipe(s.Pipe, s.spool, logsource.PipeOptions{Make: 0o660, Log: s.Log})
		if err != nil {
			return nil, err
		}
		return []feed{{run: p.Run, report: plain("fifo:"+s.Pipe, p.Stats)}}, nil
	}
	var feeds []feed
	var files []string
	for _, name := range s.Files {
		if name != "-" {
			files = append(files, name)
			continue
		}
		in, err := s.stdin()
		if err != nil {
			return nil, err
		}
		p := logsource.NewInput(in, logsource.StdinKey, s.spool, logsource.PipeOptions{Log: s.Log})
		feeds = append(feeds, feed{run: p.Run, report: plain("standard input", p.Stats)})
	}
	if len(files) > 0 {
		f, err := logsource.NewFollow(files, s.spool, logsource.FollowOptions{Hint: true, Resume: resume, Log: s.Log})
		if err != nil {
			return nil, err
		}
		feeds = append(feeds, feed{run: f.Run, report: followed(f), again: f.Look})
	}
	return feeds, nil
}

func (s *Service) stdin() (*os.File, error) {
	f, ok := s.Stdin.(*os.File)
	if !ok {
		return nil, sysexits.Errorf(sysexits.Bug, "standard input is no file")
	}
	return f, nil
}

// plain reports on a source that is one.
func plain(name string, stats func() logsource.Stats) func(time.Time) []SourceReport {
	return func(now time.Time) []SourceReport {
		st := stats()
		return []SourceReport{{
			Source: name, Bytes: st.Bytes, Lines: st.Lines, Behind: -1, Silent: since(now, st.Last), Trouble: st.Trouble,
		}}
	}
}

// followed reports on followed files.
func followed(f *logsource.Follow) func(time.Time) []SourceReport {
	return func(now time.Time) []SourceReport {
		all := []SourceReport{}
		for _, x := range f.Stats().Files {
			all = append(all, SourceReport{
				Source: "file:" + x.Path, Bytes: x.Bytes, Lines: x.Lines, Behind: x.Behind, Silent: since(now, x.Last), Trouble: x.Trouble,
			})
		}
		return all
	}
}

// since is how long something is ago, in seconds; -1 if it never was.
func since(now, t time.Time) float64 {
	if t.IsZero() {
		return -1
	}
	return seconds(now.Sub(t))
}
