package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// MaxSize is the longest file that is read, in bytes. A longer one is an
// error: it is not a configuration file.
const MaxSize = 1 << 20

// Entry is one parameter as a file has it.
type Entry struct {
	Name  string
	Value string
	Line  int // of the name, from 1
}

// File is a file in main.cf syntax: the entries in their order.
type File struct {
	Path     string
	Entries  []Entry
	Warnings []string // each names file and line
}

// Lookup returns the value of name, the last one if it is given twice.
func (f *File) Lookup(name string) (string, bool) {
	for i := len(f.Entries) - 1; i >= 0; i-- {
		if f.Entries[i].Name == name {
			return f.Entries[i].Value, true
		}
	}
	return "", false
}

// ReadFile reads a file in main.cf syntax with any names in it, such as a
// mysql_table(5) file. As in Postfix, the last of two equal names counts and
// the other is a warning.
func ReadFile(path string) (*File, error) {
	data, err := slurp(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

func slurp(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, classify(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, classify(err)
	}
	return data, nil
}

func classify(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return sysexits.Wrap(sysexits.NoPerm, err)
	}
	return sysexits.Wrap(sysexits.Config, err)
}

// Parse reads data in main.cf syntax. Errors and warnings call it by the last
// element of path.
func Parse(path string, data []byte) (*File, error) {
	if len(data) > MaxSize {
		return nil, sysexits.Errorf(sysexits.Config, "%s: longer than %d bytes: this is no configuration file",
			path, MaxSize)
	}
	p := parser{file: &File{Path: path}, base: filepath.Base(path), first: map[string]int{}}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		p.lineno++
		if err := p.line(string(line)); err != nil {
			return nil, err
		}
	}
	if err := p.flush(); err != nil {
		return nil, err
	}
	return p.file, nil
}

const space = " \t\r\v\f"

// parser puts physical lines together to logical ones.
type parser struct {
	file    *File
	base    string
	lineno  int
	logical strings.Builder
	start   int            // where the logical line began; 0: there is none
	first   map[string]int // name -> line
}

func (p *parser) errorf(line int, format string, args ...any) error {
	return sysexits.Errorf(sysexits.Config, "%s:%d: %s", p.base, line, fmt.Sprintf(format, args...))
}

func (p *parser) line(s string) error {
	if i := strings.IndexFunc(s, forbidden); i >= 0 {
		return p.errorf(p.lineno, "control character %q: only text is allowed here", s[i])
	}
	text := strings.Trim(s, space)
	switch {
	case text == "" || text[0] == '#':
		return nil // does not end a logical line, as in postconf(5)
	case strings.ContainsRune(space, rune(s[0])):
		if p.start == 0 {
			return p.errorf(p.lineno, "continuation line (leading white space) with nothing to continue")
		}
		p.logical.WriteByte(' ')
		p.logical.WriteString(text)
		return nil
	}
	if err := p.flush(); err != nil {
		return err
	}
	p.start = p.lineno
	p.logical.WriteString(text)
	return nil
}

func firstWord(s string) string {
	if i := strings.IndexAny(s, space); i >= 0 {
		return s[:i] + " ..."
	}
	return s
}

// forbidden characters never stand in a setting that was meant; a binary file
// shows by them.
func forbidden(r rune) bool { return r < ' ' && !strings.ContainsRune(space, r) || r == 0x7f }

// flush takes the logical line that is complete.
func (p *parser) flush() error {
	if p.start == 0 {
		return nil
	}
	text, line := p.logical.String(), p.start
	p.logical.Reset()
	p.start = 0
	name, value, ok := strings.Cut(text, "=")
	name = strings.TrimRight(name, space)
	switch {
	case !ok: // only its first word: the rest may be a password
		return p.errorf(line, "%.60q: want name = value", firstWord(text))
	case name == "":
		return p.errorf(line, "a name is missing before %q", "=")
	case strings.ContainsAny(name, space):
		return p.errorf(line, "%.60q: white space in a name; want name = value", firstWord(name))
	}
	if at, dup := p.first[name]; dup {
		p.file.Warnings = append(p.file.Warnings,
			fmt.Sprintf("%s:%d: %q is set a second time (first in line %d); the last one counts", p.base, line, name, at))
	} else {
		p.first[name] = line
	}
	p.file.Entries = append(p.file.Entries, Entry{Name: name, Value: strings.Trim(value, space), Line: line})
	return nil
}
