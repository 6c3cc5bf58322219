package store

import (
	"fmt"
	"strings"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// The statements that make the tables in MariaDB and MySQL. All names begin
// with maillog_, because a database is often shared with other programs.

// mysqlVersion is the version of the tables. A program refuses a newer one and
// brings an older one forward by itself, see mysqlSteps.
const mysqlVersion = 1

// The tables beside the days.
const (
	mysqlMeta      = "maillog_meta"      // schema: the version; commit: the number of the last commit, and whose it is
	mysqlPositions = "maillog_positions" // how far each input has been read
	mysqlState     = "maillog_state"     // what the tracer has open
	mysqlChanges   = "maillog_changes"   // which rows the last commits have touched, for followers
)

// mysqlDays is the pattern of the days' names, for LIKE.
const mysqlDays = `maillog\_________`

const (
	mysqlTableEnd = " ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
	mysqlNoCase   = "utf8mb4_general_ci"
)

// mysqlTable is a table beside the days.
type mysqlTable struct {
	name    string
	columns []string // name and definition
	key     string
}

var mysqlTables = []mysqlTable{
	{mysqlMeta, []string{"name VARCHAR(32) NOT NULL", "value BIGINT NOT NULL", "token BINARY(16) NOT NULL"}, "name"},
	{mysqlPositions, []string{
		"prefix BINARY(32) NOT NULL", "prefix_len BIGINT NOT NULL", "byte_offset BIGINT NOT NULL",
		"name VARBINARY(4096) NOT NULL", "updated BIGINT NOT NULL",
	}, "prefix"},
	{mysqlState, []string{"k VARBINARY(255) NOT NULL", "data MEDIUMBLOB NOT NULL"}, "k"},
	{mysqlChanges, []string{"seq BIGINT NOT NULL", "ids MEDIUMBLOB NOT NULL"}, "seq"},
}

func (t *mysqlTable) create() string {
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (%s, PRIMARY KEY (%s))%s",
		t.name, strings.Join(t.columns, ", "), t.key, mysqlTableEnd)
}

// columnNames are the names of a table's columns, in order.
func (t *mysqlTable) columnNames() string {
	var names []string
	for _, c := range t.columns {
		name, _, _ := strings.Cut(c, " ")
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// mysqlColumns is every column, in the order of flat.Columns. "lines" is a word
// of the language.
var mysqlColumns = "`" + strings.ReplaceAll(columnList, ", ", "`, `") + "`"

// mysqlColumn is the definition of a column of a day. A text's limit is in
// bytes, and a column's in characters, which are no more.
func mysqlColumn(c *flat.Column) string {
	switch c.Type {
	case flat.Text:
		def := fmt.Sprintf("`%s` VARCHAR(%d)", c.Name, c.Max)
		if nocase[c.Name] {
			def += " COLLATE " + mysqlNoCase
		}
		return def
	case flat.Float:
		return "`" + c.Name + "` DOUBLE"
	case flat.Time:
		return "`" + c.Name + "` DATETIME(3)"
	case flat.Bool:
		return "`" + c.Name + "` TINYINT(1)"
	case flat.RowID:
		return "`" + c.Name + "` BINARY(16)"
	}
	return "`" + c.Name + "` BIGINT"
}

// mysqlCreateDay is the statement that makes a day's table, with the indexes
// that it has from the start.
func mysqlCreateDay(day string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s (", dayTable(day))
	for i := range flat.Columns {
		c := &flat.Columns[i]
		b.WriteString(mysqlColumn(c))
		if c.Name == "id" {
			b.WriteString(" NOT NULL")
		}
		b.WriteString(", ")
	}
	b.WriteString("PRIMARY KEY (id)")
	for _, x := range indexes {
		if x.early {
			b.WriteString(", " + mysqlIndex(x))
		}
	}
	b.WriteString(")" + mysqlTableEnd)
	return b.String()
}

// mysqlIndex is the definition of an index of a day. Its name needs no day:
// it is the table's own.
func mysqlIndex(x index) string { return fmt.Sprintf("KEY %s (%s)", x.name, x.on) }

// mysqlAddIndexes is the statement that makes several indexes of a day in one
// pass over its rows, while others read and write it.
func mysqlAddIndexes(day string, some []index) string {
	var adds []string
	for _, x := range some {
		adds = append(adds, "ADD "+mysqlIndex(x))
	}
	return fmt.Sprintf("ALTER TABLE %s %s, ALGORITHM=INPLACE, LOCK=NONE", dayTable(day), strings.Join(adds, ", "))
}

// mysqlDDL is every statement that a new database needs, and those of a day
// for an example. The writer runs them by itself.
func mysqlDDL() string {
	var b strings.Builder
	b.WriteString("-- Made by rol-logpipe by itself. It needs these privileges on the database:\n")
	b.WriteString("--   GRANT " + mysqlWriteGrants + " ON database.* TO user\n")
	b.WriteString("-- rol-maillog needs: GRANT SELECT ON database.* TO user\n\n")
	for i := range mysqlTables {
		b.WriteString(mysqlTables[i].create() + ";\n\n")
	}
	b.WriteString(mysqlFirstMark + ";\n\n" + mysqlSetVersion(mysqlVersion) + ";\n\n")
	b.WriteString("-- One a day, UTC:\n" + mysqlCreateDay(exampleDay) + ";\n\n")
	b.WriteString("-- When a day's first rows are in:\n" + mysqlAddIndexes(exampleDay, lateIndexes()) + ";\n")
	return b.String()
}

// mysqlWriteGrants is what a writer may have to do.
const mysqlWriteGrants = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX"

// lateIndexes are the indexes that Finish makes.
func lateIndexes() (late []index) {
	for _, x := range indexes {
		if !x.early {
			late = append(late, x)
		}
	}
	return late
}
