package store

import (
	"strings"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// What every kind of database has in common: the names of its tables and
// indexes, and what is indexed. The SQL of each kind is in its own files.

// nocase are the columns compared without regard to the case of ASCII letters.
// The domain columns are in lower case anyway.
var nocase = map[string]bool{"sender": true, "rcpt": true, "orig_to": true, "helo": true, "verdict": true}

const dayPrefix = "maillog_"

// dayTable is the name of a day's table.
func dayTable(day string) string { return dayPrefix + day }

// dayOf returns the day of a table's name, or "" if it is no day table's.
func dayOf(table string) string {
	day, ok := strings.CutPrefix(table, dayPrefix)
	if !ok || len(day) != 8 || strings.Trim(day, "0123456789") != "" {
		return ""
	}
	return day
}

// index is a secondary index of every day's table. Its keys end with the id,
// so that equal ones lie in order of time, and it leaves out rows without a
// value. What comes after the id saves looking at the row: an address is
// looked for among its domain's entries.
type index struct {
	name  string // what follows maillog_YYYYMMDD_ in its name
	on    string // columns
	early bool   // so few rows have a value that it is made with the table
}

var indexes = []index{
	{name: "rcpt_domain", on: "rcpt_domain, id, rcpt"},
	{name: "sender_domain", on: "sender_domain, id, sender, direction"},
	{name: "client_ip", on: "client_ip"},
	{name: "qid_in", on: "qid_in"},
	{name: "qid_out", on: "qid_out"},
	{name: "remote_qid", on: "remote_qid"},
	{name: "msgid", on: "msgid"},
	{name: "orig_to", on: "orig_to", early: true},
	{name: "parent_id", on: "parent_id", early: true},
}

func indexName(day, name string) string { return dayTable(day) + "_" + name }

// columnList is every column, in the order of flat.Columns.
var columnList = func() string {
	var names []string
	for _, c := range flat.Columns {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}()
