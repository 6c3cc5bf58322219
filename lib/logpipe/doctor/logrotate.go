package doctor

import (
	"path/filepath"
	"slices"
	"strings"
)

// rotation is what logrotate does with some files.
type rotation struct {
	patterns   []string
	directives map[string]setting
}

// has is the place where a rotation says something; nil where it does not.
func (r *rotation) has(name string) *setting {
	if s, ok := r.directives[name]; ok {
		return &s
	}
	return nil
}

// logrotate looks at how the followed files are rotated.
func (h *host) logrotate() {
	global := map[string]setting{}
	var all []rotation
	files := append([]string{"/etc/logrotate.conf"}, h.glob("/etc/logrotate.d/*")...)
	for _, f := range files {
		all = append(all, rotations(f, h.read(f), global)...)
	}
	for _, r := range all {
		if !slices.ContainsFunc(r.patterns, h.rotates) {
			continue
		}
		if s := r.has("copytruncate"); s != nil {
			h.add(Loses, "logrotate", s.where(),
				"copytruncate loses what is written between the copy and the truncation", "create, and a postrotate that sends HUP: contrib/logrotate")
		}
		if s := r.has("compress"); s != nil && r.has("delaycompress") == nil {
			h.add(Hint, "logrotate", s.where(),
				"a file is compressed at once; where rol-logpipe or the writer is behind, what comes into it later is gone", "delaycompress")
		}
		if s := r.has("shred"); s != nil {
			h.add(Loses, "logrotate", s.where(), "shred overwrites a file that rol-logpipe may still read", "noshred")
		}
	}
}

// rotates reports whether a pattern of logrotate names a followed file.
func (h *host) rotates(pattern string) bool {
	return slices.ContainsFunc(append(slices.Clone(h.logFiles), h.Files...), func(f string) bool {
		ok, err := filepath.Match(pattern, f)
		return err == nil && ok
	})
}

// rotations reads logrotate.conf(5): "file file { directives }", and
// directives for all files after them, which it keeps in global.
func rotations(file, text string, global map[string]setting) (all []rotation) {
	n := 0
	var patterns []string
	var cur *rotation
	script := false
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(upTo(line, "#"))
		first, _, _ := strings.Cut(line, " ")
		switch {
		case line == "":
		case script:
			script = first != "endscript"
		case slices.Contains([]string{"postrotate", "prerotate", "firstaction", "lastaction", "preremove"}, first):
			script = true
		case cur == nil && strings.HasPrefix(strings.Trim(line, `"'`), "/"):
			body, open := strings.CutSuffix(line, "{")
			for _, p := range strings.Fields(body) {
				patterns = append(patterns, strings.Trim(p, `"'`))
			}
			if open {
				cur, patterns = newRotation(patterns, global), nil
			}
		case line == "{":
			cur, patterns = newRotation(patterns, global), nil
		case line == "}":
			if cur != nil {
				all = append(all, *cur)
			}
			cur = nil
		default:
			into := global
			if cur != nil {
				into = cur.directives
			}
			if without, ok := strings.CutPrefix(first, "no"); ok { // nocompress, nocopytruncate
				delete(into, without)
				continue
			}
			if first == "create" {
				delete(into, "copytruncate")
			}
			into[first] = setting{name: first, value: line, file: file, line: n}
		}
	}
	return all
}

func newRotation(patterns []string, global map[string]setting) *rotation {
	r := &rotation{patterns: patterns, directives: map[string]setting{}}
	for name, s := range global {
		r.directives[name] = s
	}
	return r
}
