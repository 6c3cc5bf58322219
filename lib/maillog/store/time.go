package store

import (
	"context"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// OnServer reports whether a database, as type:where, is on a server, which
// has a clock of its own.
func OnServer(where string) bool { return strings.HasPrefix(where, "mysql:") }

// ServerTime asks the server of a database for its time.
func ServerTime(ctx context.Context, where string) (time.Time, error) {
	path, ok := strings.CutPrefix(where, "mysql:")
	if !ok {
		return time.Time{}, sysexits.Errorf(sysexits.Bug, "database %q is on no server", where)
	}
	cfg, err := mysqlpool.ReadFile(path)
	if err != nil {
		return time.Time{}, err
	}
	pool, err := mysqlpool.Open(cfg, mysqlpool.Options{})
	if err != nil {
		return time.Time{}, err
	}
	defer pool.Close()
	c, err := pool.Conn(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer c.Close()
	var ms float64
	err = c.QueryRowContext(ctx, "SELECT UNIX_TIMESTAMP(NOW(3)) * 1000").Scan(&ms)
	return time.UnixMilli(int64(ms)), err
}
