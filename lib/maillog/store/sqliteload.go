package store

import (
	"context"
	"fmt"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/store/lite"
)

func (db *sqliteDB) load(ctx context.Context, state func(key, data []byte) error) ([]Position, error) {
	if db.moved() != nil {
		if err := db.reopen(); err != nil {
			return nil, err
		}
	}
	c := db.w.c
	if err := c.Exec("BEGIN"); err != nil {
		return nil, db.fail(ctx, "reading", err)
	}
	defer func() { _ = c.Exec("COMMIT") }()
	stop := c.Watch(ctx)
	defer stop()
	var all []Position
	err := each(c, "SELECT prefix, prefix_len, byte_offset, name, updated FROM positions", func(s *lite.Stmt) error {
		p := Position{PrefixLen: s.Int(1), Offset: s.Int(2), Name: s.Text(3), Updated: s.Int(4)}
		copy(p.Prefix[:], s.Bytes(0))
		all = append(all, p)
		return nil
	})
	if err != nil {
		return nil, db.fail(ctx, "reading positions", err)
	}
	var refused error
	err = each(c, "SELECT key, data FROM state", func(s *lite.Stmt) error {
		refused = state(s.Bytes(0), s.Bytes(1))
		return refused
	})
	if refused != nil {
		return nil, fmt.Errorf("%s: open state: %w", db.path, refused)
	}
	if err != nil {
		return nil, db.fail(ctx, "reading open state", err)
	}
	return all, nil
}

// each calls f for each row of a statement without parameters.
func each(c *lite.Conn, sql string, f func(*lite.Stmt) error) error {
	s, err := c.Prepare(sql)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		more, err := s.Step()
		if err != nil || !more {
			return err
		}
		if err := f(s); err != nil {
			return err
		}
	}
}

// indexSlice is after what time no further index goes into a transaction.
const indexSlice = 500 * time.Millisecond

// finish builds indexes in transactions so short that another program can
// write in between.
func (db *sqliteDB) finish(ctx context.Context) error {
	if err := db.moved(); err != nil {
		return err
	}
	return db.fail(ctx, "building indexes", db.buildIndexes(ctx))
}

func (db *sqliteDB) buildIndexes(ctx context.Context) error {
	w := db.w
	s, err := readSchema(w.c, w.schema)
	if err != nil {
		return err
	}
	missing := s.missing()
	if len(missing) == 0 {
		return nil
	}
	// What an index is sorted in is as large as the cache, and once allocated
	// stays with the process.
	if err := w.cache(sortKiB); err != nil {
		return err
	}
	defer w.cache(cacheKiB)
	for len(missing) > 0 {
		err := w.transaction(ctx, db.wait, func() error {
			for begun := time.Now(); len(missing) > 0 && time.Since(begun) < indexSlice; missing = missing[1:] {
				if err := w.c.Exec(missing[0]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	err = w.transaction(ctx, db.wait, func() error {
		return w.c.Exec(fmt.Sprintf(
			"DELETE FROM positions WHERE prefix IN (SELECT prefix FROM positions ORDER BY updated DESC LIMIT -1 OFFSET %d)",
			maxPositions))
	})
	if err != nil {
		return err
	}
	// What is in the write-ahead log is safe; copying it home is a courtesy to
	// the next reader.
	stop := w.c.Watch(ctx)
	defer stop()
	if err := w.c.Exec("PRAGMA wal_checkpoint(PASSIVE)"); lite.Code(err) == lite.Interrupt {
		return err
	}
	return nil
}
