package store

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// sqliteVersion is the version of the tables below. A program refuses a newer
// one.
const sqliteVersion = 1

// pageSize, in bytes. A table clustered by id keeps rows, of some 500 bytes,
// in its inner pages too: with SQLite's usual 4096 a page has 7 children.
// 16384 loads 5 % faster than 8192, but a follower's small commits touch a
// page in each index and would write twice as much.
const pageSize = 8192

// The tables beside the days.
var sqliteTables = []string{
	`CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value) WITHOUT ROWID`,
	`CREATE TABLE positions (prefix BLOB NOT NULL PRIMARY KEY, prefix_len INTEGER NOT NULL,
		byte_offset INTEGER NOT NULL, name TEXT NOT NULL, updated INTEGER NOT NULL) WITHOUT ROWID`,
	`CREATE TABLE state (key BLOB NOT NULL PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID`,
	`CREATE TABLE changes (seq INTEGER PRIMARY KEY, ids BLOB NOT NULL)`,
}

// createDay is the statement that makes a day's table.
func createDay(day string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE %s (", dayTable(day))
	for i := range flat.Columns {
		c := &flat.Columns[i]
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c.Name)
		switch c.Type {
		case flat.Text:
			b.WriteString(" TEXT")
		case flat.Int, flat.Time, flat.Bool:
			b.WriteString(" INTEGER")
		case flat.Float:
			b.WriteString(" REAL")
		case flat.RowID:
			b.WriteString(" BLOB")
		}
		if c.Name == "id" {
			b.WriteString(" NOT NULL PRIMARY KEY")
		}
		if nocase[c.Name] {
			b.WriteString(" COLLATE NOCASE")
		}
	}
	b.WriteString(") WITHOUT ROWID")
	return b.String()
}

// primaryKey is the name that SQLite gives the table itself as an index.
func primaryKey(day string) string { return "sqlite_autoindex_" + dayTable(day) + "_1" }

// createIndex is the statement that makes an index of a day.
func createIndex(day string, x index) string {
	return fmt.Sprintf("CREATE INDEX IF NOT EXISTS %s ON %s (%s) WHERE %s IS NOT NULL",
		indexName(day, x.name), dayTable(day), x.on, x.name)
}

// insertRow and updateRow take the same parameters, ?1 and on in the order of
// flat.Columns. The update does nothing where the row that is there knows more
// lines, or is the same to the byte.
func insertRow(day string) string {
	return fmt.Sprintf("INSERT INTO %s VALUES (?%s) ON CONFLICT (id) DO NOTHING",
		dayTable(day), strings.Repeat(", ?", len(flat.Columns)-1))
}

func updateRow(day string) string {
	var set, differs []string
	lines := 0
	for i, c := range flat.Columns {
		switch c.Name {
		case "lines":
			lines = i + 1
		case "id":
			continue
		}
		set = append(set, fmt.Sprintf("%s = ?%d", c.Name, i+1))
		differs = append(differs, fmt.Sprintf("%s IS NOT ?%d COLLATE BINARY", c.Name, i+1))
	}
	return fmt.Sprintf("UPDATE %s SET %s WHERE id = ?1 AND lines <= ?%d AND (%s)",
		dayTable(day), strings.Join(set, ", "), lines, strings.Join(differs, " OR "))
}

// schema is what a connection knows about the tables there are.
type schema struct {
	version int64               // PRAGMA schema_version when it was read
	days    []string            // ascending
	indexed map[string][]string // day -> its indexes, by index.name
}

// readSchema reads which days there are and what is indexed, unless nothing
// has changed since old.
func readSchema(c *lite.Conn, old *schema) (*schema, error) {
	v, err := c.Int("PRAGMA schema_version")
	if err != nil {
		return nil, err
	}
	if old != nil && old.version == v {
		return old, nil
	}
	s := &schema{version: v, indexed: map[string][]string{}}
	// sqlite_schema has no index: this reads all of it, a small table.
	err = each(c, "SELECT type, name, tbl_name FROM sqlite_schema ORDER BY name", func(st *lite.Stmt) error {
		day := dayOf(st.Text(2))
		if day == "" {
			return nil
		}
		switch name := st.Text(1); st.Text(0) {
		case "table":
			s.days = append(s.days, day)
		case "index":
			if short, ok := strings.CutPrefix(name, dayTable(day)+"_"); ok {
				s.indexed[day] = append(s.indexed[day], short)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// has reports whether a day has an index.
func (s *schema) has(day, name string) bool {
	return slices.Contains(s.indexed[day], name)
}

// missing are the statements that make the indexes that days lack.
func (s *schema) missing() (sql []string) {
	for _, day := range s.days {
		for _, x := range indexes {
			if !s.has(day, x.name) {
				sql = append(sql, createIndex(day, x))
			}
		}
	}
	return sql
}

// added is s with a new day.
func (s *schema) added(day string) *schema {
	i, _ := slices.BinarySearch(s.days, day)
	return &schema{version: s.version, days: slices.Insert(slices.Clone(s.days), i, day), indexed: s.indexed}
}

// newDay are the statements that make a day.
func newDay(day string) []string {
	sql := []string{createDay(day)}
	for _, x := range indexes {
		if x.early {
			sql = append(sql, createIndex(day, x))
		}
	}
	return sql
}

// checkVersion finds out whether the database is one of ours. empty: it has no
// tables at all.
func (db *sqliteDB) checkVersion(c *lite.Conn) (empty bool, err error) {
	n, err := c.Int("SELECT count(*) FROM sqlite_schema")
	if err != nil || n == 0 {
		return err == nil, err
	}
	n, err = c.Int("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('meta', 'positions', 'state', 'changes')")
	if err != nil {
		return false, err
	}
	if n != int64(len(sqliteTables)) {
		return false, sysexits.Errorf(sysexits.Data,
			"%s: an SQLite database of another program; name another file", db.path)
	}
	v, err := c.Int("SELECT value FROM meta WHERE name = 'schema'")
	if err != nil {
		return false, err
	}
	if v > sqliteVersion {
		return false, sysexits.Errorf(sysexits.Data,
			"%s: its schema version is %d and this program knows up to %d; use a newer release of rolmail", db.path, v, sqliteVersion)
	}
	if v < 1 {
		return false, sysexits.Errorf(sysexits.Data, "%s: no schema version; name another file", db.path)
	}
	return false, nil
}

// sqliteDDL is DDL for SQLite.
func sqliteDDL() string {
	var b strings.Builder
	fmt.Fprintf(&b, "PRAGMA page_size = %d;\nPRAGMA journal_mode = WAL;\n", pageSize)
	for _, sql := range sqliteTables {
		b.WriteString(sql + ";\n")
	}
	fmt.Fprintf(&b, "INSERT INTO meta VALUES ('schema', %d);\n", sqliteVersion)
	b.WriteString("-- for each day, UTC:\n" + createDay(exampleDay) + ";\n")
	for _, x := range indexes {
		b.WriteString(createIndex(exampleDay, x) + ";\n")
	}
	return b.String()
}
