package logsource

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"

	"github.com/rolmail/rolmail/lib/sysexits"
)

func isRegular(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.Mode().IsRegular()
}

// follow begins to follow a name, unless it is that of a log that is followed
// with a rotation's end.
func (f *Follow) follow(name string, literal bool) error {
	if f.series(name) != nil {
		return nil
	}
	if base := f.baseOf(name); base != "" {
		name = base
		if f.series(name) != nil {
			return nil
		}
	}
	s, err := newSeries(f, name, literal)
	if err != nil {
		return err
	}
	f.list = append(f.list, s)
	return nil
}

func (f *Follow) series(path string) *series {
	if i := slices.IndexFunc(f.list, func(s *series) bool { return s.path == path }); i >= 0 {
		return f.list[i]
	}
	return nil
}

// baseOf is the live log of which a file is an incarnation by its name, if
// that one is followed, or is named too and there or known from before; else
// "". A host's log may well have a name that looks like another's rotated.
func (f *Follow) baseOf(name string) string {
	dir, file := filepath.Split(name)
	for n := len(file) - 1; n > 0; n-- {
		for _, live := range []string{file[:n], file[:n] + filepath.Ext(file)} {
			if _, _, ok := rotated(file, live); !ok {
				continue
			}
			base := filepath.Join(dir, live)
			if f.series(base) != nil || f.named(base) && (isRegular(base) || f.sink.State(keyOf(base)) != nil) {
				return base
			}
		}
	}
	return ""
}

// named tells whether a path is one of those to follow.
func (f *Follow) named(path string) bool {
	return slices.ContainsFunc(f.patterns, func(p string) bool {
		ok, _ := filepath.Match(p, path)
		return ok
	})
}

// knows is what is known of a sibling's content: that it is read, or was read,
// under whatever name. A live log is another one than a shorter or equal one
// that is still there: logs may begin with the same bytes.
func (f *Follow) knows(c *sibling) *ident {
	for _, s := range f.list {
		for _, b := range s.bodies {
			if fit := c.body.fits(&b.ident); fit == fitWhole && (!c.live || b.stat.Nlink == 0 || b.off >= HeadLen) ||
				fit == fitPrefix && !c.live {
				return &b.ident
			}
			if n := min(len(b.first), len(c.body.first)); b.off == 0 && n > 0 && !c.live &&
				bytes.Equal(b.first[:n], c.body.first[:n]) {
				return &b.ident // nothing was read of it yet
			}
		}
		for i := range s.done {
			if fit := c.body.fits(&s.done[i]); fit == fitWhole || fit == fitPrefix && !c.live {
				return &s.done[i]
			}
		}
	}
	return nil
}

func stateError(key string, err error) error {
	return sysexits.Errorf(sysexits.Config, "the spool's state of %.200q: %w; "+
		"run the version that wrote it, or move the spool away to begin anew", key, err)
}

// Stats may be called at any time.
func (f *Follow) Stats() Stats {
	st := f.count.stats()
	f.mu.Lock()
	list := f.shared
	f.mu.Unlock()
	for _, s := range list {
		c := s.count.stats()
		fs := FileStats{
			Path: s.path, Lines: c.Lines, Bytes: c.Bytes, Last: c.Last, Behind: max(s.size.Load()-s.off.Load(), 0),
			Held: s.held.Load(), Away: s.away.Load(), Trouble: s.said.get(),
		}
		st.Behind += fs.Behind
		st.Files = append(st.Files, fs)
	}
	return st
}

func (c *counters) stats() Stats {
	return Stats{
		Lines: c.lines.Load(), Bytes: c.bytes.Load(), Chunks: c.chunks.Load(), Cut: c.cut.Load(), Torn: c.torn.Load(),
		Rotated: c.rotated.Load(), Truncated: c.truncated.Load(), Lost: c.lost.Load(), Last: c.lastTime(),
	}
}
