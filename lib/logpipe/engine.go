package logpipe

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/logsource/spool"
	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/lib/maillog/trace"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// Times of an engine.
const (
	flushEvery   = 500 * time.Millisecond // while it keeps up: open mails become provisional rows
	catchUpEvery = 2 * time.Second        // while it lags: only what is final, and the position
	idleEvery    = 200 * time.Millisecond // how often it looks at the time when nothing comes
	napTime      = 10 * time.Millisecond  // lines that come one by one are taken together
	quietEvery   = 5 * time.Second        // a position that nothing but noise has moved
	finishEvery  = time.Second            // while it keeps up: a new day gets its indexes
	nearBytes    = 4 << 20                // it keeps up while it is no further behind than this
	batchBytes   = 2 << 20                // of lines: what a batch has of rows and open mails grows with them
	firstRetry   = 250 * time.Millisecond
	lastRetry    = 10 * time.Second
	answerTime   = 10 * time.Second // a database that takes longer for an answer is in trouble
	tailsKnown   = time.Hour        // after a beginning in the middle of a log: see known.go
)

// database is what an engine needs of a store.
type database interface {
	Store
	searcher
	Close() error
}

// engine reads the spool into one database, with a position, open mails and
// pace of its own.
//
// What it holds: the tracer's open mails, a batch being gathered and one being
// committed. What bounds it: the tracer's caps, Options.CommitRows, and that
// it stops reading while the batch before is not committed: while the
// database is away the lines wait in the spool. What happens on restart, or
// when the database is not where this engine left it (store.ErrMoved): open
// mails and position are read from the database, which has both of the same
// moment, and the lines behind them are read from the spool again.
type engine struct {
	where string // the database, as type:where
	opt   Options
	open  func() (database, error)
	spool *spool.Spool
	log   *slog.Logger

	opened int64            // the spool's end before anything was put
	wall   func() time.Time // to show and to store, never to decide by

	loaded chan struct{}    // closed when the database has been read for the first time, or never will be
	marks  []logsource.Mark // set before that: how far runs that ended have read files
	noMore chan struct{}    // closed: the spool's end is the end
	stop   chan struct{}    // closed: commit what has been read, and end

	once sync.Once
	mu   sync.Mutex // guards what follows; the status is read while the engine works
	engineState
}

// engineState is what the engine is about to do, and has done.
type engineState struct {
	correlator
	lines   map[string]*lineReader // by source
	hosts   *hosts
	past    trace.Stats // of tracers that were given up
	pos     int64       // behind the last line used
	done    int64       // position committed
	used    int64       // log time of the last line used, Unix microseconds
	doneAt  int64       // and of the last one committed
	lost    int64       // bytes that the spool did not have any more
	begun   bool        // the database has been read
	commits commitStats
	trouble trouble
	asked   time.Time // since when the database owes an answer; zero: it does not
}

// lineReader parses the lines of one source.
type lineReader struct {
	parser *maillog.Parser
	event  maillog.Event
	cut    int64 // lines longer than logsource.MaxLine
}

// trouble is why a database is not written.
type trouble struct {
	since time.Time // by the wall clock; zero: there is none
	text  string
}

func newEngine(where string, opt Options, sp *spool.Spool, log *slog.Logger, wall func() time.Time) *engine {
	if opt.CommitRows == 0 {
		opt.CommitRows = commitRows
	}
	e := &engine{
		where: where, opt: opt, spool: sp, opened: sp.End(), log: log.With("database", where), wall: wall,
		noMore: make(chan struct{}), stop: make(chan struct{}), loaded: make(chan struct{}),
	}
	e.open = func() (database, error) { return store.OpenLogged(where, store.ReadWrite, e.log) }
	e.hosts = newHosts()
	e.correlator = newCorrelator(opt.Trace, true)
	return e
}

// run works until the spool's end (after noMore), until stop, or until ctx is
// done. What cannot get better by waiting is an error, but only before the
// database was read for the first time.
func (e *engine) run(ctx context.Context) error {
	defer e.tellLoaded()
	wait := firstRetry
	for {
		begun := time.Now()
		err := e.attend(ctx)
		if time.Since(begun) > lastRetry {
			wait = firstRetry
		}
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if ferr := e.spool.Err(); ferr != nil { // whatever it looks like
			return spoolFailed{ferr}
		}
		if _, begun, _ := e.progress(); !begun && hopeless(err) || errors.As(err, new(spoolFailed)) || sysexits.Status(err) == sysexits.Bug {
			return err
		}
		if errors.Is(err, store.ErrMoved) {
			e.log.Warn("the database is not where this program left it; reading its position and open mails again", "reason", err)
			wait = firstRetry
		} else {
			e.troubled(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-e.stop:
			return nil
		case <-time.After(jitter(wait)):
		}
		wait = min(2*wait, lastRetry)
	}
}

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// spoolFailed is an error of the spool's that is final.
type spoolFailed struct{ error }

func (f spoolFailed) Unwrap() error { return f.error }

// hopeless reports whether an error asks for a person: wrong settings, wrong
// rights, a database of somebody else.
func hopeless(err error) bool {
	switch sysexits.Status(err) {
	case sysexits.Usage, sysexits.Data, sysexits.NoPerm, sysexits.Config, sysexits.CannotMake:
		return true
	}
	return false
}

// progress is the position committed. begun: the database has been read since
// the start; away: it is not written.
func (e *engine) progress() (done int64, begun, away bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.done, e.begun, !e.trouble.since.IsZero()
}

// troubled notes why the database is not written, and says so once.
func (e *engine) troubled(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := err.Error()
	if e.trouble.since.IsZero() {
		e.trouble.since = e.wall()
		e.log.Warn("the database is not written; lines wait in the spool", "reason", text)
	} else if text != e.trouble.text {
		e.log.Warn("the database is still not written", "reason", text)
	}
	e.trouble.text = text
}

// fine ends trouble.
func (e *engine) fine() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.trouble.since.IsZero() {
		return
	}
	e.log.Info("the database is written again", "after", e.wall().Sub(e.trouble.since).Round(time.Second),
		"bytes_behind", e.spool.End()-e.done)
	e.trouble = trouble{}
}

// tellLoaded closes loaded, once.
func (e *engine) tellLoaded() { e.once.Do(func() { close(e.loaded) }) }

// attend opens the database and works on it until one of the ends of run, or
// an error.
func (e *engine) attend(ctx context.Context) (err error) {
	db, err := e.open()
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	opt := e.opt.Trace
	if shelf, err := NewShelf(e.opt.spoolDir); err == nil {
		defer shelf.Close()
		opt.Shelf = shelf
	} else {
		e.log.Warn("mails that wait stay in memory", "reason", err)
	}
	reader, asks, err := e.load(ctx, db, opt)
	if err != nil {
		return err
	}
	defer reader.Close()
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &committer{engine: e, db: db, ch: make(chan *batch, 1), asks: asks, sent: reader.Pos()}
	ended := make(chan error, 1)
	go func() {
		err := c.run(working)
		if err != nil {
			cancel(err)
		}
		ended <- err
	}()
	err = e.guarded(func() error { return e.follow(working, reader, c) })
	close(c.ch)
	if cerr := <-ended; cerr != nil {
		return cerr
	}
	if err != nil {
		return err
	}
	return db.Finish(ctx)
}

// guarded runs f and makes a panic an error.
func (e *engine) guarded(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = bug(v)
		}
	}()
	return f()
}

// spoolMark names a spool among the positions of a database.
func spoolMark(id [16]byte) [32]byte {
	return sha256.Sum256(append([]byte("rolmail spool "), id[:]...))
}

// load reads what the database has, and finds the place in the spool. asks:
// that place is not one where this or an earlier engine had stopped.
func (e *engine) load(ctx context.Context, db database, opt trace.Options) (r *spool.Reader, asks bool, err error) {
	fresh := newCorrelator(opt, true)
	positions, err := db.Load(ctx, fresh.tracer.Restore)
	if err != nil {
		return nil, false, err
	}
	mark, from := spoolMark(e.spool.ID()), int64(-1)
	var marks []logsource.Mark
	for _, p := range positions {
		if p.Prefix == mark {
			from = p.Offset
		} else if p.PrefixLen > 0 {
			marks = append(marks, logsource.Mark{Prefix: p.Prefix, PrefixLen: p.PrefixLen, Offset: p.Offset})
		}
	}
	known := from >= 0
	if from, err = e.notAhead(from); err != nil {
		return nil, false, err
	}
	if begin := e.spool.Begin(); from < begin {
		if known {
			e.log.Error("lines are missing: the spool begins behind the database's position; read the logs of that time with rol-logpipe FILE",
				"bytes", begin-from)
			e.mu.Lock()
			e.lost += begin - from
			e.mu.Unlock()
		}
		from = begin
	}
	if r, err = e.spool.NewReader(from); err != nil {
		return nil, false, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.past = addStats(e.past, e.tracer.Stats())
	fresh.count = e.count
	e.correlator = fresh
	e.lines = map[string]*lineReader{}
	e.pos, e.done = from, from
	if !e.begun {
		e.marks, e.begun = marks, true
		e.tellLoaded()
	}
	return r, !known && len(positions) > 0, nil
}

// notAhead is the position to go on from where the database's is behind the
// end that the spool had when it was opened: after a power failure that a disk
// has lied about, or with an older copy of the spool. What is missing was read
// once. New lines must not stand where the missing ones stood, and those that
// stand there already, because the database was away while they came, must be
// read.
func (e *engine) notAhead(from int64) (int64, error) {
	if _, begun, _ := e.progress(); begun || from <= e.opened {
		return from, nil
	}
	e.log.Warn("the spool ended before the database's position; going on behind that", "bytes", from-e.opened)
	if err := e.spool.Skip(from); err != nil {
		return 0, spoolFailed{err}
	}
	return e.opened, nil
}

// follow reads blocks until one of the ends.
func (e *engine) follow(ctx context.Context, r *spool.Reader, c *committer) error {
	flushed, last := time.Now(), time.Now() // the last flush, the last block
	begun := false
	for {
		b, err := r.TryNext()
		if err != nil {
			return err
		}
		now := time.Now()
		if b != nil {
			e.block(b, now)
			if last = now; !begun { // the first rows after a start are waited for
				begun, flushed = true, now.Add(-flushEvery)
			}
		} else if ended, err := e.rest(ctx, r, c, now.Sub(last), flushEvery-now.Sub(flushed)); err != nil {
			return err
		} else if ended {
			return e.flush(ctx, c, true, true)
		}
		select {
		case <-e.stop:
			return e.flush(ctx, c, true, true)
		default:
		}
		if b == nil {
			now = time.Now()
		}
		if did, err := e.flushDue(ctx, c, now.Sub(flushed)); err != nil {
			return err
		} else if did {
			flushed = now
		}
	}
}

// rest waits for more, but not for long, and not past the next flush if that is
// still to come. ended: no more will come.
func (e *engine) rest(ctx context.Context, r *spool.Reader, c *committer, idle, due time.Duration) (ended bool, err error) {
	e.idle(idle, r.Pos(), c)
	select {
	case <-e.noMore:
		return r.Pos() >= e.spool.End(), nil
	default:
	}
	wait := idleEvery
	if due > 0 {
		wait = min(wait, due)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	ready := r.Ready()
	for {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-ready: // a source in lock-step is not to pay a wake-up for each line
			ready = nil
			t.Reset(napTime)
		case <-e.noMore:
			return false, nil
		case <-e.stop:
			return false, nil
		case <-t.C:
			return false, nil
		}
	}
}

// idle is what happens while no lines come. pos is behind what is no lines.
func (e *engine) idle(d time.Duration, pos int64, c *committer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tracer.Idle(d)
	if e.done == e.pos { // nothing between them is worth a commit
		e.done, c.sent = pos, pos
	}
	e.pos = pos
}

// block uses the lines of a block.
func (e *engine) block(b *spool.Block, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lines[b.Key]
	if l == nil {
		l = &lineReader{parser: maillog.NewParser(e.opt.Parse)}
		e.lines[b.Key] = l
	}
	e.hosts.now = now
	for lines := b.Lines; len(lines) > 0; {
		var line []byte
		line, lines, _ = bytes.Cut(lines, newline)
		line = l.trim(line)
		l.parser.Parse(line, &l.event)
		if l.event.Class != maillog.Foreign {
			e.hosts.count(&l.event)
			e.used = max(e.used, l.event.Time)
		}
		e.add(l.parser, &l.event, line)
	}
	e.pos = b.To
}

var newline = []byte("\n")

// trim does to a line what a Source does.
func (l *lineReader) trim(line []byte) []byte {
	line = bytes.TrimLeft(line, "\x00")
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if len(line) > logsource.MaxLine {
		l.cut++
		line = line[:logsource.MaxLine]
	}
	return line
}

// bug is the error of a panic.
func bug(v any) error {
	return sysexits.Errorf(sysexits.Bug, "this is a bug, please report it: panic: %v\n%s", v, debug.Stack())
}
