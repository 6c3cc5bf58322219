package logpipe

import (
	"fmt"
	"io"
	"strings"

	"github.com/VictoriaMetrics/metrics"
)

// writeMetrics writes a report in the text format of Prometheus. Names begin
// with rol_logpipe_, times are seconds, sizes bytes. Values from the log stand
// in labels only after clean.
func writeMetrics(w io.Writer, r *Report) {
	gauge := func(name string, v float64, labels ...string) {
		metrics.WriteGaugeFloat64(w, name+label(labels), v)
	}
	count := func(name string, v int64, labels ...string) {
		metrics.WriteCounterUint64(w, name+label(labels), uint64(max(v, 0)))
	}
	gauge("rol_logpipe_degraded", flag(r.Degraded != nil))
	gauge("rol_logpipe_start_time_seconds", float64(r.Started.Unix()))

	gauge("rol_logpipe_spool_bytes", float64(r.Spool.Bytes))
	gauge("rol_logpipe_spool_max_bytes", float64(r.Spool.MaxBytes))
	gauge("rol_logpipe_spool_segments", float64(r.Spool.Segments))
	gauge("rol_logpipe_spool_unsynced_bytes", float64(r.Spool.Unsynced))
	gauge("rol_logpipe_spool_waiting", flag(r.Spool.Waiting != nil))
	count("rol_logpipe_spool_written_bytes_total", r.Spool.Written)
	count("rol_logpipe_spool_syncs_total", r.Spool.Syncs)
	metrics.WriteCounterFloat64(w, "rol_logpipe_spool_sync_seconds_total", r.Spool.SyncTime)
	gauge("rol_logpipe_spool_set_aside_files", float64(r.Spool.SetAside))

	for _, s := range r.Sources {
		count("rol_logpipe_source_bytes_total", s.Bytes, "source", s.Source)
		count("rol_logpipe_source_lines_total", s.Lines, "source", s.Source)
		if s.Silent >= 0 {
			gauge("rol_logpipe_source_silent_seconds", s.Silent, "source", s.Source)
		}
		gauge("rol_logpipe_source_trouble", flag(s.Trouble != ""), "source", s.Source)
		if s.Behind >= 0 {
			gauge("rol_logpipe_source_lag_bytes", float64(s.Behind), "source", s.Source)
		}
	}
	for i := range r.Databases {
		writeDatabase(w, &r.Databases[i], gauge, count)
	}
	for _, h := range r.Hosts {
		gauge("rol_logpipe_host_silent_seconds", h.Silent, "host", h.Host)
		for program, n := range h.Programs {
			count("rol_logpipe_lines_total", n, "host", h.Host, "program", program)
		}
	}
}

func writeDatabase(w io.Writer, d *DatabaseReport, gauge func(string, float64, ...string), count func(string, int64, ...string)) {
	db := []string{"database", d.Database}
	with := func(name, value string) []string { return append(db[:2:2], name, value) }
	gauge("rol_logpipe_database_up", flag(d.Degraded == nil), db...)
	gauge("rol_logpipe_lag_bytes", float64(d.LagBytes), db...)
	gauge("rol_logpipe_lag_seconds", d.LagSeconds, db...)
	count("rol_logpipe_lost_bytes_total", d.LostBytes, db...)
	for what, n := range map[string]int64{"used": d.Used, "noise": d.Noise, "unparsed": d.Unparsed} {
		count("rol_logpipe_parsed_lines_total", n, with("class", what)...)
	}
	for outcome, n := range d.Outcomes {
		count("rol_logpipe_rows_total", n, with("outcome", outcome)...)
	}
	count("rol_logpipe_late_lines_total", d.Late, db...)
	for what, n := range d.GivenUp {
		count("rol_logpipe_evictions_total", n, with("what", what)...)
	}
	for what, n := range map[string]int{
		"session": d.Sessions, "leg": d.Legs, "scan": d.Scans, "edge": d.Waiting, "shelved": d.Shelved,
	} {
		gauge("rol_logpipe_open", float64(n), with("what", what)...)
	}
	sum := int64(0)
	for i, n := range d.buckets {
		le := "+Inf"
		if i < len(commitBuckets) {
			le = fmt.Sprint(commitBuckets[i])
		}
		sum += n
		count("rol_logpipe_commit_seconds_bucket", sum, with("le", le)...)
	}
	metrics.WriteCounterFloat64(w, "rol_logpipe_commit_seconds_sum"+label(db), d.CommitTime)
	count("rol_logpipe_commit_seconds_count", d.Commits, db...)
	if d.LastCommit != nil {
		gauge("rol_logpipe_last_commit_timestamp_seconds", float64(d.LastCommit.UnixMilli())/1000, db...)
	}
	for _, s := range d.Shapes {
		count("rol_logpipe_unparsed_lines_total", s.Count, with("shape", clean([]byte(s.Shape)))...)
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// label writes pairs of names and values as labels.
func label(pairs []string) string {
	if len(pairs) == 0 {
		return ""
	}
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		b.WriteString([]string{",", "{"}[flagInt(i == 0)])
		b.WriteString(pairs[i] + `="` + escapeLabel.Replace(pairs[i+1]) + `"`)
	}
	b.WriteString("}")
	return b.String()
}

func flagInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// escapeLabel does what the text format asks for in a label's value.
var escapeLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// writeProcess writes what every Go process has to tell of its memory, CPU and
// descriptors.
func writeProcess(w io.Writer) { metrics.WriteProcessMetrics(w) }
