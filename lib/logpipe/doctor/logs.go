package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
)

const (
	ahead   = 5 * time.Second  // how far clocks may be apart
	silence = 6 * time.Hour    // how long a mail log may be silent
	minimum = 5                // lines of a host by which its clock is judged
	oneHour = time.Hour        // beyond it a difference is a backlog, not a clock
	dbAhead = 30 * time.Second // how far the database's clock may be away
)

// expandLogs finds the followed files.
func (h *host) expandLogs() {
	for _, pattern := range h.Files {
		pattern = absolute(pattern)
		if !strings.ContainsAny(pattern, "*?[") {
			h.logFiles = append(h.logFiles, pattern)
			continue
		}
		names := h.glob(pattern)
		if len(names) == 0 {
			h.add(Hint, "logs", pattern, "no file has such a name at the moment", "look whether the pattern is right")
		}
		h.logFiles = append(h.logFiles, names...)
	}
}

// logs looks at the followed files: can they be read, and what is in them.
func (h *host) logs() {
	for _, name := range h.logFiles {
		st, err := os.Stat(h.path(name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			h.add(Loses, "logs", name, "the followed file does not exist", "look whether the name is right, and what should write it")
			continue
		case err != nil:
			h.add(Loses, "logs", name, "the followed file cannot be looked at: "+reason(err), "give the user of rol-logpipe access: usermod -aG adm rol")
			continue
		case st.Mode()&fs.ModeNamedPipe != 0:
			continue // reading would take lines away
		case !st.Mode().IsRegular():
			h.add(Loses, "logs", name, "the followed name is neither a file nor a FIFO", "name a log file")
			continue
		}
		tail, err := h.tail(name)
		if err != nil {
			h.add(Loses, "logs", name, "the followed file cannot be read: "+reason(err), "give the user of rol-logpipe access: usermod -aG adm rol")
			continue
		}
		h.logTail(name, tail)
	}
}

// reason is an error without the path that stands in Where already.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// tail is the end of a file, from the beginning of a line.
func (h *host) tail(name string) ([]byte, error) {
	f, err := os.Open(h.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, st.Size()-maxTail)
	b, err := io.ReadAll(io.NewSectionReader(f, from, maxTail))
	if err != nil {
		return nil, err
	}
	if from > 0 {
		_, b, _ = bytes.Cut(b, []byte{'\n'})
	}
	return b, nil
}

// tally is what the end of a log says.
type tally struct {
	lines, foreign, yearless, coarse int
	newest                           time.Time
	front                            int64            // the latest time so far, Unix microseconds
	behind                           map[string]int64 // host -> the least it was behind the front
	seen                             map[string]int   // host -> lines
}

func (h *host) logTail(name string, tail []byte) {
	t := tally{behind: map[string]int64{}, seen: map[string]int{}}
	p := maillog.NewParser(maillog.Options{Now: h.Now()})
	for line := range bytes.Lines(tail) {
		if line[len(line)-1] == '\n' {
			t.line(p, line)
		}
	}
	if t.lines == 0 {
		return
	}
	h.logFormat(name, &t)
	if t.newest.IsZero() {
		return
	}
	switch d := h.Now().Sub(t.newest); {
	case d < -ahead:
		h.add(Blurs, "clock", name, fmt.Sprintf("the newest line is from %s in the future: this clock, or that of the host which wrote it, is wrong",
			span(-d)), "keep the clocks of all hosts with chrony or systemd-timesyncd")
	case d > silence:
		h.add(Hint, "logs", name, fmt.Sprintf("the newest line is %s old", span(d)), "look whether the file is still written, and whether a zone is missing")
	}
	for _, host := range t.late() {
		h.add(Blurs, "clock", name, fmt.Sprintf("the clock of %q is %s behind other hosts' in this file, or its lines come late",
			host, span(time.Duration(t.behind[host])*time.Microsecond)), "keep the clocks of all hosts with chrony or systemd-timesyncd")
	}
}

// span is a duration for people.
func span(d time.Duration) string {
	if d > time.Minute {
		return d.Round(time.Minute).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// line takes one line into account.
func (t *tally) line(p *maillog.Parser, line []byte) {
	var ev maillog.Event
	t.lines++
	if p.Parse(line, &ev) == maillog.Foreign {
		t.foreign++
		return
	}
	if ev.Coarse {
		t.coarse++
	}
	if yearless(line) {
		t.yearless++
	}
	t.newest = time.UnixMicro(ev.Time)
	host := string(ev.Host)
	late := t.front - ev.Time
	if had, ok := t.behind[host]; !ok && len(t.behind) < maxNames || ok && late < had {
		t.behind[host] = max(late, 0)
	}
	t.seen[host]++
	t.front = max(t.front, ev.Time)
}

// yearless reports whether a line begins as BSD syslog does, "Nov 23", behind
// a priority if there is one.
func yearless(line []byte) bool {
	if line[0] == '<' {
		if i := bytes.IndexByte(line[:min(len(line), 6)], '>'); i > 0 {
			line = line[i+1:]
		}
	}
	return len(line) > 0 && line[0] >= 'A' && line[0] <= 'Z'
}

// late are the hosts whose lines are always behind the others', by more than
// clocks may be and less than a backlog is.
func (t *tally) late() (hosts []string) {
	for host, us := range t.behind {
		d := time.Duration(us) * time.Microsecond
		if d > ahead && d < oneHour && t.seen[host] >= minimum {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

// logFormat looks at the form of the lines.
func (h *host) logFormat(name string, t *tally) {
	const template = `template="RolMaillog", which contrib/rsyslog/rol-central.conf has`
	switch {
	case t.foreign > t.lines/2:
		h.add(Loses, "logs", name, fmt.Sprintf("%d of the last %d lines are no syslog lines", t.foreign, t.lines), "follow the mail log")
	case t.yearless > t.lines/2:
		h.add(Blurs, "logs", name, "lines have no year, zone and fraction of the second: an hour of autumn comes twice, and the order of hosts is lost", template)
	case t.coarse > t.lines*9/10 && t.lines >= minimum:
		h.add(Hint, "logs", name, "lines have whole seconds only: the order of several hosts' lines is lost within them", template)
	}
}
