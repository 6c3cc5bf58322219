package logsource

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// rotation is what stands between the two parts of a log's name when it was
// rotated: a number, a date, "old".
var rotation = regexp.MustCompile(`^(?:\.([0-9]{1,4})|[-._]([0-9]{6,}|[0-9]{4}-?[0-9][-0-9T_:.]*)|\.old|\.bak)$`)

// packing are the ends of the names of compressed logs. The content decides
// whether one is.
var packing = []string{".gz", ".zst", ".zstd", ".xz", ".bz2", ".lz4", ".Z"}

// sibling is a file that is, or by its name may be, an incarnation of a log.
type sibling struct {
	name     string // whole
	label    string // name without the packing
	number   string // of the rotation, if the name has one
	dev, ino uint64
	mtime    int64
	live     bool // has the log's own name

	body  *body // once it was opened
	tried bool
	err   error
	copy  bool  // its content is known from elsewhere
	from  int64 // where to begin, -1: it is not to be read
	skip  bool  // that is in a line too long
}

func (c *sibling) inode() inode { return inode{c.dev, c.ino} }

// hasBegun tells whether a copy was empty when it was opened and is not now.
func (c sibling) hasBegun() bool {
	return !c.live && c.body != nil && c.body.src == nil && len(c.body.first) == 0 && (c.body.look() != nil || c.body.stat.Size > 0)
}

// rotated tells whether a name is that of the live log rotated, and by which
// number. "mail.log.2.gz", "mail-20261125.log" and
// "mail.log.zst" are rotated "mail.log".
func rotated(name, live string) (label, number string, ok bool) {
	label = name
	for _, p := range packing {
		if l, found := strings.CutSuffix(name, p); found {
			label = l
		}
	}
	if label == live {
		return label, "", name != live
	}
	ext := filepath.Ext(live)
	for _, end := range []string{"", ext} {
		stem := strings.TrimSuffix(live, end)
		mid, found := strings.CutPrefix(label, stem)
		if mid, found2 := strings.CutSuffix(mid, end); found && found2 && stem != "" {
			if m := rotation.FindStringSubmatch(mid); m != nil {
				return label, m[1], true
			}
		}
	}
	return "", "", false
}

// siblings are the live log and what it may have been renamed to, newest
// first. Of a log that stands there plain and compressed, as it does while it
// is being compressed, it has the plain one.
func siblings(path string) ([]sibling, error) {
	live := path
	if to, err := filepath.EvalSymlinks(path); err == nil {
		live = to
	}
	dir := filepath.Dir(live)
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []sibling
	for _, name := range names {
		s := sibling{name: filepath.Join(dir, name), live: name == filepath.Base(live), from: -1}
		if !s.live {
			var ok bool
			if s.label, s.number, ok = rotated(name, filepath.Base(live)); !ok {
				continue
			}
		}
		var st unix.Stat_t
		if unix.Stat(s.name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		s.dev, s.ino, s.mtime = uint64(st.Dev), st.Ino, st.Mtim.Nano()
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b sibling) int {
		return cmp.Or(strings.Compare(a.label, b.label), strings.Compare(a.name, b.name))
	})
	all = slices.CompactFunc(all, func(a, b sibling) bool { return !a.live && !b.live && a.label == b.label })
	sortByAge(all)
	return all, nil
}

// sortByAge puts the newest first. Names tell the age if all have numbers;
// else the time of the last change does, which compressing keeps. A date in a
// name may be written in any order.
func sortByAge(all []sibling) {
	numbered := !slices.ContainsFunc(all, func(s sibling) bool { return !s.live && s.number == "" })
	slices.SortStableFunc(all, func(a, b sibling) int {
		switch {
		case a.live:
			return -1
		case b.live:
			return 1
		case numbered:
			return cmp.Or(cmp.Compare(len(a.number), len(b.number)), strings.Compare(a.number, b.number))
		}
		return cmp.Or(cmp.Compare(b.mtime, a.mtime), strings.Compare(b.label, a.label))
	})
}

// sameFiles tells whether nothing was renamed between two looks.
func sameFiles(a, b []sibling) bool {
	inode := make(map[string][2]uint64, len(a))
	for _, s := range a {
		inode[s.name] = [2]uint64{s.dev, s.ino}
	}
	for _, s := range b {
		if inode[s.name] != [2]uint64{s.dev, s.ino} {
			return false
		}
	}
	return len(a) == len(b)
}
