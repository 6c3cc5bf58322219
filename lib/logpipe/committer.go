package logpipe

import (
	"context"
	"errors"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/store"
)

// committer commits batches one after another, each for as long as it takes.
type committer struct {
	*engine
	db   database
	ch   chan *batch
	sent int64 // position of the last batch; the reader's
	asks bool
	left leftOut
}

func (c *committer) run(ctx context.Context) error {
	begun, finished := time.Now(), time.Now()
	c.left = leftOut{}
	for b := range c.ch {
		if c.asks = c.asks && time.Since(begun) < tailsKnown; c.asks {
			if err := c.patiently(ctx, func() error { return c.left.drop(ctx, c.db, &b.Batch) }); err != nil {
				return err
			}
		}
		if err := c.spool.SyncTo(b.to); err != nil {
			return spoolFailed{err}
		}
		if err := c.patiently(ctx, func() error { return c.commit(ctx, b) }); err != nil {
			return err
		}
		if b.near && time.Since(finished) > finishEvery {
			if err := c.patiently(ctx, func() error { return c.db.Finish(ctx) }); err != nil {
				return err
			}
			finished = time.Now()
		}
	}
	return nil
}

// patiently does f until it succeeds, or until waiting is of no use.
func (c *committer) patiently(ctx context.Context, f func() error) error {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := c.asking(f)
		if err == nil {
			c.fine()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, store.ErrMoved) {
			return err
		}
		c.troubled(err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(jitter(wait)):
		}
	}
}

// asking does f and notes since when, so that a database that neither answers
// nor hangs up is seen before its time is over.
func (c *committer) asking(f func() error) error {
	note := func(t time.Time) {
		c.mu.Lock()
		c.asked = t
		c.mu.Unlock()
	}
	note(time.Now())
	defer note(time.Time{})
	return f()
}

func (c *committer) commit(ctx context.Context, b *batch) error {
	begun := time.Now()
	if err := c.db.Commit(ctx, &b.Batch); err != nil {
		return err
	}
	c.mu.Lock()
	c.commits.add(time.Since(begun), len(b.Rows), c.wall())
	c.done, c.doneAt = b.to, b.used
	c.mu.Unlock()
	return nil
}
