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

func (s *Service) setFeeds(list []feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feeds = list
}

func (s *Service) listFeeds() []feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.feeds
}

// settleTime is how long a start waits for the databases to say where they
// are; omprog waits 10 s for its first answer.
const settleTime = 3 * time.Second

// settle waits until each database has been read, or is away. Lines that come
// before that are safe, but a spool that lags behind a database can be put
// right only without them.
func (s *Service) settle(ctx context.Context) {
	deadline := time.After(settleTime)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
next:
	for _, e := range s.engines {
		for {
			select {
			case <-e.loaded: // or it never will be
				continue next
			case <-tick.C:
				if _, _, away := e.progress(); away {
					continue next
				}
			case <-deadline:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// resume are the positions in files that every database has, from runs that
// ended: a service that begins with an empty spool goes on there. What one of
// them has not got is read, for the others once more, which does no harm.
func (s *Service) resume() (marks []logsource.Mark) {
	if !s.Follow || len(s.spool.Keys()) > 0 {
		return nil
	}
	count := map[[32]byte]int{}
	least := map[[32]byte]logsource.Mark{}
	for _, e := range s.engines {
		if _, begun, _ := e.progress(); !begun {
			return nil
		}
		for _, m := range e.marks {
			if was, ok := least[m.Prefix]; !ok || m.Offset < was.Offset {
				least[m.Prefix] = m
			}
			count[m.Prefix]++
		}
	}
	for prefix, m := range least {
		if count[prefix] == len(s.engines) {
			marks = append(marks, m)
		}
	}
	return marks
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
