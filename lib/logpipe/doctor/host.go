package doctor

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxFile  = 1 << 20 // bytes of a configuration file that are read
	maxTail  = 1 << 18 // bytes of a log that are read, from its end
	maxNames = 1000    // files that a directory or pattern may name
)

// path is where a file of the host is.
func (h *host) path(name string) string { return filepath.Join(h.Root, name) }

// absolute is a name that may be relative to the working directory.
func absolute(name string) string {
	if abs, err := filepath.Abs(name); err == nil && name != "" {
		return abs
	}
	return name
}

// exists reports whether the host has a file or directory.
func (h *host) exists(name string) bool {
	_, err := os.Stat(h.path(name))
	return err == nil
}

// read is a file's text, as far as maxFile; "" where there is none. What is no
// regular file is not opened: a FIFO would wait.
func (h *host) read(name string) string {
	if st, err := os.Stat(h.path(name)); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(h.path(name))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return ""
	}
	return string(b)
}

// glob lists the host's files of a pattern, sorted.
func (h *host) glob(pattern string) []string {
	names, err := filepath.Glob(h.path(pattern))
	if err != nil {
		return nil
	}
	names = names[:min(len(names), maxNames)]
	for i, n := range names {
		if rel, err := filepath.Rel(h.Root, n); err == nil {
			names[i] = "/" + rel
		}
	}
	return names
}

// at is a place in a file.
func at(file string, line int) string {
	if line <= 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// setting is a "name = value" of a file.
type setting struct {
	name, value string
	file        string
	line        int
	offset      int // order in a configuration where that matters
}

func (s *setting) where() string { return at(s.file, s.line) }

// ini reads "name=value" lines of a section; the last of a name counts.
func ini(file, text, section string, into map[string]setting) {
	in := ""
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			in = strings.Trim(line, "[]")
		case in == section:
			if name, value, ok := strings.Cut(line, "="); ok {
				name = strings.TrimSpace(name)
				into[name] = setting{name: name, value: strings.TrimSpace(value), file: file, line: n}
			}
		}
	}
}

// synchronised asks the kernel: ntpd, chrony and systemd-timesyncd tell it.
func synchronised() (bool, error) {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil {
		return false, err
	}
	return state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0, nil
}

// fileSystem asks the kernel about the file system of a path, or of the
// nearest directory above it that there is.
func fileSystem(path string) (FileSystem, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if err == nil {
			break
		}
		up := filepath.Dir(path)
		if err != unix.ENOENT || up == path {
			return FileSystem{}, err
		}
		path = up
	}
	fs := FileSystem{Free: int64(st.Bavail) * st.Bsize}
	switch uint32(st.Type) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		fs.Memory = true
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC:
		fs.Network = true
	}
	return fs, nil
}
