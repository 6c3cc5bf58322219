package mysqlpool

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

// wire is the network connection of a session. It sees what database/sql
// hides: when the server last said something, and whether a session ended
// because the server went away or because we closed it.
type wire struct {
	net.Conn
	host   *host
	read   atomic.Int64 // how long the server may be silent, time.Duration; 0: for ever
	born   time.Time
	failed atomic.Pointer[error] // why it broke
	live   atomic.Bool           // logged in; before that its maker knows of every failure
	closed atomic.Bool
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err == nil {
		w.host.heard.Store(time.Now().UnixNano())
		return n, nil
	}
	return n, w.broke(err)
}

func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	return n, w.broke(err)
}

// broke takes note of an error that we have not made ourselves by Close.
func (w *wire) broke(err error) error {
	if err == nil || w.closed.Load() {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		doing := "a login"
		if w.live.Load() {
			doing = "a statement"
		}
		err = &silence{doing, time.Duration(w.read.Load())}
	}
	w.failed.CompareAndSwap(nil, &err)
	if w.live.Load() {
		w.host.lostSession(err, w.born)
	}
	return err
}

// SetReadDeadline is called by the driver before each read.
func (w *wire) SetReadDeadline(time.Time) error {
	d := time.Duration(w.read.Load())
	if d <= 0 {
		return w.Conn.SetReadDeadline(time.Time{})
	}
	return w.Conn.SetReadDeadline(time.Now().Add(d))
}

// Close by the driver in the middle of a session means that a caller's
// context ended while the server was to answer. Whether it still does is for
// the watcher to find out.
func (w *wire) Close() error {
	if !w.closed.Swap(true) && w.live.Load() {
		w.host.suspect()
	}
	return w.Conn.Close()
}

// SyscallConn lets the driver see whether an idle connection has ended.
func (w *wire) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := w.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// driverConn is what the driver's connection can do.
type driverConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// session is a connection of the driver's with its wire.
type session struct {
	driverConn
	wire   *wire
	galera bool
	open   bool // a transaction begun by a statement; BeginTx's are database/sql's to end
}

// ExecContext executes a statement, which may begin or end a transaction.
func (s *session) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	r, err := s.driverConn.ExecContext(ctx, query, args)
	s.sees(query, err)
	return r, err
}

// QueryContext is ExecContext for a statement with rows.
func (s *session) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	r, err := s.driverConn.QueryContext(ctx, query, args)
	s.sees(query, err)
	return r, err
}

// sees takes note of transactions.
func (s *session) sees(query string, err error) {
	word, _, _ := strings.Cut(strings.TrimLeft(query[:min(len(query), 40)], " \t\r\n"), " ")
	switch strings.ToUpper(strings.TrimRight(word, "; \t\r\n")) {
	case "BEGIN", "START", "XA":
		s.open = true
	case "COMMIT", "ROLLBACK":
		s.open = s.open && err != nil
	}
}

// IsValid is asked when the session is given back. One whose user has left a
// transaction open is closed, which rolls it back: the next user's BEGIN
// would commit it.
func (s *session) IsValid() bool { return !s.open && s.driverConn.IsValid() }

// ResetSession takes a silence that Conn.Silence allowed back.
func (s *session) ResetSession(ctx context.Context) error {
	s.wire.read.Store(int64(s.wire.host.pool.opt.Read))
	return s.driverConn.ResetSession(ctx)
}

func (s *session) Close() error {
	s.wire.live.Store(false)
	return s.driverConn.Close()
}

// connector makes sessions on one host, for database/sql.
type connector struct {
	host *host
	cfg  *mysql.Config
}

func newConnector(h *host, cfg *mysql.Config) (*connector, error) {
	c := &connector{host: h, cfg: cfg}
	if _, err := mysql.NewConnector(cfg); err != nil { // looks at the configuration
		return nil, err
	}
	return c, nil
}

func (c *connector) Driver() driver.Driver { return mysql.MySQLDriver{} }

// Connect makes a session within the pool's Dial and Login.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	p := c.host.pool
	s, err := c.open(ctx)
	if err == nil {
		err = bounded(ctx, p.opt.Login, "the setting up of a session", func(ctx context.Context) error {
			return p.setup(ctx, s)
		})
		if err == nil {
			s.wire.read.Store(int64(p.opt.Read))
			s.wire.live.Store(true)
			c.host.connects.Add(1)
			return s, nil
		}
		err = because(err, s.wire)
		_ = s.Close()
	}
	if ctx.Err() != nil { // we cannot say that the host failed
		c.host.suspect()
	}
	return nil, err
}

// because adds to an error of the driver's, which has no details, what
// happened to the connection.
func because(err error, w *wire) error {
	if w == nil {
		return err
	}
	if cause := w.failed.Load(); cause != nil && !errors.Is(err, *cause) && Code(err) == 0 {
		return fmt.Errorf("%w: %w", err, *cause)
	}
	return err
}

// open connects and logs in.
func (c *connector) open(ctx context.Context) (*session, error) {
	opt := &c.host.pool.opt
	var w *wire
	cfg := c.cfg.Clone()
	cfg.TLS = c.cfg.TLS // a clone of ours serves one connection
	cfg.DialFunc = func(ctx context.Context, netw, addr string) (net.Conn, error) {
		var nc net.Conn
		err := bounded(ctx, opt.Dial, "a connection", func(ctx context.Context) (err error) {
			nc, err = (&net.Dialer{}).DialContext(ctx, netw, addr)
			return err
		})
		if err != nil {
			return nil, err
		}
		w = &wire{Conn: nc, host: c.host, born: time.Now()}
		w.read.Store(int64(opt.Login))
		return w, nil
	}
	inner, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	var dc driver.Conn
	err = bounded(ctx, opt.Dial+opt.Login, "a login", func(ctx context.Context) (err error) {
		dc, err = inner.Connect(ctx)
		return err
	})
	if err != nil {
		return nil, because(err, w)
	}
	full, ok := dc.(driverConn)
	if !ok {
		_ = dc.Close()
		return nil, fmt.Errorf("the driver's connection is a %T", dc)
	}
	return &session{driverConn: full, wire: w}, nil
}

// bounded calls f with a context of at most d; when that ends, and not the
// caller's, the error is a silence.
func bounded(ctx context.Context, d time.Duration, doing string, f func(context.Context) error) error {
	inner, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := f(inner)
	if err == nil || inner.Err() == nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	// A network connection sees a deadline a moment before its context does.
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return err
	}
	return &silence{doing, d}
}

// values asks for one row of texts.
func values(ctx context.Context, dc driver.QueryerContext, query string) ([]string, error) {
	rows, err := dc.QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	row := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil {
		if err == io.EOF {
			return nil, nil
		}
		return nil, err
	}
	out := make([]string, len(row))
	for i, v := range row {
		switch v := v.(type) {
		case nil:
		case []byte:
			out[i] = string(v)
		default:
			out[i] = fmt.Sprint(v)
		}
	}
	return out, nil
}

// setup sees that the server is fit for use, sets the session's variables,
// and sees that they are set.
func (p *Pool) setup(ctx context.Context, s *session) error {
	// First of all, for with wsrep_sync_wait a node outside its cluster would
	// not even say that it is.
	on, err := values(ctx, s, "SHOW VARIABLES LIKE 'wsrep_on'")
	if err != nil {
		return err
	}
	s.galera = len(on) == 2 && isOn(on[1])
	began := time.Now()
	if err := p.fit(ctx, s); err != nil {
		return err
	}
	s.wire.host.latency.Store(int64(time.Since(began)))
	for _, v := range p.vars {
		if err := v.set(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// set sets the variable and reads it back.
func (v variable) set(ctx context.Context, s *session) error {
	_, err := s.ExecContext(ctx, "SET SESSION "+v.name+" = "+v.literal(), nil)
	if Code(err) == codeUnknownVariable && strings.HasPrefix(v.name, "wsrep_") {
		return nil // a server without Galera
	}
	var got []string
	if err == nil {
		got, err = values(ctx, s, "SELECT @@SESSION."+v.name)
	}
	if err == nil && (len(got) != 1 || !v.holds(got[0])) {
		err = fmt.Errorf("the server made %.100q of it", got)
	}
	if err != nil {
		return &settingError{fmt.Sprintf("setting %s to %.100q", v.name, v.value), err}
	}
	return nil
}

// fit has the server answer, and reports why it is not to be used although it
// does: a node of Galera that is not in its cluster, or a replica.
func (p *Pool) fit(ctx context.Context, s *session) error {
	if s.galera {
		ready, err := values(ctx, s, "SHOW STATUS LIKE 'wsrep_ready'")
		if err != nil {
			return err
		}
		if len(ready) == 2 && !isOn(ready[1]) {
			return &mysql.MySQLError{Number: codeNotPrepared, Message: "wsrep_ready is " + ready[1]}
		}
	}
	if !p.opt.Writable {
		return s.Ping(ctx)
	}
	ro, err := values(ctx, s, "SELECT @@GLOBAL.read_only")
	if err == nil && len(ro) == 1 && !isOff(ro[0]) {
		err = &mysql.MySQLError{Number: codeReadOnly, Message: "read_only is " + ro[0]}
	}
	return err
}

// variable is a session variable that every session gets.
type variable struct{ name, value string }

// variables checks and sorts Options.Params.
func variables(params map[string]string) ([]variable, error) {
	var vars []variable
	for name, value := range params {
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return nil, fmt.Errorf("session variable %.60q: want small letters, digits and _", name)
		}
		if value != "" {
			vars = append(vars, variable{name, value})
		}
	}
	slices.SortFunc(vars, func(a, b variable) int { return strings.Compare(a.name, b.name) })
	return vars, nil
}

// literal is the value as SQL.
func (v variable) literal() string {
	if _, err := strconv.ParseFloat(v.value, 64); err == nil && strings.Trim(v.value, "0123456789.-") == "" {
		return v.value
	}
	// Doubled quotes are right whatever sql_mode says of backslashes, which
	// no variable of a session needs.
	return "'" + strings.NewReplacer("'", "''", `\`, "").Replace(v.value) + "'"
}

// holds reports whether the server's value is what was asked for. A list,
// such as sql_mode, may have more in it.
func (v variable) holds(got string) bool {
	if strings.EqualFold(got, v.value) || isOn(got) && isOn(v.value) || isOff(got) && isOff(v.value) {
		return true
	}
	a, aerr := strconv.ParseFloat(got, 64)
	b, berr := strconv.ParseFloat(v.value, 64)
	if aerr == nil && berr == nil {
		return a == b
	}
	have := strings.Split(strings.ToUpper(got), ",")
	for item := range strings.SplitSeq(strings.ToUpper(v.value), ",") {
		if !slices.Contains(have, strings.TrimSpace(item)) {
			return false
		}
	}
	return true
}

func isOn(s string) bool {
	return s == "1" || strings.EqualFold(s, "ON") || strings.EqualFold(s, "YES")
}

func isOff(s string) bool {
	return s == "0" || strings.EqualFold(s, "OFF") || strings.EqualFold(s, "NO")
}
