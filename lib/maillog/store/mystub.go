package store

import (
	"context"
	"errors"
)

// This file goes when myread.go comes.

func (db *mysqlDB) openMySQLReader(context.Context) error { return errors.ErrUnsupported }

func (db *mysqlDB) read(context.Context, func(session) error) error { return errors.ErrUnsupported }
