package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// mysqlStep brings the tables from one version to the next: mysqlSteps[0] to
// version 1. The version is written after it. DDL cannot be undone, so a step
// that was killed in the middle is run again from its begin: each statement
// must be right whether it was run before or not.
type mysqlStep func(ctx context.Context, w *mysqlWriter) error

var mysqlSteps = []mysqlStep{
	func(ctx context.Context, w *mysqlWriter) error {
		for i := range mysqlTables {
			if _, err := w.exec(ctx, mysqlTables[i].create()); err != nil {
				return err
			}
		}
		_, err := w.exec(ctx, mysqlFirstMark)
		return err
	},
}

// mysqlFirstMark is the state of a database without commits.
const mysqlFirstMark = "INSERT IGNORE INTO " + mysqlMeta + " (name, value, token) VALUES ('commit', 0, REPEAT(CHAR(0), 16))"

func mysqlSetVersion(v int) string {
	return fmt.Sprintf("REPLACE INTO %s (name, value, token) VALUES ('schema', %d, REPEAT(CHAR(0), 16))", mysqlMeta, v)
}

// prepare makes the tables beside the days, or brings them forward from an
// older version.
func (w *mysqlWriter) prepare(ctx context.Context) error {
	v, err := mysqlCheck(ctx, w.c, w.db.where, len(w.steps))
	if err != nil {
		return err
	}
	for ; v < len(w.steps); v++ {
		if err := w.steps[v](ctx, w); err != nil {
			return err
		}
		if _, err := w.exec(ctx, mysqlSetVersion(v+1)); err != nil {
			return err
		}
	}
	if v > mysqlVersion {
		return nil // a test's
	}
	return w.checkTables(ctx)
}

// mysqlCheck finds out whether the tables of the session's database are ours,
// and of which version: 0 if there are none, or not all of them yet.
func mysqlCheck(ctx context.Context, c *mysqlpool.Conn, where string, newest int) (version int, err error) {
	other := func(what string) error {
		return sysexits.Errorf(sysexits.Data,
			"%s: %s, so its tables that begin with %s are another program's: name another database", where, what, dayPrefix)
	}
	rows, err := c.QueryContext(ctx, "SHOW TABLES LIKE 'maillog\\_%'")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var ours []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return 0, err
		}
		if dayOf(name) != "" || slices.ContainsFunc(mysqlTables, func(t mysqlTable) bool { return t.name == name }) {
			ours = append(ours, name)
		}
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	if len(ours) == 0 {
		return 0, nil
	}
	if !slices.Contains(ours, mysqlMeta) {
		return 0, other(fmt.Sprintf("the database has a table %.64q and no %s", ours[0], mysqlMeta))
	}
	err = c.QueryRowContext(ctx, "SELECT value FROM "+mysqlMeta+" WHERE name = 'schema' AND LENGTH(token) = 16").Scan(&version)
	switch {
	case mysqlpool.Code(err) == codeBadField:
		return 0, other("table " + mysqlMeta + " has other columns than it should")
	case err == sql.ErrNoRows && slices.ContainsFunc(ours, func(name string) bool { return dayOf(name) != "" }):
		return 0, other("table " + mysqlMeta + " says no schema version")
	case err == sql.ErrNoRows:
		return 0, nil // whoever made the tables was killed
	case err != nil:
		return 0, err
	case version > newest:
		return 0, sysexits.Errorf(sysexits.Data,
			"%s: the schema version of the database is %d and this program knows up to %d; use a newer release of rolmail",
			where, version, newest)
	case version < 1:
		return 0, other(fmt.Sprintf("table %s says schema version %d", mysqlMeta, version))
	}
	return version, nil
}

// checkTables looks whether the tables beside the days are there, with the
// columns they should have.
func (w *mysqlWriter) checkTables(ctx context.Context) error {
	var names []string
	for i := range mysqlTables {
		names = append(names, mysqlTables[i].name)
	}
	have, err := w.columns(ctx, names...)
	if err != nil {
		return err
	}
	for i := range mysqlTables {
		t := &mysqlTables[i]
		switch columns := have[t.name]; {
		case columns == nil:
			return sysexits.Errorf(sysexits.Data,
				"%s: table %s is gone from database %.64q: restore it from a backup, or drop all tables that begin with %s and read the logs again",
				w.db.where, t.name, w.db.name, dayPrefix)
		case strings.Join(columns, ", ") != t.columnNames():
			return sysexits.Errorf(sysexits.Data,
				"%s: table %s has other columns than it should, so it is another program's: name another database", w.db.where, t.name)
		}
	}
	return nil
}
