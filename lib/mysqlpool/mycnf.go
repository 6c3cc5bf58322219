package mysqlpool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rolmail/rolmail/lib/config"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// options are what the option_file says.
type options struct {
	Config
	host, socket, port string
	files              []string // that hold a password
}

// includeDepth is how deep option files may include each other.
const includeDepth = 10

// readOptions reads the option_file, if there is one, for what the file
// itself leaves open, and then resolves the hosts. As in MySQL's library the
// group client is read, and after it option_group; an empty option_group
// reads nothing.
func (c *Config) readOptions(file *config.File) error {
	var o options
	path, _ := file.Lookup("option_file")
	group, given := file.Lookup("option_group")
	if path != "" && (group != "" || !given) {
		groups := []string{"client"}
		if group != "" {
			groups = append(groups, group)
		}
		if err := o.readFile(path, groups, 0); err != nil {
			return err
		}
	}
	c.Warnings = append(c.Warnings, o.Warnings...)
	if o.Password != "" && c.Password == "" {
		for _, f := range o.files {
			if w := looseMode(f); w != "" {
				c.Warnings = append(c.Warnings, w)
			}
		}
	}
	for _, f := range []struct{ to, from *string }{
		{&c.User, &o.User},
		{&c.Password, &o.Password},
		{&c.TLSCertFile, &o.TLSCertFile},
		{&c.TLSKeyFile, &o.TLSKeyFile},
		{&c.TLSCAFile, &o.TLSCAFile},
		{&c.TLSCAPath, &o.TLSCAPath},
		{&c.TLSCiphers, &o.TLSCiphers},
	} {
		if *f.to == "" {
			*f.to = *f.from
		}
	}
	c.TLS = c.TLS || o.TLS
	if _, set := file.Lookup("tls_verify_cert"); !set {
		c.TLSVerify = o.TLSVerify
	}
	if len(c.Hosts) == 0 && o.host != "" {
		host, err := oneHost(o.host)
		if err != nil {
			return sysexits.Errorf(sysexits.Config, "%s: host: %w", path, err)
		}
		c.Hosts = []string{host}
	}
	if len(c.Hosts) == 0 {
		c.Hosts = []string{"localhost"}
	}
	for i, host := range c.Hosts {
		c.Hosts[i] = resolve(host, o.socket, o.port)
	}
	return nil
}

func (o *options) readFile(path string, groups []string, depth int) error {
	if depth > includeDepth {
		return sysexits.Errorf(sysexits.Config, "%s: option files include each other more than %d deep", path, includeDepth)
	}
	f, err := os.Open(path)
	if err != nil {
		return optionError(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	if err != nil {
		return optionError(err)
	}
	if len(data) > config.MaxSize {
		return sysexits.Errorf(sysexits.Config, "%s: longer than %d bytes: this is no option file", path, config.MaxSize)
	}
	p := cnf{o: o, path: path, groups: groups, include: func(path string) error {
		return o.readFile(path, groups, depth+1)
	}}
	return p.parse(string(data))
}

func optionError(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return sysexits.Errorf(sysexits.NoPerm, "option_file: %w", err)
	}
	return sysexits.Errorf(sysexits.Config, "option_file: %w", err)
}

// cnf reads an option file of MySQL: [group], name, name = value, # and ;
// for comments, !include and !includedir.
type cnf struct {
	o       *options
	path    string
	groups  []string
	include func(path string) error
}

func (p *cnf) parse(data string) error {
	var settings []setting
	// A later group of the list wins over an earlier one wherever the two
	// stand in the file, but an included file counts where it is included.
	in := ""
	lineno := 0
	for line := range strings.SplitSeq(data, "\n") {
		lineno++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '!':
			if err := p.directive(line, lineno); err != nil {
				return err
			}
		case line[0] == '[':
			name, _, ok := strings.Cut(line[1:], "]")
			if !ok {
				return p.errorf(lineno, "%.60q: a ] is missing", line)
			}
			in = strings.TrimSpace(name)
		case slices.Contains(p.groups, in):
			name, value := option(line)
			settings = append(settings, setting{slices.Index(p.groups, in), lineno, name, value})
		}
	}
	slices.SortStableFunc(settings, func(a, b setting) int { return a.group - b.group })
	for _, s := range settings {
		if err := p.set(s.name, s.value); err != nil {
			return p.errorf(s.line, "%s: %v", s.name, err)
		}
	}
	return nil
}

// setting is an option and where it stands.
type setting struct {
	group, line int
	name, value string
}

func (p *cnf) errorf(line int, format string, args ...any) error {
	return sysexits.Errorf(sysexits.Config, "%s:%d: %s", filepath.Base(p.path), line, fmt.Sprintf(format, args...))
}

func (p *cnf) directive(line string, lineno int) error {
	if dir, ok := strings.CutPrefix(line, "!includedir"); ok {
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(dir), "*.cnf"))
		if err != nil {
			return p.errorf(lineno, "%.200q: %v", line, err)
		}
		for _, f := range files {
			if err := p.include(f); err != nil {
				return err
			}
		}
		return nil
	}
	if path, ok := strings.CutPrefix(line, "!include"); ok {
		return p.include(strings.TrimSpace(path))
	}
	return p.errorf(lineno, "%.60q: want !include or !includedir", line)
}

// option splits a line of a group. In a name - and _ are the same.
func option(line string) (name, value string) {
	name, value, _ = strings.Cut(line, "=")
	name = strings.ReplaceAll(strings.TrimSpace(name), "_", "-")
	return strings.TrimPrefix(name, "loose-"), optionValue(strings.TrimSpace(value))
}

// optionValue takes off quotes, a comment behind the value, and escapes.
func optionValue(v string) string {
	if len(v) >= 2 && (v[0] == '"' || v[0] == '\'') {
		if end := strings.IndexByte(v[1:], v[0]); end >= 0 {
			return unescape(v[1 : 1+end])
		}
	}
	// A # behind a value begins a comment, so a password with one is quoted.
	if i := strings.IndexByte(v, '#'); i >= 0 {
		v = strings.TrimSpace(v[:i])
	}
	return unescape(v)
}

func unescape(v string) string {
	const from, to = "btnrs\\\"'", "\b\t\n\r \\\"'"
	if !strings.ContainsRune(v, '\\') {
		return v
	}
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+1 < len(v) {
			if at := strings.IndexByte(from, v[i+1]); at >= 0 {
				b.WriteByte(to[at])
				i++
				continue
			}
		}
		b.WriteByte(v[i])
	}
	return b.String()
}

// set applies an option. Of the many that a client may have only those that
// say how to connect concern us.
func (p *cnf) set(name, value string) (err error) {
	o := p.o
	switch name {
	case "user":
		o.User = value
	case "password":
		o.Password = value
		o.files = append(o.files, p.path)
	case "host":
		o.host = value
	case "port":
		if n, perr := strconv.ParseUint(value, 10, 16); perr != nil || n == 0 {
			return fmt.Errorf("%.20q: want 1 to 65535", value)
		}
		o.port = value
	case "socket":
		if value != "" && !filepath.IsAbs(value) {
			return fmt.Errorf("%.200q: want an absolute path", value)
		}
		o.socket = value
	default:
		return p.setTLS(name, value)
	}
	return nil
}

func (p *cnf) setTLS(name, value string) (err error) {
	o := p.o
	switch name {
	case "ssl":
		o.TLS, err = flag(value)
	case "skip-ssl":
		o.TLS, o.TLSVerify = false, false
	case "ssl-ca":
		err = tlsCAFile(&o.Config, value)
	case "ssl-capath":
		err = tlsCAPath(&o.Config, value)
	case "ssl-cert":
		err = tlsCert(&o.Config, value)
	case "ssl-key":
		err = tlsKey(&o.Config, value)
	case "ssl-cipher":
		err = tlsCiphers(&o.Config, value)
	case "ssl-verify-server-cert":
		o.TLSVerify, err = flag(value)
		o.TLS = o.TLS || o.TLSVerify
	case "skip-ssl-verify-server-cert", "disable-ssl-verify-server-cert":
		o.TLSVerify = false
	case "ssl-mode":
		switch strings.ToUpper(value) {
		case "DISABLED":
			o.TLS, o.TLSVerify = false, false
		case "PREFERRED": // its fallback to plain text protects nobody
		case "REQUIRED", "VERIFY_CA":
			o.TLS, o.TLSVerify = true, false
		case "VERIFY_IDENTITY":
			o.TLS, o.TLSVerify = true, true
		default:
			return fmt.Errorf("%.60q: want DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY", value)
		}
	}
	return err
}

// flag reads an option that may stand without a value.
func flag(value string) (bool, error) {
	if value == "" {
		return true, nil
	}
	return yesNo(value)
}
