package store

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/lib/sysexits"
)

const (
	mysqlTries   = 4                     // attempts of one commit; the caller comes again with what is left
	mysqlBackoff = 20 * time.Millisecond // before the second one at most, four times that before the next
	maxPending   = 16                    // commits without an answer that are remembered
)

// MariaDB's and MySQL's error numbers that are answered here.
const (
	codeNotInCluster = 1047 // ER_UNKNOWN_COM_ERROR
	codeBadField     = 1054 // ER_BAD_FIELD_ERROR
	codeDuplicateKey = 1061 // ER_DUP_KEYNAME
	codeDuplicate    = 1062 // ER_DUP_ENTRY
	codeNoTable      = 1146 // ER_NO_SUCH_TABLE
	codePacket       = 1153 // ER_NET_PACKET_TOO_LARGE
	codeOption       = 1290 // ER_OPTION_PREVENTS_STATEMENT
	codeReadOnlyTx   = 1792 // ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
	codeReadOnly     = 1836 // ER_READ_ONLY_MODE
)

// errRepeat is returned within commit when the writer has learned something
// and the transaction is to be run again at once.
var errRepeat = errors.New("once more")

// mysqlBatch is a batch on its way.
type mysqlBatch struct {
	*Batch
	rows []*flat.Row // in the order of their ids, each id once
	sent []mysqlMark // the commits of it that were sent
}

// commit writes a batch, once. When the answer to a COMMIT is lost, the mark,
// which is part of the transaction, tells whether it was made. Where that
// cannot be found out now, because the server is gone, the next call does: its
// batch is written in any case, and what is there already does not change by
// it.
func (w *mysqlWriter) commit(ctx context.Context, batch *Batch) error {
	b := &mysqlBatch{Batch: batch, rows: onePerID(batch.Rows)}
	for try := 1; ; {
		err := w.attempt(ctx, b)
		if err == errRepeat {
			continue
		}
		if err == nil || errors.Is(err, ErrMoved) {
			return err
		}
		if ctx.Err() != nil || try >= mysqlTries || !w.passes(err) {
			return w.db.fail(ctx, "writing", err)
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
		try++
	}
}

// passes reports whether a transaction that failed with err may succeed the
// next time.
func (w *mysqlWriter) passes(err error) bool {
	switch mysqlpool.Code(err) {
	case codeNoTable: // a day was dropped: it is made again
		return true
	case codePacket: // by a proxy, for one: we know what the server takes
		w.most = max(w.most/2, 1<<10)
		return true
	}
	return mysqlpool.Again(err)
}

// pause waits, longer with each try, and never quite as long as another
// writer.
func pause(ctx context.Context, try int) error {
	t := time.NewTimer(time.Duration(mathrand.Int64N(int64(mysqlBackoff) << (2*try - 2))))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// attempt runs the transaction of a batch once.
func (w *mysqlWriter) attempt(ctx context.Context, b *mysqlBatch) error {
	err := w.ready(ctx)
	if err == nil {
		err = w.makeDays(ctx, b.rows)
	}
	if err == nil {
		err = w.transaction(ctx, b)
	}
	if err != nil {
		if w.c != nil && mysqlpool.Lost(err) && ctx.Err() == nil {
			err = w.c.Word(err, "writing") // the session knows why
		}
		w.undo(ctx, err)
	}
	if !errors.Is(err, ErrMoved) {
		return err
	}
	if w.c == nil {
		return driver.ErrBadConn // lost while it was to roll back: ask on a new one
	}
	return w.whose(ctx, b)
}

// undo rolls back, by the end of the session where nothing else is sure.
func (w *mysqlWriter) undo(ctx context.Context, err error) {
	if w.c == nil {
		return
	}
	switch mysqlpool.Code(err) {
	case codeNotInCluster, codeOption, codeReadOnlyTx, codeReadOnly:
		if mysqlpool.Again(err) {
			w.c.Fail(err) // perhaps another host can
			w.drop()
			return
		}
	case codeNoTable, codePacket:
		w.drop() // the next session looks what there is
		return
	}
	if ctx.Err() != nil || mysqlpool.Lost(err) {
		w.drop()
	} else if _, err := w.exec(ctx, "ROLLBACK"); err != nil {
		w.drop()
	}
}

// transaction is all of a batch. It begins with moving the mark, which waits
// for the transaction of a session that we, or a writer before us, have lost
// and that the server has not.
func (w *mysqlWriter) transaction(ctx context.Context, b *mysqlBatch) error {
	next := mysqlMark{seq: w.mark.seq + 1}
	_, _ = rand.Read(next.token[:])
	if _, err := w.exec(ctx, "START TRANSACTION"); err != nil {
		return err
	}
	n, err := w.exec(ctx, fmt.Sprintf("UPDATE %s SET value = %d, token = x'%x' WHERE name = 'commit' AND value = %d AND token = x'%x'",
		mysqlMeta, next.seq, next.token, w.mark.seq, w.mark.token))
	if err != nil {
		return err
	}
	if n != 1 {
		return ErrMoved
	}
	w.changed = w.changed[:0]
	w.looked, w.found = 0, 0
	for _, put := range []func(context.Context, *mysqlBatch) error{w.putRows, w.deleteRows, w.putState, w.putPositions} {
		if err := put(ctx, b); err != nil {
			return err
		}
	}
	seq, err := w.logChanges(ctx)
	if err != nil {
		return err
	}
	b.sent = append(b.sent, next)
	w.pending = append(w.pending, next)
	if len(w.pending) > maxPending {
		w.pending = w.pending[1:]
	}
	if _, err := w.exec(ctx, "COMMIT"); err != nil {
		return err
	}
	w.at(next)
	w.lastSeq = seq
	if w.looked > 0 && w.found == 0 {
		w.look = false
	}
	return nil
}

// whose finds out who has moved the mark. nil: this batch is committed.
func (w *mysqlWriter) whose(ctx context.Context, b *mysqlBatch) error {
	m, err := w.db.readMark(ctx, w.c)
	switch {
	case err != nil:
		w.undo(ctx, err)
		return err
	case !slices.Contains(w.pending, m):
		return sysexits.Errorf(sysexits.TryAgain, "%s: %w: its last commit is number %d, this writer's %d",
			w.db.where, ErrMoved, m.seq, w.mark.seq)
	}
	if err := w.sync(ctx); err != nil {
		w.undo(ctx, err)
		return err
	}
	if slices.Contains(b.sent, m) {
		return nil
	}
	return errRepeat
}

// makeDays makes the tables that rows need. DDL ends a transaction, so it
// comes before that.
func (w *mysqlWriter) makeDays(ctx context.Context, rows []*flat.Row) error {
	for day := range byDay(rows) {
		if err := w.makeDay(ctx, day); err != nil {
			return err
		}
	}
	return nil
}

// deleteRows deletes, and takes note of, the rows that are there.
func (w *mysqlWriter) deleteRows(ctx context.Context, b *mysqlBatch) error {
	gone := slices.Clone(b.Delete)
	slices.SortFunc(gone, compareIDs)
	gone = slices.Compact(gone)
	for len(gone) > 0 {
		day := dayOfID(gone[0])
		n := 1
		for n < len(gone) && n < w.lookRows() && dayOfID(gone[n]) == day {
			n++
		}
		if w.days[day] != nil {
			if err := w.deleteSome(ctx, day, gone[:n]); err != nil {
				return err
			}
		}
		gone = gone[n:]
	}
	return nil
}

func (w *mysqlWriter) deleteSome(ctx context.Context, day string, ids []flat.ID) error {
	rows, err := w.c.QueryContext(ctx, w.byIDs("SELECT id FROM "+dayTable(day), len(ids), func(i int) flat.ID { return ids[i] }))
	if err != nil {
		return err
	}
	defer rows.Close()
	var there []flat.ID
	for rows.Next() {
		var id []byte
		if err := rows.Scan(&id); err != nil {
			return err
		}
		there = append(there, flat.ID(id))
	}
	if err := rows.Err(); err != nil || len(there) == 0 {
		return err
	}
	for _, id := range there {
		w.note(id, rowGone)
	}
	_, err = w.exec(ctx, w.byIDs("DELETE FROM "+dayTable(day), len(there), func(i int) flat.ID { return there[i] }))
	return err
}

func (w *mysqlWriter) note(id flat.ID, what byte) {
	w.changed = append(append(w.changed, what), id[:]...)
}
