package store

import "github.com/rolmail/rolmail/lib/sysexits"

// This file goes when mysql.go comes.

type mysqlDB struct{ backend }

func openMySQL(where string, mode Mode) (*mysqlDB, error) {
	return nil, sysexits.Errorf(sysexits.Config, `database "mysql:%s": type "mysql" is not known`, where)
}

func mysqlDDL() string { return "" }
