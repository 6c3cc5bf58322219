package logpipe

import (
	"context"
	"sync"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store"
)

// collector is the tracer's sink: it gathers a batch.
type collector struct {
	keep bool // false: a dry run
	rows []*flat.Row
	at   map[flat.ID]int // where in rows an id is; -1: to be deleted
	seen map[[32]byte]logsource.Mark
}

func newCollector(keep bool) *collector {
	c := &collector{keep: keep}
	if keep {
		c.at = make(map[flat.ID]int, commitRows)
	}
	return c
}

// Put takes a row. Of several with one id in a batch the newest counts.
func (c *collector) Put(r *flat.Row) {
	if !c.keep {
		return
	}
	if i, ok := c.at[r.ID]; ok && i >= 0 {
		c.rows[i] = r.Clone()
		return
	}
	c.at[r.ID] = len(c.rows)
	c.rows = append(c.rows, r.Clone())
}

// Delete withdraws a row, of this batch or of an earlier one.
func (c *collector) Delete(id flat.ID) {
	if !c.keep {
		return
	}
	if i, ok := c.at[id]; ok && i >= 0 {
		c.rows[i] = nil
	}
	c.at[id] = -1
}

// batch returns what was gathered and begins anew. No id is both in its rows
// and in its deletions.
func (c *collector) batch() *store.Batch {
	b := &store.Batch{Rows: make([]*flat.Row, 0, len(c.rows))}
	for _, r := range c.rows {
		if r != nil {
			b.Rows = append(b.Rows, r)
		}
	}
	if len(b.Rows) < len(c.at) {
		for id, i := range c.at {
			if i < 0 {
				b.Delete = append(b.Delete, id)
			}
		}
	}
	clear(c.rows)
	c.rows = c.rows[:0]
	clear(c.at)
	return b
}

// state copies the changes of open state.
func (c *collector) state(changes func(func(key, data []byte))) []store.StateChange {
	var all []store.StateChange
	var arena []byte
	keep := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		if len(arena)+len(b) > cap(arena) {
			arena = make([]byte, 0, max(64<<10, len(b)))
		}
		n := len(arena)
		arena = append(arena, b...)
		return arena[n:len(arena):len(arena)]
	}
	changes(func(key, data []byte) {
		all = append(all, store.StateChange{Key: keep(key), Data: keep(data)})
	})
	return all
}

// known notes the positions that the store has.
func (c *collector) known(marks []logsource.Mark) {
	c.seen = make(map[[32]byte]logsource.Mark, len(marks))
	for _, m := range marks {
		c.seen[m.Prefix] = m
	}
}

// moved reports whether a mark is new to the store, and notes it.
func (c *collector) moved(m logsource.Mark) bool {
	if c.seen[m.Prefix] == m {
		return false
	}
	c.seen[m.Prefix] = m
	return true
}

// writer commits batches, one after another, in a goroutine of its own.
type writer struct {
	ch   chan *store.Batch
	once sync.Once
	done chan struct{}
}

// newWriter starts a writer. Its first failure cancels the run. fresh says that
// nothing was in the store before this run.
func newWriter(ctx context.Context, cancel context.CancelCauseFunc, db Store, fresh bool) *writer {
	w := &writer{ch: make(chan *store.Batch, 1), done: make(chan struct{})}
	search, asks := db.(searcher)
	asks = asks && !fresh // an empty store knows nothing
	left := leftOut{}
	go func() {
		defer close(w.done)
		for {
			select {
			case <-ctx.Done():
				return
			case b, more := <-w.ch:
				if !more {
					return
				}
				if asks {
					if err := left.drop(ctx, search, b); err != nil {
						cancel(err)
						return
					}
				}
				if err := db.Commit(ctx, b); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return w
}

// put queues a batch, and waits while one is waiting already.
func (w *writer) put(ctx context.Context, b *store.Batch) error {
	if len(b.Rows) == 0 && len(b.Delete) == 0 && len(b.State) == 0 && len(b.Positions) == 0 {
		return nil
	}
	select {
	case w.ch <- b:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close says that nothing more comes.
func (w *writer) close() { w.once.Do(func() { close(w.ch) }) }

// wait waits until the writer has ended: after close, or when the run was
// cancelled.
func (w *writer) wait() { <-w.done }
