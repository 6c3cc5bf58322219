// Package logpipe is the way from log lines to flat rows: it reads sources
// (package logsource), parses each line (maillog), correlates the events
// (trace) and hands rows, input positions and open state to a store, in
// batches that are committed whole or not at all.
//
// One goroutine reads, parses and correlates; another one commits.
package logpipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/lib/maillog/trace"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// Store is where the rows go. Of package store it needs no more than this.
type Store interface {
	// Load returns the input positions, and the open state by key.
	Load(ctx context.Context, state func(key, data []byte) error) ([]store.Position, error)
	// Commit writes a batch in one transaction.
	Commit(ctx context.Context, b *store.Batch) error
	// Finish does what bulk loading has put off.
	Finish(ctx context.Context) error
}

// Options say how lines are read.
type Options struct {
	Parse maillog.Options
	Trace trace.Options

	// Again reads what was read before once more, from the beginning and
	// without the open state of earlier runs. Positions and state stay as
	// they are; the rows are the same, so that they change nothing unless the
	// program has learnt something new.
	Again bool

	CommitRows  int           // a batch is committed at so many rows: 5,000
	CommitEvery time.Duration // or after this time: 2 s

	Meter *Meter // filled in for a progress display; may be nil

	spoolDir string // of a service, for messages and positions
}

// Sizes.
const (
	commitRows  = 5000
	commitEvery = 2 * time.Second
	checkLines  = 1024 // the clock and the context are looked at every so many lines
	grace       = 200 * time.Millisecond
)

// replay is one run. Its fields belong to the goroutine that parses.
type replay struct {
	correlator
	fresh  bool // the store knew no log before this run
	opt    Options
	in     *logsource.Merger
	slots  []reader
	tails  []tail
	writer *writer   // nil for a dry run
	commit time.Time // of the last batch
}

// reader is what parses a slot of the merger.
type reader struct {
	parser     *maillog.Parser
	event      maillog.Event
	skipped    int64 // bytes
	lines      int64
	recognised int64 // lines that are syslog lines
}

// tail is the last line of a log if it has no newline: perhaps more comes.
type tail struct {
	slot int
	line []byte
}

// Replay reads the sources to their ends. db may be nil: then the lines are
// only parsed and correlated. What could be read of a broken source is used;
// the error comes with a summary then. Any other error comes without one.
func Replay(ctx context.Context, opt Options, sources []*logsource.Source, db Store) (*Summary, error) {
	if opt.CommitRows == 0 {
		opt.CommitRows = commitRows
	}
	if opt.CommitEvery == 0 {
		opt.CommitEvery = commitEvery
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begun := time.Now()
	r := &replay{opt: opt, commit: begun}
	if err := r.begin(ctx, sources, db); err != nil {
		return nil, err
	}
	if db != nil {
		r.writer = newWriter(ctx, cancel, db, r.fresh)
	}
	done := make(chan error, 1)
	go func() { done <- r.guarded(ctx) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		// A read of standard input may never end, so it is not waited for.
		select {
		case err = <-done:
		case <-time.After(grace):
			err = context.Cause(ctx)
		}
	}
	if r.writer != nil {
		r.writer.wait()
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && db != nil {
		r.opt.Meter.phase("building indexes")
		err = db.Finish(ctx)
	}
	if err != nil {
		return nil, err
	}
	return r.summary(time.Since(begun)), r.broken()
}

// begin loads what earlier runs left and skips what they have read.
func (r *replay) begin(ctx context.Context, sources []*logsource.Source, db Store) error {
	r.correlator = newCorrelator(r.opt.Trace, db != nil)
	r.fresh = !r.opt.Again
	var marks []logsource.Mark
	if db != nil && !r.opt.Again {
		positions, err := db.Load(ctx, r.tracer.Restore)
		if err != nil {
			return err
		}
		for _, p := range positions {
			r.fresh = false
			marks = append(marks, logsource.Mark{Prefix: p.Prefix, PrefixLen: p.PrefixLen, Offset: p.Offset})
		}
	}
	r.in = logsource.NewMerger(sources, r.parse)
	r.slots = make([]reader, r.in.Slots())
	for i := range r.slots {
		r.slots[i].parser = maillog.NewParser(r.opt.Parse)
	}
	for _, s := range sources {
		r.count.skipped += s.Resume(marks)
	}
	for i := range r.slots {
		r.slots[i].skipped = r.in.Skipped(i)
		if r.slots[i].skipped > 0 && r.opt.Parse.Year != 0 {
			// The year is that of the log's first line, not of the first new one.
			var ev maillog.Event
			r.slots[i].parser.Parse(r.in.Source(i).FirstLine(), &ev)
		}
	}
	r.out.known(marks)
	return nil
}

// parse is the merger's key: it reads a line's event into its slot.
func (r *replay) parse(slot int, line []byte) (int64, bool) {
	s := &r.slots[slot]
	return s.event.Time, s.parser.Parse(line, &s.event) != maillog.Foreign
}

// guarded is run, with a panic made an error of the calling goroutine.
func (r *replay) guarded(ctx context.Context) (err error) {
	defer func() {
		if r.writer != nil {
			r.writer.close()
		}
		if v := recover(); v != nil {
			err = bug(v)
		}
	}()
	return r.run(ctx)
}

func (r *replay) run(ctx context.Context) error {
	for n := 1; ; n++ {
		slot, line, err := r.in.Next()
		if err == io.EOF {
			break
		}
		if r.in.Source(slot).Partial() {
			r.tails = append(r.tails, tail{slot, append([]byte(nil), line...)})
			continue
		}
		r.use(slot, line)
		if n%checkLines == 0 || len(r.out.rows) >= r.opt.CommitRows {
			if err := r.check(ctx); err != nil {
				return err
			}
		}
	}
	return r.end(ctx)
}

// use counts a line and hands its event on.
func (r *replay) use(slot int, line []byte) {
	s := &r.slots[slot]
	s.lines++
	if s.event.Class != maillog.Foreign {
		s.recognised++
	}
	r.add(s.parser, &s.event, line)
}

// check is what is done now and then.
func (r *replay) check(ctx context.Context) error {
	r.opt.Meter.set(r.count.lines())
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if r.writer == nil || len(r.out.rows) < r.opt.CommitRows && time.Since(r.commit) < r.opt.CommitEvery {
		return nil
	}
	r.commit = time.Now()
	return r.flush(ctx)
}

// end puts what is still open and commits for the last time. A last line
// without newline is used, but not remembered: rows that it changes are
// written after positions and open state, so that the next run finds these as
// they were before it, reads it whole and writes the rows again.
func (r *replay) end(ctx context.Context) error {
	r.tracer.Sync()
	if err := r.flush(ctx); err != nil || len(r.tails) == 0 {
		return err
	}
	for _, t := range r.tails {
		r.parse(t.slot, t.line)
		r.use(t.slot, t.line)
	}
	r.tracer.Sync()
	r.opt.Meter.set(r.count.lines())
	if r.writer == nil {
		return nil
	}
	return r.writer.put(ctx, r.out.batch())
}

// flush hands the rows, the positions and the changed state to the writer.
func (r *replay) flush(ctx context.Context) error {
	if r.writer == nil {
		return nil
	}
	b := r.out.batch()
	if !r.opt.Again {
		b.State = r.out.state(r.tracer.Changes)
		now := time.Now().UnixMilli()
		for i := range r.slots {
			if m, ok := r.in.Mark(i); ok && r.slots[i].recognised > 0 && r.out.moved(m) {
				b.Positions = append(b.Positions, store.Position{
					Prefix: m.Prefix, PrefixLen: m.PrefixLen, Offset: m.Offset,
					Name: r.in.Source(i).Name(), Updated: now,
				})
			}
		}
	}
	return r.writer.put(ctx, b)
}

// summary is what the run has done.
func (r *replay) summary(took time.Duration) *Summary {
	c, st := r.count, r.tracer.Stats()
	s := &Summary{
		Lines: c.lines(), Used: c.used, Noise: c.noise, Unparsed: c.unparsed, Foreign: c.foreign,
		Rows: st.Rows, SkippedBytes: c.skipped, Evicted: st.GivenUp(), Late: st.Late,
		Open:    st.Sessions + st.Legs + st.Scans,
		Seconds: math.Round(took.Seconds()*1000) / 1000,
		Noises:  c.noises, Shapes: c.sorted(),
	}
	for i := range r.slots {
		s.Cut += r.in.Source(i).Cut()
		if r.slots[i].recognised > 0 || r.slots[i].lines == 0 {
			s.Logs++
		}
	}
	if sec := took.Seconds(); sec > 0 {
		s.LinesPerSecond = int64(float64(s.Lines) / sec)
	}
	return s
}

// broken says what was wrong with the sources.
func (r *replay) broken() error {
	var all []error
	for i := range r.slots {
		s := &r.slots[i]
		if err := r.in.Err(i); err != nil {
			all = append(all, err)
		}
		if s.lines > 0 && s.recognised == 0 && s.skipped == 0 {
			all = append(all, notALog(r.in.Source(i), s.lines))
		}
	}
	return errors.Join(all...)
}

func notALog(s *logsource.Source, lines int64) error {
	what := s.Type()
	if what != "" {
		what += ", "
	}
	return sysexits.Wrap(sysexits.Data, fmt.Errorf("%s: %snot a mail log: 0 of %d lines recognised",
		s.Name(), what, lines))
}
