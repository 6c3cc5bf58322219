package logpipe

import (
	"context"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// batch is what is committed together, and what it brings the database to.
type batch struct {
	store.Batch
	to   int64 // position in the spool
	used int64 // log time of its last line, Unix microseconds
	near bool  // the engine keeps up: there is time for what can wait
}

// flushDue flushes if there is reason to.
func (e *engine) flushDue(ctx context.Context, c *committer, since time.Duration) (did bool, err error) {
	near := e.spool.End()-e.pos < nearBytes
	switch {
	case len(e.out.rows) >= e.opt.CommitRows, e.pos-c.sent >= batchBytes:
		return true, e.flush(ctx, c, false, true)
	case near && since >= flushEvery, since >= catchUpEvery:
		if len(c.ch) > 0 {
			return false, nil // one waits already: gather more
		}
		return true, e.flush(ctx, c, near, since >= quietEvery)
	}
	return false, nil
}

// flush hands what was gathered to the committer. sync adds the rows of mails
// still open; quiet says that a position alone is worth a commit.
func (e *engine) flush(ctx context.Context, c *committer, sync, quiet bool) error {
	b, err := e.gather(sync)
	if err != nil {
		return err
	}
	b.near = sync
	if len(b.Rows) == 0 && len(b.Delete) == 0 && len(b.State) == 0 && (!quiet || b.to == c.sent) {
		return nil
	}
	b.Positions = []store.Position{{
		Prefix: spoolMark(e.spool.ID()), Offset: b.to, Name: "spool:" + e.opt.spoolDir, Updated: e.wall().UnixMilli(),
	}}
	c.sent = b.to
	select {
	case c.ch <- b:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// gather makes a batch of what there is since the last one. An error says that
// the tracer does not know its open mails any more, so that nothing of it may
// be written; they are in the database.
func (e *engine) gather(sync bool) (*batch, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if sync {
		e.tracer.Sync()
	}
	b := &batch{Batch: *e.out.batch(), to: e.pos, used: e.used}
	b.State = e.out.state(e.tracer.Changes)
	return b, sysexits.Wrap(sysexits.TryAgain, e.tracer.Err())
}
