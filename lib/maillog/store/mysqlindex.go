package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// mysqlIndexing is how long the server may work on the indexes of a day: one
// of twenty million rows takes some five minutes. When it takes longer it is
// not stopped, and the next finish finds them.
const mysqlIndexing = 15 * time.Minute

// finish builds the indexes that days lack, a day at a time and while others
// read and write it, and forgets old positions.
func (w *mysqlWriter) finish(ctx context.Context) error {
	for try := 1; ; try++ {
		err := w.finishOnce(ctx)
		if err == nil {
			return nil
		}
		w.undo(ctx, err)
		if ctx.Err() != nil || try >= mysqlTries || !mysqlpool.Again(err) {
			return w.db.fail(ctx, "building indexes", err)
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
}

func (w *mysqlWriter) finishOnce(ctx context.Context) error {
	if err := w.ready(ctx); err != nil {
		return err
	}
	todo := false
	for _, d := range w.days {
		todo = todo || !d.indexed
	}
	if !todo {
		return nil
	}
	have, err := w.indexes(ctx)
	if err != nil {
		return err
	}
	for _, day := range slices.Sorted(maps.Keys(w.days)) {
		d := w.days[day]
		if d.indexed {
			continue
		}
		if err := w.index(ctx, day, have[day]); err != nil {
			return err
		}
		d.indexed = true
	}
	var n int64
	if err := w.c.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+mysqlPositions).Scan(&n); err != nil || n <= maxPositions {
		return err
	}
	_, err = w.exec(ctx, fmt.Sprintf("DELETE FROM %s ORDER BY updated LIMIT %d", mysqlPositions, n-maxPositions))
	return err
}

// index builds the indexes that a day lacks.
func (w *mysqlWriter) index(ctx context.Context, day string, have []string) error {
	var lack []index
	for _, x := range indexes {
		if !slices.Contains(have, x.name) {
			lack = append(lack, x)
		}
	}
	if len(lack) == 0 {
		return nil
	}
	if err := w.c.Silence(mysqlIndexing); err != nil {
		return err
	}
	_, err := w.exec(ctx, mysqlAddIndexes(day, lack))
	switch mysqlpool.Code(err) {
	case codeNoTable: // dropped meanwhile
		err = nil
	case codeDuplicateKey:
		return sysexits.Wrap(sysexits.TryAgain, err) // another writer is about it
	}
	if err != nil {
		return err
	}
	return w.c.Silence(w.db.silence)
}

// indexes reads which indexes the days have.
func (w *mysqlWriter) indexes(ctx context.Context) (map[string][]string, error) {
	rows, err := w.c.QueryContext(ctx, "SELECT DISTINCT table_name, index_name FROM information_schema.statistics "+
		"WHERE table_schema = DATABASE() AND table_name LIKE '"+mysqlDays+"'")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	have := map[string][]string{}
	for rows.Next() {
		var table, name string
		if err := rows.Scan(&table, &name); err != nil {
			return nil, err
		}
		if day := dayOf(table); day != "" {
			have[day] = append(have[day], name)
		}
	}
	return have, rows.Err()
}
