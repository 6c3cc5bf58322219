package logpipe

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/logsource/spool"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// Report is what the service says of itself: what rol-logpipe status shows,
// check judges and /metrics counts. Times are those of the wall clock.
type Report struct {
	Program   string           `json:"program"`
	PID       int              `json:"pid"`
	Started   time.Time        `json:"started"`
	Degraded  *time.Time       `json:"degraded_since"` // null: all is well
	Reasons   []string         `json:"reasons"`
	Spool     SpoolReport      `json:"spool"`
	Sources   []SourceReport   `json:"sources"`
	Databases []DatabaseReport `json:"databases"`
	Hosts     []HostReport     `json:"hosts"`
}

// SpoolReport is the state of the spool. Sizes are bytes.
type SpoolReport struct {
	Dir      string     `json:"dir"`
	Bytes    int64      `json:"bytes"`
	MaxBytes int64      `json:"max_bytes"`
	Segments int        `json:"segments"`
	Written  int64      `json:"written_bytes"` // the end of all that was ever put
	Unsynced int64      `json:"unsynced_bytes"`
	Syncs    int64      `json:"syncs"`
	SyncTime float64    `json:"sync_seconds"`
	SetAside int64      `json:"set_aside_files"`
	Waiting  *time.Time `json:"waiting_since"` // sources wait for room
	Why      string     `json:"waiting_for,omitempty"`
}

// SourceReport is the state of one source.
type SourceReport struct {
	Source  string  `json:"source"`
	Bytes   int64   `json:"bytes"`
	Lines   int64   `json:"lines"`
	Behind  int64   `json:"bytes_behind"`   // what is there to read; -1 where nobody knows
	Silent  float64 `json:"silent_seconds"` // since its last line; -1: there was none
	Trouble string  `json:"trouble,omitempty"`
}

// DatabaseReport is the state of one database and of the engine that writes it.
type DatabaseReport struct {
	Database    string           `json:"database"`
	Degraded    *time.Time       `json:"degraded_since"` // null: it is written
	Reason      string           `json:"reason,omitempty"`
	LagBytes    int64            `json:"lag_bytes"`
	LagSeconds  float64          `json:"lag_seconds"`
	LostBytes   int64            `json:"lost_bytes"`
	Lines       int64            `json:"lines"`
	Used        int64            `json:"used"`
	Noise       int64            `json:"noise"`
	Unparsed    int64            `json:"unparsed"`
	Rows        int64            `json:"rows"`
	Outcomes    map[string]int64 `json:"rows_by_outcome"`
	Late        int64            `json:"late"`
	Evicted     int64            `json:"evicted"` // given up as incomplete
	GivenUp     map[string]int64 `json:"evicted_by_reason,omitempty"`
	Sessions    int              `json:"open_sessions"`
	Legs        int              `json:"open_legs"`
	Scans       int              `json:"open_scans"`
	Waiting     int              `json:"waiting_edges"`
	Shelved     int              `json:"shelved"`
	Commits     int64            `json:"commits"`
	CommitTime  float64          `json:"commit_seconds"`         // of all commits
	LongestTime float64          `json:"longest_commit_seconds"` // of the last minute or two
	LastCommit  *time.Time       `json:"last_commit"`
	Shapes      []Shape          `json:"unparsed_shapes,omitempty"`

	buckets [len(commitBuckets) + 1]int64
}

// commitBuckets are the bounds of the commit times that are counted apart,
// seconds.
var commitBuckets = [...]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// commitStats are about the commits of one database.
type commitStats struct {
	n, rows int64
	total   time.Duration
	last    time.Time
	buckets [len(commitBuckets) + 1]int64
	longest [2]time.Duration // of this minute and the one before
	minute  time.Time
}

func (c *commitStats) add(took time.Duration, rows int, wall time.Time) {
	c.n++
	c.rows += int64(rows)
	c.total += took
	c.last = wall
	i, _ := slices.BinarySearch(commitBuckets[:], took.Seconds())
	c.buckets[i]++
	if m := wall.Truncate(time.Minute); !m.Equal(c.minute) {
		c.minute, c.longest[1], c.longest[0] = m, c.longest[0], 0
	}
	c.longest[0] = max(c.longest[0], took)
}

// addStats adds counters up. What is open counts where it is now.
func addStats(past, now trace.Stats) trace.Stats {
	now.Events += past.Events
	now.Rows += past.Rows
	now.Late += past.Late
	now.Ambiguous += past.Ambiguous
	now.ShelfErrors += past.ShelfErrors
	for i, n := range past.Outcomes {
		now.Outcomes[i] += n
	}
	for _, g := range []struct{ sum, more *trace.Given }{{&now.Evicted, &past.Evicted}, {&now.Expired, &past.Expired}} {
		g.sum.Mails += g.more.Mails
		g.sum.Sessions += g.more.Sessions
		g.sum.Scans += g.more.Scans
	}
	return now
}

// outcomes names the counts of trace.Stats.
func outcomes(st *trace.Stats) map[string]int64 {
	all := make(map[string]int64, len(flat.Outcomes))
	for i, name := range flat.Outcomes {
		all[name] = st.Outcomes[i]
	}
	return all
}

func givenUp(st *trace.Stats) map[string]int64 {
	return map[string]int64{
		"mails for want of room": st.Evicted.Mails, "sessions for want of room": st.Evicted.Sessions,
		"scans for want of room": st.Evicted.Scans, "mails for their age": st.Expired.Mails,
		"sessions for their age": st.Expired.Sessions, "scans for their age": st.Expired.Scans,
	}
}

// at is a moment for JSON: null for none.
func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Millisecond)
	return &t
}

func (e *engine) report() DatabaseReport {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, st := e.count, addStats(e.past, e.tracer.Stats())
	r := DatabaseReport{
		Database: e.where, Degraded: at(e.trouble.since), Reason: e.trouble.text, LostBytes: e.lost,
		Lines: c.lines(), Used: c.used, Noise: c.noise, Unparsed: c.unparsed,
		Rows: st.Rows, Outcomes: outcomes(&st), Late: st.Late, Evicted: st.GivenUp(), GivenUp: givenUp(&st),
		Sessions: st.Sessions, Legs: st.Legs, Scans: st.Scans, Waiting: st.Waiting, Shelved: st.Aside,
		Commits: e.commits.n, CommitTime: e.commits.total.Seconds(), LastCommit: at(e.commits.last),
		LongestTime: max(e.commits.longest[0], e.commits.longest[1]).Seconds(),
		Shapes:      c.sorted(), buckets: e.commits.buckets,
	}
	if d := time.Since(e.asked); r.Degraded == nil && !e.asked.IsZero() && d > answerTime {
		r.Degraded = at(e.wall().Add(-d))
		r.Reason = "it has not answered for " + d.Round(time.Second).String()
	}
	if !e.begun {
		r.LagBytes = e.spool.End() - e.spool.Begin()
		return r
	}
	if r.LagBytes = e.spool.End() - e.done; r.LagBytes > 0 && e.doneAt > 0 {
		r.LagSeconds = seconds(e.wall().Sub(time.UnixMicro(e.doneAt)))
	}
	return r
}

func spoolReport(s *spool.Spool, dir string, wall time.Time) SpoolReport {
	st := s.Stats()
	r := SpoolReport{
		Dir: dir, Bytes: st.Bytes, MaxBytes: st.MaxBytes, Segments: st.Segments, Written: st.End,
		Unsynced: st.End - st.Synced, Syncs: st.Syncs, SyncTime: st.SyncTime.Seconds(), SetAside: int64(st.SetAside),
	}
	if st.Waiting > 0 {
		r.Waiting = at(wall.Add(-st.Waiting))
		r.Why = fmt.Sprintf("%s of %s are in use, and the databases do not take them", size(st.Bytes), size(st.MaxBytes))
		if st.DiskFull {
			r.Why = "the disk is full: make room in the file system of " + dir
		}
	}
	return r
}

// judge says whether all is well, and if not since when and why.
func (r *Report) judge() {
	note := func(since *time.Time, reason string) {
		if since == nil {
			return
		}
		if r.Degraded == nil || since.Before(*r.Degraded) {
			r.Degraded = since
		}
		r.Reasons = append(r.Reasons, reason)
	}
	r.Reasons = []string{}
	for i := range r.Databases {
		d := &r.Databases[i]
		note(d.Degraded, "database "+d.Database+": "+firstLine(d.Reason))
	}
	note(r.Spool.Waiting, "the spool has no room: "+r.Spool.Why)
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
