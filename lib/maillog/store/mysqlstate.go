package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/rolmail/rolmail/lib/mysqlpool"
)

// many runs statements that are a head and n items with commas between, each
// as long as the server takes it. It returns how many rows they affect.
func (w *mysqlWriter) many(ctx context.Context, head, tail string, n int, item func(i int)) (affected int64, err error) {
	e := &w.sql
	for i := 0; i < n; {
		e.buf = append(e.buf[:0], head...)
		for from := i; i < n; i++ {
			whole := len(e.buf)
			if i > from {
				e.buf = append(e.buf, ',')
			}
			item(i)
			if i > from && len(e.buf)+len(tail) >= w.packet {
				e.buf = e.buf[:whole]
				break
			}
		}
		e.buf = append(e.buf, tail...)
		did, err := w.exec(ctx, string(e.buf))
		affected += did
		if err != nil {
			return affected, err
		}
	}
	return affected, nil
}

// putState writes changes to the open state, in the order of their keys and of
// each key the last one.
func (w *mysqlWriter) putState(ctx context.Context, b *mysqlBatch) error {
	changes := slices.Clone(b.State)
	slices.SortStableFunc(changes, func(a, b StateChange) int { return bytes.Compare(a.Key, b.Key) })
	var set []StateChange
	var gone [][]byte
	for i, ch := range changes {
		switch {
		case i+1 < len(changes) && bytes.Equal(ch.Key, changes[i+1].Key):
		case ch.Data == nil:
			gone = append(gone, ch.Key)
		default:
			set = append(set, ch)
		}
	}
	_, err := w.many(ctx, "DELETE FROM "+mysqlState+" WHERE k IN (", ")", len(gone), func(i int) { w.sql.bytes(gone[i]) })
	if err != nil {
		return err
	}
	_, err = w.many(ctx, "REPLACE INTO "+mysqlState+" (k, data) VALUES ", "", len(set), func(i int) {
		e := &w.sql
		e.buf = append(e.buf, '(')
		e.bytes(set[i].Key)
		e.buf = append(e.buf, ',')
		e.bytes(set[i].Data)
		e.buf = append(e.buf, ')')
	})
	return err
}

const maxPositionName = 4096 // bytes

// putPositions writes positions. The time of one that has not moved stays; the
// server works from left to right.
func (w *mysqlWriter) putPositions(ctx context.Context, b *mysqlBatch) error {
	const head = "INSERT INTO " + mysqlPositions + " (prefix, prefix_len, byte_offset, name, updated) VALUES "
	const tail = " ON DUPLICATE KEY UPDATE updated = IF(prefix_len = VALUES(prefix_len) AND byte_offset = VALUES(byte_offset)" +
		" AND name = VALUES(name), updated, VALUES(updated))," +
		" prefix_len = VALUES(prefix_len), byte_offset = VALUES(byte_offset), name = VALUES(name)"
	_, err := w.many(ctx, head, tail, len(b.Positions), func(i int) {
		p, e := &b.Positions[i], &w.sql
		e.buf = append(e.buf, '(')
		e.bytes(p.Prefix[:])
		e.buf = fmt.Appendf(e.buf, ",%d,%d,", p.PrefixLen, p.Offset)
		e.bytes([]byte(p.Name[:min(len(p.Name), maxPositionName)]))
		e.buf = fmt.Appendf(e.buf, ",%d)", p.Updated)
	})
	return err
}

// logChanges writes which rows the transaction has touched: see SQLite's. It
// returns the seq of the last entry there is then. A server that takes but
// short statements keeps the newest rows only.
func (w *mysqlWriter) logChanges(ctx context.Context) (int64, error) {
	if len(w.changed) == 0 {
		return w.lastSeq, nil
	}
	seq, changed := w.lastSeq+1, w.changed
	most := min(maxChanged, (w.packet-200)/2/changeLen)
	if len(changed) > most*changeLen {
		changed = changed[len(changed)-most*changeLen:]
		seq++
	}
	e := &w.sql
	e.buf = fmt.Appendf(e.buf[:0], "INSERT INTO %s (seq, ids) VALUES (%d, ", mysqlChanges, seq)
	e.bytes(changed)
	e.buf = append(e.buf, ')')
	if _, err := w.exec(ctx, string(e.buf)); err != nil {
		return 0, err
	}
	_, err := w.exec(ctx, fmt.Sprintf("DELETE FROM %s WHERE seq <= %d", mysqlChanges, seq-keepCommits))
	return seq, err
}

// load reads positions and open state as one commit has left them, and takes
// that for where this writer goes on.
func (w *mysqlWriter) load(ctx context.Context, state func(key, data []byte) error) ([]Position, error) {
	given := false
	for try := 1; ; try++ {
		var refused error
		all, err := w.loadOnce(ctx, func(key, data []byte) error {
			given = true
			refused = state(key, data)
			return refused
		})
		switch {
		case err == nil:
			return all, nil
		case refused != nil:
			return nil, fmt.Errorf("%s: open state: %w", w.db.where, refused)
		case given || ctx.Err() != nil || try >= mysqlTries || !mysqlpool.Again(err):
			return nil, w.db.fail(ctx, "reading positions and open state", err)
		}
		if err := pause(ctx, try); err != nil {
			return nil, err
		}
	}
}

func (w *mysqlWriter) loadOnce(ctx context.Context, state func(key, data []byte) error) (all []Position, err error) {
	if err := w.ready(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.undo(ctx, err)
		}
	}()
	if _, err := w.exec(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT"); err != nil {
		return nil, err
	}
	if err := w.sync(ctx); err != nil {
		return nil, err
	}
	if all, err = w.positions(ctx); err != nil {
		return nil, err
	}
	if err := w.openState(ctx, state); err != nil {
		return nil, err
	}
	_, err = w.exec(ctx, "COMMIT")
	return all, err
}

func (w *mysqlWriter) positions(ctx context.Context) (all []Position, err error) {
	rows, err := w.c.QueryContext(ctx, "SELECT prefix, prefix_len, byte_offset, name, updated FROM "+mysqlPositions)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var p Position
		var prefix sql.RawBytes
		if err := rows.Scan(&prefix, &p.PrefixLen, &p.Offset, &p.Name, &p.Updated); err != nil {
			return nil, err
		}
		copy(p.Prefix[:], prefix)
		all = append(all, p)
	}
	return all, rows.Err()
}

func (w *mysqlWriter) openState(ctx context.Context, state func(key, data []byte) error) error {
	rows, err := w.c.QueryContext(ctx, "SELECT k, data FROM "+mysqlState)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var key, data sql.RawBytes
		if err := rows.Scan(&key, &data); err != nil {
			return err
		}
		if err := state(key, data); err != nil {
			return err
		}
	}
	return rows.Err()
}
