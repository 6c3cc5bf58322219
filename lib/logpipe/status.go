package logpipe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rolmail/rolmail/lib/daemon"
	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/lib/term"
)

// socketName is the socket in the spool's directory on which the service
// tells its state.
const socketName = "status.sock"

// maxReport bounds an answer of the service, bytes.
const maxReport = 16 << 20

// handler answers /status, /healthz and /metrics.
func handler(report func() *Report) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(report())
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		r := report()
		if r.Degraded == nil {
			_, _ = io.WriteString(w, "ok\n")
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "degraded since %s\n", r.Degraded.Format(time.RFC3339))
		for _, reason := range r.Reasons {
			fmt.Fprintln(w, term.Printable(reason))
		}
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		writeMetrics(w, report())
		writeProcess(w)
	})
	return mux
}

// Ask asks the service that uses the spool directory for its report.
func Ask(ctx context.Context, spoolDir string) (*Report, error) {
	socket := filepath.Join(spoolDir, socketName)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://rol-logpipe/status", nil)
	if err != nil {
		return nil, err
	}
	res, err := daemon.Client(socket).Do(req)
	if err != nil {
		return nil, notRunning(socket, err)
	}
	defer res.Body.Close()
	r := &Report{}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxReport)).Decode(r); err != nil {
		return nil, sysexits.Errorf(sysexits.Unavailable, "%s: the answer cannot be read: %w", socket, err)
	}
	return r, nil
}

func notRunning(socket string, err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return sysexits.Errorf(sysexits.NoPerm, "%s: permission denied; run this as root or as the user of the service", socket)
	case errors.Is(err, os.ErrNotExist):
		return sysexits.Errorf(sysexits.Unavailable,
			"%s: no such socket; no rol-logpipe has run with this spool, or name another by --spool", socket)
	}
	var inner interface{ Unwrap() error }
	for errors.As(err, &inner) && inner.Unwrap() != nil {
		err = inner.Unwrap()
		inner = nil
	}
	return sysexits.Errorf(sysexits.Unavailable, "%s: rol-logpipe is not running: %w", socket, err)
}

// WriteReport shows a report to a person.
func WriteReport(w io.Writer, r *Report, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, term.Printable(fmt.Sprint(c)))
		}
		fmt.Fprintln(t)
	}
	state := "ok"
	if r.Degraded != nil {
		state = "degraded since " + local(*r.Degraded, now)
	}
	line("rol-logpipe", fmt.Sprintf("%s, process %d, running for %s", state, r.PID, age(now.Sub(r.Started))))
	for _, reason := range r.Reasons {
		line("", reason)
	}
	s := &r.Spool
	line("spool", fmt.Sprintf("%s of %s in %s, %s not yet synced", size(s.Bytes), size(s.MaxBytes), s.Dir, size(s.Unsynced)))
	if s.SetAside > 0 {
		line("", fmt.Sprintf("%d damaged pieces set aside: see *.damaged there", s.SetAside))
	}
	for i, src := range r.Sources {
		behind := ""
		if src.Behind >= 0 {
			behind = ", " + size(src.Behind) + " behind"
		}
		last := "none yet"
		if src.Silent >= 0 {
			last = "last " + age(src.Silent*1e9) + " ago"
		}
		line(once(i, "sources"), fmt.Sprintf("%s: %d lines, %s%s, %s", src.Source, src.Lines, size(src.Bytes), behind, last))
		if src.Trouble != "" {
			line("", "  "+src.Trouble)
		}
	}
	for i := range r.Databases {
		for j, text := range r.Databases[i].describe(now) {
			line(once(i+j, "databases"), text)
		}
	}
	for i, h := range r.Hosts {
		line(once(i, "hosts"), fmt.Sprintf("%s: %d lines, last %s ago", h.Host, h.Lines, age(h.Silent*1e9)))
	}
	return t.Flush()
}

// describe says how a database is.
func (d *DatabaseReport) describe(now time.Time) []string {
	state := "written"
	if d.Degraded != nil {
		state = "not written since " + local(*d.Degraded, now) + ": " + firstLine(d.Reason)
	}
	lag := "up to date"
	if d.LagBytes > 0 {
		lag = fmt.Sprintf("%s and %s behind", size(d.LagBytes), age(d.LagSeconds*1e9))
	}
	mean := 0.0
	if d.Commits > 0 {
		mean = d.CommitTime / float64(d.Commits) * 1000
	}
	lines := []string{
		d.Database + ": " + state,
		"  " + lag,
		fmt.Sprintf("  %d lines: %d used, %d noise, %d unparsed; %d rows", d.Lines, d.Used, d.Noise, d.Unparsed, d.Rows),
		fmt.Sprintf("  open: %d sessions, %d legs (%d put aside), %d scans; %d given up, %d lines late",
			d.Sessions, d.Legs, d.Shelved, d.Scans, d.Evicted, d.Late),
		fmt.Sprintf("  commits: %d, %.1f ms each, the longest lately %.0f ms", d.Commits, mean, d.LongestTime*1000),
	}
	if d.LostBytes > 0 {
		lines = append(lines, fmt.Sprintf("  %s of lines are missing: read the logs of that time with rol-logpipe FILE", size(d.LostBytes)))
	}
	return lines
}

// once is a heading for the first line below it.
func once(i int, heading string) string {
	if i == 0 {
		return heading
	}
	return ""
}

// local is a moment as people say it.
func local(t, now time.Time) string {
	t = t.In(now.Location())
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// age is a time span in its two biggest units.
func age[T ~int64 | ~float64](ns T) string {
	d := time.Duration(ns)
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", max(d, 0).Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days %d h", int(d.Hours())/24, int(d.Hours())%24)
}

// size is a number of bytes in a unit that leaves few digits.
func size(n int64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB"}
	f, i := float64(n), 0
	for ; f >= 1000 && i < len(units)-1; i++ {
		f /= 1000
	}
	if i == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return strings.Replace(fmt.Sprintf("%.3g %s", f, units[i]), "e+03", "000", 1)
}

// WriteReportJSON writes a report as one JSON object.
func WriteReportJSON(w io.Writer, r *Report) error { return json.NewEncoder(w).Encode(r) }
