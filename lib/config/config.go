// Package config reads the toolkit's one configuration file, rol.cf(5), and
// Postfix's own files in the same syntax.
//
// The syntax is that of Postfix's main.cf: one "name = value" a logical line;
// a line that starts with white space continues the one before it, empty
// lines and lines whose first visible character is # are ignored. Values are
// taken as they stand: there is no quoting and no $name expansion.
//
// Stricter than Postfix, a rol.cf with an unknown name, a name given twice or
// a value that cannot be right is an error that names file and line: a typing
// mistake must not silently mean the default. Files with names of another
// program's choice, mysql_table(5) for one, are read by ReadFile.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// DefaultPath is the file that is read when none is named; it need not exist.
const DefaultPath = "/etc/rol/rol.cf"

// Config is what a file and the defaults say. The accessors panic when a name
// is not declared in the schema or is of another type: that is a mistake in
// the program, which its first test finds.
type Config struct {
	Path   string // "" when only defaults count
	schema Schema
	set    map[string]string
}

// Load reads the file that the user named, or with path "" the default one,
// which may be missing.
func Load(path string) (*Config, error) {
	name := path
	if name == "" {
		name = DefaultPath
	}
	data, err := slurp(name)
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	return Known.Parse(name, data)
}

// Default is the configuration without any file.
func Default() *Config { return &Config{schema: Known} }

// Parse reads a file against the schema.
func (s Schema) Parse(path string, data []byte) (*Config, error) {
	f, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	c := &Config{Path: path, schema: s, set: make(map[string]string, len(f.Entries))}
	base := filepath.Base(path)
	for _, e := range f.Entries {
		p := s.Lookup(e.Name)
		if p == nil {
			return nil, sysexits.Errorf(sysexits.Config, "%s:%d: unknown parameter %.60q%s",
				base, e.Line, e.Name, s.hint(e.Name))
		}
		if _, dup := c.set[e.Name]; dup {
			return nil, sysexits.Errorf(sysexits.Config, "%s:%d: %s is set a second time: keep one of the lines",
				base, e.Line, e.Name)
		}
		if err := p.check(e.Value); err != nil {
			return nil, sysexits.Errorf(sysexits.Config, "%s:%d: %s: %w", base, e.Line, e.Name, err)
		}
		c.set[e.Name] = e.Value
	}
	return c, nil
}

// IsSet reports whether the file sets the parameter.
func (c *Config) IsSet(name string) bool { _, ok := c.set[name]; return ok }

// Raw is the text of a parameter of any type, from the file or the default.
func (c *Config) Raw(name string) string {
	p := c.schema.Lookup(name)
	if p == nil {
		panic("config: parameter " + name + " is not declared")
	}
	if v, ok := c.set[name]; ok {
		return v
	}
	return p.Default
}

// value parses the text of a parameter that check has found good.
func value[T any](c *Config, name string, want Type, parse func(string) (T, error)) T {
	text := c.Raw(name)
	if p := c.schema.Lookup(name); p.Type != want {
		panic(fmt.Sprintf("config: parameter %s is of type %s, not %s", name, p.Type, want))
	}
	v, err := parse(text)
	if err != nil {
		panic(fmt.Sprintf("config: default of %s: %v", name, err))
	}
	return v
}

// String returns a parameter of type String.
func (c *Config) String(name string) string { return value(c, name, String, parseString) }

// Int returns a parameter of type Int.
func (c *Config) Int(name string) int64 { return value(c, name, Int, parseInt) }

// Bool returns a parameter of type Bool.
func (c *Config) Bool(name string) bool { return value(c, name, Bool, parseBool) }

// Duration returns a parameter of type Duration.
func (c *Config) Duration(name string) time.Duration {
	return value(c, name, Duration, ParseDuration)
}

// Size returns a parameter of type Size, in bytes.
func (c *Config) Size(name string) int64 { return value(c, name, Size, ParseSize) }

// List returns a parameter of type List.
func (c *Config) List(name string) []string { return value(c, name, List, parseList) }

// Networks returns a parameter of type Networks.
func (c *Config) Networks(name string) []netip.Prefix {
	return value(c, name, Networks, ParseNetworks)
}

// Zone returns a parameter of type Zone; the machine's own for "".
func (c *Config) Zone(name string) *time.Location { return value(c, name, Zone, parseZone) }
