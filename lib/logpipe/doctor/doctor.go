// Package doctor looks at a host and says what will lose lines of the mail
// log, or blur them: settings of Postfix, Amavis, journald, rsyslog, syslog-ng
// and logrotate, the clock, the spool, the followed files and the database.
//
// It is rules over facts. Facts come through Options: files below a root
// directory, the output of commands, the kernel's clock and file system, the
// database's idea of time; so that the rules are tested with hosts that are made
// up. It reads and asks, and changes nothing.
//
// Bounds: a configuration file is read up to 1 MiB, of a log the last 256 KiB,
// of what a directory or pattern names the first 1000, of what is found the first
// 500; a command has 10 seconds.
// What cannot be read is no error: it is a finding where it matters, and the
// other rules go on. Nothing is kept from one run to the next.
package doctor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Severity says what a finding costs.
type Severity uint8

// Severities, the worst first.
const (
	Loses Severity = iota // lines are lost, or will be
	Blurs                 // lines arrive, but say less or are mistaken for others
	Hint                  // nothing is wrong; it could be better
)

// String is the severity's word, as in JSON.
func (s Severity) String() string {
	switch s {
	case Loses:
		return "loses"
	case Blurs:
		return "blurs"
	}
	return "hint"
}

// MarshalText makes the severity a word in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that was found.
type Finding struct {
	Severity Severity `json:"severity"`
	Check    string   `json:"check"` // the rule's family: postfix, amavis, journald, rsyslog ...
	Where    string   `json:"where"` // a file, with the line where there is one: /etc/postfix/main.cf:12
	What     string   `json:"what"`  // one sentence
	Do       string   `json:"do"`    // what to do; the exact line to add where it is one
}

// Options are the facts to judge. Zero values stand for this host.
type Options struct {
	Root      string   // below which files are; "" or "/" is this host
	Files     []string // the followed logs: paths or patterns
	Spool     string   // the spool's directory; "" looks at none
	SpoolSize int64    // bytes it may grow to; 0: not known
	Databases []string // as type:where

	// DBTime asks a database for its time; nil looks at none.
	DBTime func(ctx context.Context) (time.Time, error)
	// Command runs a program and returns what it writes to stdout.
	Command func(ctx context.Context, name string, args ...string) ([]byte, error)
	Now     func() time.Time
	// Synchronised asks the kernel whether something keeps its clock right.
	Synchronised func() (bool, error)
	// FileSystem describes the file system that a path, already below Root, is on.
	FileSystem func(path string) (FileSystem, error)
}

// FileSystem is what matters of one.
type FileSystem struct {
	Memory  bool  // tmpfs or ramfs: gone after a power cut
	Network bool  // NFS, CIFS and the like
	Free    int64 // bytes for those who are not root
}

// maxFindings bounds what is found.
const maxFindings = 500

// commandTime is how long a command may take.
const commandTime = 10 * time.Second

func (o *Options) defaults() {
	if o.Root == "" {
		o.Root = "/"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Command == nil {
		o.Command = runCommand
	}
	if o.Synchronised == nil {
		o.Synchronised = synchronised
	}
	if o.FileSystem == nil {
		o.FileSystem = fileSystem
	}
}

// runCommand runs a program of the host, also where PATH is a user's.
func runCommand(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	path, err := exec.LookPath(name)
	if err != nil {
		path = filepath.Join("/usr/sbin", name)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd.Output()
}

// Run applies all rules and returns what they find, the worst first.
func Run(ctx context.Context, opt Options) []Finding {
	opt.defaults()
	opt.Spool = absolute(opt.Spool)
	h := &host{Options: opt, ctx: ctx}
	h.expandLogs()
	h.postfix()
	h.amavis()
	h.rsyslog()
	h.syslogNG()
	h.journald()
	h.logrotate()
	h.logs()
	h.clock()
	h.spool()
	h.databases()
	slices.SortStableFunc(h.found, func(a, b Finding) int { return int(a.Severity) - int(b.Severity) })
	return h.found
}

// Status is the exit status for findings: 2 if something loses lines, 1 if
// something blurs them, 0 if nothing does. Hints do not count.
func Status(found []Finding) int {
	status := 0
	for _, f := range found {
		switch f.Severity {
		case Loses:
			return 2
		case Blurs:
			status = 1
		}
	}
	return status
}

// host is a run over one host.
type host struct {
	Options
	ctx   context.Context
	found []Finding

	logFiles  []string   // what Files names, without Root
	instances []instance // of Postfix
	rs        *rsyslogConf
}

// add notes a finding, once.
func (h *host) add(s Severity, check, where, what, do string) {
	f := Finding{Severity: s, Check: check, Where: where, What: what, Do: do}
	if len(h.found) < maxFindings && !slices.Contains(h.found, f) {
		h.found = append(h.found, f)
	}
}

// follows reports whether a path is one of the followed logs.
func (h *host) follows(path string) bool {
	return slices.Contains(h.logFiles, filepath.Clean(path)) || slices.ContainsFunc(h.Files, func(pattern string) bool {
		ok, err := filepath.Match(pattern, path)
		return err == nil && ok
	})
}

// on reports whether a setting of rsyslog, systemd or Postfix means yes.
func on(value string) bool {
	switch strings.ToLower(value) {
	case "on", "yes", "true", "1":
		return true
	}
	return false
}
