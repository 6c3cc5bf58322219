package mysqlpool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/config"
	"github.com/rolmail/rolmail/lib/suggest"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// maxHosts is how many hosts a file may name; more is a mistake.
const maxHosts = 32

// Config is how a database is reached: the connection parameters of a
// mysql_table(5) file, with those of its option_file filled in.
type Config struct {
	Path     string   // the file, for messages; may be empty
	Hosts    []string // in order of preference: unix:/path or host:port, an IPv6 address in brackets
	User     string
	Password string
	DBName   string
	Charset  string // always utf8mb4; see the warnings for what the file wished

	TLS         bool   // asked for; a unix socket goes without
	TLSVerify   bool   // the certificate must name the host
	TLSCertFile string // our own certificate, PEM
	TLSKeyFile  string
	TLSCAFile   string // who must have signed the server's certificate
	TLSCAPath   string // a directory of such
	TLSCiphers  string // names as of OpenSSL, separated by colons

	Idle  time.Duration // a session unused for so long is closed; 0: the default
	Retry time.Duration // the longest pause between two probes of a host that is down; 0: the default

	Warnings []string // each names file and line
}

// parameter is what a name of mysql_table(5) does to a Config.
type parameter func(c *Config, value string) error

// text is a parameter that is a string.
func text(field func(*Config) *string) parameter {
	return func(c *Config, v string) error { *field(c) = v; return nil }
}

// tlsText is a text that also asks for TLS.
func tlsText(field func(*Config) *string) parameter {
	return func(c *Config, v string) error {
		*field(c) = v
		c.TLS = c.TLS || v != ""
		return nil
	}
}

var (
	setUser     = text(func(c *Config) *string { return &c.User })
	setPassword = text(func(c *Config) *string { return &c.Password })
	tlsCert     = tlsText(func(c *Config) *string { return &c.TLSCertFile })
	tlsKey      = tlsText(func(c *Config) *string { return &c.TLSKeyFile })
	tlsCAFile   = tlsText(func(c *Config) *string { return &c.TLSCAFile })
	tlsCAPath   = tlsText(func(c *Config) *string { return &c.TLSCAPath })
	tlsCiphers  = tlsText(func(c *Config) *string { return &c.TLSCiphers })
)

// parameters are those of mysql_table(5) that say how to connect.
var parameters = map[string]parameter{
	"hosts":           func(c *Config, v string) (err error) { c.Hosts, err = splitHosts(v); return err },
	"user":            setUser,
	"password":        setPassword,
	"dbname":          text(func(c *Config) *string { return &c.DBName }),
	"charset":         text(func(c *Config) *string { return &c.Charset }),
	"tls_cert_file":   tlsCert,
	"tls_key_file":    tlsKey,
	"tls_CAfile":      tlsCAFile,
	"tls_CApath":      tlsCAPath,
	"tls_ciphers":     tlsCiphers,
	"tls_verify_cert": setVerify,
	"idle_interval":   func(c *Config, v string) (err error) { c.Idle, err = interval(v); return err },
	"retry_interval":  func(c *Config, v string) (err error) { c.Retry, err = interval(v); return err },
	"option_file":     func(*Config, string) error { return nil }, // readOptions
	"option_group":    func(*Config, string) error { return nil },
}

// lookups are the names of mysql_table(5) that say what to ask. A file that
// has them is right, and they do not concern a connection.
var lookups = []string{
	"query", "result_format", "domain", "expansion_limit", "require_result_set",
	"select_field", "table", "where_field", "additional_conditions",
}

func setVerify(c *Config, v string) error {
	yes, err := yesNo(v)
	c.TLSVerify = yes
	c.TLS = c.TLS || yes
	return err
}

func yesNo(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "yes", "true", "on", "1":
		return true, nil
	case "no", "false", "off", "0", "":
		return false, nil
	}
	return false, fmt.Errorf("%.60q: want yes or no", v)
}

// interval reads seconds, or a time with a unit.
func interval(v string) (time.Duration, error) {
	const most = 24 * time.Hour
	d, err := config.ParseDuration(v)
	if n, nerr := strconv.ParseUint(v, 10, 31); nerr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err == nil && (d < time.Second || d > most) {
		err = fmt.Errorf("%.60q: want 1 second to %v", v, most)
	}
	return d, err
}

// ReadFile reads the connection parameters of a mysql_table(5) file. Names in
// further are the caller's own, and no reason for a warning. Parameters of
// the option_file count where the file itself says nothing.
//
// What is only doubtful (an unknown name, a password that others may read)
// is in Warnings. Errors have the status Config, or NoPerm.
func ReadFile(path string, further ...string) (*Config, error) {
	for _, typ := range []string{"mysql:", "proxy:"} {
		if strings.HasPrefix(path, typ) {
			return nil, sysexits.Errorf(sysexits.Config, "%.200q: want the path of the file alone, without %s", path, typ)
		}
	}
	file, err := config.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = sysexits.Errorf(sysexits.Config, "%w; a file in the form of mysql_table(5) names hosts, user, password and dbname", err)
		}
		return nil, err
	}
	c, err := fromFile(file, further)
	if err != nil {
		return nil, err
	}
	if w := looseMode(path); w != "" && c.Password != "" {
		c.Warnings = append(c.Warnings, w)
	}
	return c, nil
}

// looseMode says that others may read a file that holds a password.
func looseMode(path string) string {
	fi, err := os.Stat(path)
	if err != nil || fi.Mode()&fs.FileMode(0o004) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: holds a password and everybody may read it; chmod o= %s", filepath.Base(path), path)
}

// fromFile takes the parameters out of a file.
func fromFile(file *config.File, further []string) (*Config, error) {
	c := &Config{Path: file.Path, Warnings: slices.Clone(file.Warnings)}
	base := filepath.Base(file.Path)
	if err := obsolete(file, base); err != nil {
		return nil, err
	}
	for _, e := range file.Entries {
		set := parameters[e.Name]
		switch {
		case set == nil && (slices.Contains(lookups, e.Name) || slices.Contains(further, e.Name)):
			continue
		case set == nil:
			c.Warnings = append(c.Warnings, fmt.Sprintf("%s:%d: %.60q is no parameter of mysql_table(5)%s",
				base, e.Line, e.Name, suggest.DidYouMean(e.Name, "", known())))
			continue
		}
		if err := set(c, e.Value); err != nil {
			return nil, sysexits.Errorf(sysexits.Config, "%s:%d: %s: %w", base, e.Line, e.Name, err)
		}
	}
	if err := c.readOptions(file); err != nil {
		return nil, err
	}
	return c, c.complete(base)
}

// known are all names of mysql_table(5).
func known() []string {
	names := slices.Clone(lookups)
	for name := range parameters {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// obsolete finds the form that main.cf had before Postfix 2.2: every name
// with the table's before it.
func obsolete(file *config.File, base string) error {
	if _, ok := file.Lookup("dbname"); ok {
		return nil
	}
	for _, e := range file.Entries {
		if table, ok := strings.CutSuffix(e.Name, "_dbname"); ok {
			return sysexits.Errorf(sysexits.Config,
				"%s:%d: %.60q is the obsolete form of main.cf; write a file of its own with hosts, user, password and dbname, without %.60q",
				base, e.Line, e.Name, table+"_")
		}
	}
	return nil
}

// complete fills in what nobody has set, and looks for what is missing.
func (c *Config) complete(base string) error {
	if c.DBName == "" {
		return sysexits.Errorf(sysexits.Config, "%s: dbname is missing: want dbname = the database's name", base)
	}
	if c.TLSKeyFile != "" && c.TLSCertFile == "" {
		c.TLSCertFile = c.TLSKeyFile // both may be in one file
	}
	if c.TLSCertFile != "" && c.TLSKeyFile == "" {
		c.TLSKeyFile = c.TLSCertFile
	}
	switch strings.ToLower(c.Charset) {
	case "", "utf8mb4":
	default:
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s: charset %.60q is not used: this program speaks utf8mb4", base, c.Charset))
	}
	c.Charset = "utf8mb4"
	if c.TLSCiphers != "" && suites(c.TLSCiphers) == nil {
		c.Warnings = append(c.Warnings, fmt.Sprintf(
			"%s: tls_ciphers %.60q names no suite known here, such as ECDHE-RSA-AES128-GCM-SHA256; it is not used",
			base, c.TLSCiphers))
	}
	return nil
}
