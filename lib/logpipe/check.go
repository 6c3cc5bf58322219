package logpipe

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/lib/term"
)

// Statuses of a check, as Nagios and Icinga know them.
const (
	checkOK = iota
	checkWarning
	checkCritical
	checkUnknown
)

var checkWords = [...]string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}

// CheckOptions are the thresholds of Check.
type CheckOptions struct {
	WarnLag, CritLag time.Duration // how far a database may be behind
	Silence          time.Duration // how long a host may say nothing; 0: for ever
	WarnSpool        int           // percent of the spool's bound
}

// Check judges a report, or the error of asking for one, as a monitoring
// plug-in: one line and performance data on w, and the exit status.
func Check(w io.Writer, r *Report, asked error, o CheckOptions) error {
	c := &checker{CheckOptions: o}
	if asked != nil {
		c.note(checkCritical, "%v", asked)
	} else {
		c.judge(r)
	}
	text := strings.Join(c.notes, ", ")
	if text == "" {
		text = c.summary
	}
	line := fmt.Sprintf("LOGPIPE %s - %s", checkWords[c.status], term.Printable(text))
	if len(c.perf) > 0 {
		line += " | " + strings.Join(c.perf, " ")
	}
	if _, err := fmt.Fprintln(w, line); err != nil {
		return err
	}
	if c.status == checkOK {
		return nil
	}
	return sysexits.Silent(c.status)
}

type checker struct {
	CheckOptions
	status  int
	notes   []string
	summary string
	perf    []string
}

func (c *checker) note(status int, format string, args ...any) {
	c.status = max(c.status, status)
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *checker) judge(r *Report) {
	var lines int64
	for i := range r.Databases {
		d := &r.Databases[i]
		lines = max(lines, d.Lines)
		c.database(d)
		c.perf = append(c.perf,
			fmt.Sprintf("'lag_%d'=%.1fs;%.0f;%.0f;0", i, d.LagSeconds, c.WarnLag.Seconds(), c.CritLag.Seconds()),
			fmt.Sprintf("'lag_bytes_%d'=%dB;;;0", i, d.LagBytes),
			fmt.Sprintf("'unparsed_%d'=%dc;;;0", i, d.Unparsed))
	}
	full := 0
	if r.Spool.MaxBytes > 0 {
		full = int(r.Spool.Bytes * 100 / r.Spool.MaxBytes)
	}
	c.perf = append(c.perf, fmt.Sprintf("'spool'=%dB;;;0;%d", r.Spool.Bytes, r.Spool.MaxBytes))
	switch {
	case r.Spool.Waiting != nil:
		c.note(checkCritical, "the spool has no room: %s", r.Spool.Why)
	case full >= c.WarnSpool && c.WarnSpool > 0:
		c.note(checkWarning, "the spool is %d %% full", full)
	}
	if r.Spool.SetAside > 0 {
		c.note(checkWarning, "%d damaged pieces of the spool were set aside in %s", r.Spool.SetAside, r.Spool.Dir)
	}
	for _, s := range r.Sources {
		if s.Trouble != "" {
			c.note(checkWarning, "%s: %s", s.Source, s.Trouble)
		}
	}
	silent := 0
	for _, h := range r.Hosts {
		if c.Silence > 0 && h.Silent > c.Silence.Seconds() {
			silent++
			c.note(checkWarning, "host %s has been silent for %s", h.Host, age(h.Silent*1e9))
		}
	}
	c.perf = append(c.perf, fmt.Sprintf("'silent_hosts'=%d;;;0", silent), fmt.Sprintf("'lines'=%dc;;;0", lines))
	c.summary = fmt.Sprintf("%d lines of %d hosts", lines, len(r.Hosts))
}

// database judges one database: with all the others written it is still
// critical, because its lag only grows.
func (c *checker) database(d *DatabaseReport) {
	lag := time.Duration(d.LagSeconds * float64(time.Second))
	switch {
	case d.Degraded != nil && lag >= c.CritLag:
		c.note(checkCritical, "database %s is not written, %s behind: %s", d.Database, age(lag), firstLine(d.Reason))
	case d.Degraded != nil:
		c.note(checkWarning, "database %s is not written: %s", d.Database, firstLine(d.Reason))
	case lag >= c.CritLag:
		c.note(checkCritical, "database %s is %s behind", d.Database, age(lag))
	case lag >= c.WarnLag:
		c.note(checkWarning, "database %s is %s behind", d.Database, age(lag))
	}
	if d.LostBytes > 0 {
		c.note(checkCritical, "database %s misses %s of lines", d.Database, size(d.LostBytes))
	}
}
