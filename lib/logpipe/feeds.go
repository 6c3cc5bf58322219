package logpipe

import (
	"time"

	"github.com/rolmail/rolmail/lib/logsource"
)

// openFeeds makes the sources that were asked for.
func (s *Service) openFeeds() ([]feed, error) {
	if err := s.checkSources(); err != nil {
		return nil, err
	}
	var feeds []feed
	var files []string
	for _, name := range s.Files {
		if name == "-" {
			continue
		}
		files = append(files, name)
	}
	if len(files) > 0 {
		f, err := logsource.NewFollow(files, s.spool, logsource.FollowOptions{Hint: true, Log: s.Log})
		if err != nil {
			return nil, err
		}
		feeds = append(feeds, feed{name: "files", run: f.Run, report: func(time.Time) []SourceReport {
			st := f.Stats()
			var all []SourceReport
			for _, x := range st.Files {
				all = append(all, SourceReport{Source: "file:" + x.Path, Behind: x.Behind})
			}
			return all
		}})
	}
	return feeds, nil
}
