package mysqlpool

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/tests/peer"
)

func TestSessions(t *testing.T) {
	m := peer.StartMariaDB(t, "--sql-mode=", "--default-time-zone=+05:30", "--character-set-server=latin1")
	m.SQL("CREATE DATABASE d; CREATE TABLE d.t (x INT PRIMARY KEY, y VARCHAR(9) CHARACTER SET utf8mb4, z DATETIME(3))")
	cfg, err := ReadFile(m.CF("d"))
	if err != nil {
		t.Fatal(err)
	}
	show := "SELECT CONCAT_WS(' ', @@sql_mode, @@time_zone, @@character_set_client, @@character_set_connection, @@lock_wait_timeout)"

	t.Run("variables", func(t *testing.T) {
		opt, _ := brisk()
		c := conn(t, open(t, cfg, opt), address(m))
		defer c.Close()
		if got := one(t, c, show); !strings.HasPrefix(got, "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION +00:00 utf8mb4 utf8mb4 ") {
			t.Error(got)
		}
		if err := run(c, "INSERT INTO t VALUES (1, 'longer than nine', NULL)"); Code(err) != 1406 {
			t.Errorf("not strict: %v", err)
		}
		if got := one(t, c, "SELECT ?", "Zoë 💌"); got != "Zoë 💌" {
			t.Error(got)
		}

		opt.Params = map[string]string{
			"sql_mode": "TRADITIONAL", "time_zone": "", "lock_wait_timeout": "17", "wsrep_nothing": "1", "wsrep_sync_wait": "1",
			"sql_log_bin": "off", "default_storage_engine": "innodb",
		}
		c = conn(t, open(t, cfg, opt), address(m))
		defer c.Close()
		got := one(t, c, show)
		if !strings.Contains(got, "TRADITIONAL") || !strings.HasSuffix(got, " +05:30 utf8mb4 utf8mb4 17") {
			t.Error(got)
		}
	})

	t.Run("variables that are none", func(t *testing.T) {
		for name, value := range map[string]string{
			"nothing": "1", "lock_wait_timeout": "100000000000", "time_zone": "Mars/Phobos'", "sql_mode": "STRICT_ALL_TABLES,NONSENSE",
		} {
			opt, _ := brisk()
			opt.Params = map[string]string{name: value}
			_, err := open(t, cfg, opt).Conn(context.Background())
			if err == nil || !strings.Contains(err.Error(), name) || Lost(err) {
				t.Errorf("%s = %s: %v", name, value, err)
			}
		}
		opt, _ := brisk()
		opt.Params = map[string]string{"a, b": "1"}
		if _, err := Open(cfg, opt); err == nil {
			t.Error("a name with a comma")
		}
	})

	t.Run("silence", func(t *testing.T) {
		opt, _ := brisk()
		opt.Read = 200 * time.Millisecond
		p := open(t, cfg, opt)
		c := conn(t, p, address(m))
		if err := c.Silence(patience); err != nil {
			t.Fatal(err)
		}
		if got := one(t, c, "SELECT SLEEP(0.5)"); got != "0" {
			t.Error(got)
		}
		id := one(t, c, "SELECT CONNECTION_ID()")
		_ = c.Close()
		c = conn(t, p, address(m))
		defer c.Close()
		if one(t, c, "SELECT CONNECTION_ID()") != id {
			t.Error("a session that works was not used again")
		}
		if err := run(c, "SELECT SLEEP(5)"); !Lost(err) {
			t.Errorf("the silence outlasted its session: %v", err)
		}
	})

	t.Run("options of the driver", func(t *testing.T) {
		opt, _ := brisk()
		opt.Interpolate, opt.ParseTime, opt.FoundRows = true, true, true
		c := conn(t, open(t, cfg, opt), address(m))
		defer c.Close()
		ctx := context.Background()
		at := time.Date(2026, 11, 25, 4, 5, 6, 789e6, time.UTC)
		prepared := one(t, c, "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'COM_STMT_PREPARE'")
		for range 2 {
			r, err := c.ExecContext(ctx, "INSERT INTO t VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE y = VALUES(y)", 2, `'"\`, at)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := r.RowsAffected(); n != 1 {
				t.Errorf("%d rows", n)
			}
		}
		if got := one(t, c, "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'COM_STMT_PREPARE'"); got != prepared {
			t.Errorf("%s statements were prepared, not %s", got, prepared)
		}
		var y string
		var z time.Time
		if err := c.QueryRowContext(ctx, "SELECT y, z FROM t WHERE x = 2").Scan(&y, &z); err != nil || y != `'"\` || !z.Equal(at) {
			t.Errorf("%q, %v, %v", y, z, err)
		}
		if err := run(c, "SELECT 1; SELECT 2"); Code(err) != 1064 {
			t.Errorf("two statements in one: %v", err)
		}
		if err := run(c, "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t"); err == nil {
			t.Error("the server may read any file of ours")
		}
	})

	t.Run("a transaction left open is rolled back", func(t *testing.T) {
		opt, _ := brisk()
		p := open(t, cfg, opt)
		ctx := context.Background()
		for what, begin := range map[string]func(c *Conn) error{
			"begin": func(c *Conn) error { return run(c, "begin") },
			"start": func(c *Conn) error { return run(c, "\n START TRANSACTION") },
		} {
			c := conn(t, p, address(m))
			id := one(t, c, "SELECT CONNECTION_ID()")
			err := begin(c)
			if err == nil {
				_, err = c.ExecContext(ctx, "INSERT INTO t (x) VALUES (77)")
			}
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			_ = c.Close()
			c = conn(t, p, address(m))
			if err := run(c, "BEGIN"); err != nil {
				t.Fatal(err)
			}
			if got := one(t, c, "SELECT COUNT(*) FROM t WHERE x = 77"); got != "0" {
				t.Errorf("%s: the next user finds %s rows", what, got)
			}
			if err := run(c, "COMMIT"); err != nil || one(t, c, "SELECT CONNECTION_ID()") == id {
				t.Errorf("%s: the same session again; %v", what, err)
			}
			_ = c.Close()
		}
		c := conn(t, p, address(m))
		id := one(t, c, "SELECT CONNECTION_ID()")
		for _, end := range []func(tx *sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
			tx, err := c.BeginTx(ctx, nil)
			if err == nil {
				err = end(tx)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		_ = c.Close()
		c = conn(t, p, address(m))
		if one(t, c, "SELECT CONNECTION_ID()") != id {
			t.Error("a session was closed that had no transaction open")
		}

		if one(t, c, "SELECT GET_LOCK('l', 1)") != "1" {
			t.Error("no lock")
		}
		for range 2 {
			if err := c.Discard(); err != nil {
				t.Error(err)
			}
		}
		c = conn(t, p, address(m))
		defer c.Close()
		if one(t, c, "SELECT GET_LOCK('l', 5)") != "1" {
			t.Error("a session that was discarded holds its lock")
		}
		if s := p.Hosts()[0]; s.Failures != 0 {
			t.Errorf("discarding counts as a failure: %+v", s)
		}
	})

	t.Run("idle sessions are cut by the server", func(t *testing.T) {
		opt, _ := brisk()
		p := open(t, cfg, opt)
		c := conn(t, p, address(m))
		id := one(t, c, "SELECT CONNECTION_ID()")
		_ = c.Close()
		m.SQL("KILL " + id)
		for range 20 {
			c := conn(t, p, address(m))
			if one(t, c, "SELECT 1") != "1" {
				t.Error("no answer")
			}
			_ = c.Close()
		}
	})

	t.Run("closed", func(t *testing.T) {
		opt, _ := brisk()
		p := open(t, cfg, opt)
		c := conn(t, p, address(m))
		for range 2 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		_ = c.Close()
		if _, err := p.Conn(context.Background()); !errors.Is(err, sql.ErrConnDone) {
			t.Errorf("%v", err)
		}
		if _, err := Ask(context.Background(), p, answerOne); !errors.Is(err, sql.ErrConnDone) {
			t.Errorf("%v", err)
		}
	})

	t.Run("the caller has no time", func(t *testing.T) {
		opt, _ := brisk()
		p := open(t, cfg, opt)
		ctx, cancel := context.WithCancelCause(context.Background())
		why := errors.New("enough")
		cancel(why)
		if _, err := p.Conn(ctx); !errors.Is(err, why) || Lost(err) {
			t.Errorf("%v", err)
		}
		if s := p.Hosts()[0]; s.Failures != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// answerOne asks a host for its port.
func answerOne(ctx context.Context, c *Conn) (port string, err error) {
	err = c.QueryRowContext(ctx, "SELECT @@port").Scan(&port)
	return port, err
}

func TestAsk(t *testing.T) {
	a, b := peer.StartMariaDB(t), peer.StartMariaDB(t)
	cfg := both(a, b)
	ctx := context.Background()
	opt, _ := brisk()
	opt.Hedge, opt.Budget = 100*time.Millisecond, time.Second
	ask := func(t *testing.T, p *Pool, m *peer.MariaDB) time.Duration {
		t.Helper()
		began := time.Now()
		got, err := Ask(ctx, p, answerOne)
		if err != nil || got != strconv.Itoa(m.Port) {
			t.Errorf("%q, %v, want %d; hosts %+v", got, err, m.Port, p.Hosts())
		}
		return time.Since(began)
	}

	t.Run("the first that answers", func(t *testing.T) {
		p := open(t, cfg, opt)
		ask(t, p, a)
		a.Freeze()
		defer a.Thaw()
		if d := ask(t, p, b); d > 600*time.Millisecond {
			t.Errorf("took %v", d)
		}
		until(t, "a hangs, and that is found out", func() bool { return !p.Hosts()[0].Active })
		if d := ask(t, p, b); d > 100*time.Millisecond {
			t.Errorf("took %v", d)
		}
		a.Thaw()
		until(t, "failback", func() bool { return p.Hosts()[0].Active })
		ask(t, p, a)
	})

	t.Run("a dead host", func(t *testing.T) {
		p := open(t, cfg, opt)
		ask(t, p, a)
		a.Kill()
		ask(t, p, b)
		a.Start()
		until(t, "failback", func() bool { return p.Hosts()[0].Active })
		b.Kill()
		ask(t, p, a)
		b.Start()
	})

	t.Run("the question is wrong", func(t *testing.T) {
		p := open(t, cfg, opt)
		calls := 0
		_, err := Ask(ctx, p, func(ctx context.Context, c *Conn) (int, error) {
			calls++
			return 0, run(c, "SELECT * FROM missing")
		})
		if Code(err) != codeNoTable || calls != 1 {
			t.Errorf("%d calls: %v", calls, err)
		}
	})

	t.Run("nobody answers", func(t *testing.T) {
		p := open(t, cfg, opt)
		ask(t, p, a)
		a.Freeze()
		b.Freeze()
		defer a.Thaw()
		defer b.Thaw()
		began := time.Now()
		_, err := Ask(ctx, p, answerOne)
		if d := time.Since(began); d < opt.Budget || d > opt.Budget+time.Second || !Lost(err) || sysexits.Status(err) != sysexits.Unavailable {
			t.Errorf("after %v: %v", d, err)
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := Ask(short, p, answerOne); !errors.Is(err, context.DeadlineExceeded) || Lost(err) {
			t.Errorf("%v", err)
		}
	})

	t.Run("nobody is there", func(t *testing.T) {
		p := open(t, &Config{Hosts: []string{"127.0.0.1:1", "127.0.0.1:2"}, DBName: "d"}, opt)
		_, err := Ask(ctx, p, answerOne)
		if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1: connection refused; 127.0.0.1:2: connection refused") {
			t.Errorf("%v", err)
		}
	})

	t.Run("one host, restarted", func(t *testing.T) {
		p := open(t, &Config{Hosts: cfg.Hosts[:1], User: "root", DBName: "d"}, opt)
		ask(t, p, a)
		a.Kill()
		a.Start()
		ask(t, p, a)
	})
}

// A node of Galera outside its cluster answers, and is of no use.
func TestGalera(t *testing.T) {
	const provider = "/usr/lib/galera/libgalera_smm.so"
	if _, err := os.Stat(provider); err != nil {
		peer.Missing(t, "Galera is not installed; Debian package galera-4")
	}
	node := peer.StartMariaDB(t, "--wsrep-on=ON", "--wsrep-provider="+provider, "--wsrep-cluster-address=gcomm://",
		"--binlog-format=ROW", "--wsrep-node-address=127.0.0.1", fmt.Sprintf(
			"--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:%d;ist.recv_addr=127.0.0.1:%d;pc.wait_prim_timeout=PT1S;pc.announce_timeout=PT1S",
			peer.FreePort(t), peer.FreePort(t)))
	other := peer.StartMariaDB(t)
	cfg := both(node, other)
	opt, _ := brisk()
	opt.Params = map[string]string{"wsrep_sync_wait": "1"}
	p := open(t, cfg, opt)
	c := conn(t, p, address(node))
	defer c.Close()
	if got := one(t, c, "SELECT @@wsrep_sync_wait"); got != "1" {
		t.Errorf("wsrep_sync_wait = %s", got)
	}
	node.SQL("SET GLOBAL wsrep_cluster_address = 'gcomm://127.0.0.1:1'")
	until(t, "failover", func() bool { return p.Hosts()[1].Active })
	if err := run(c, "SELECT * FROM t"); !Again(err) {
		t.Errorf("%v", err)
	}
	cfg.Hosts = cfg.Hosts[:1]
	_, err := open(t, cfg, opt).Conn(context.Background())
	if err == nil || !strings.Contains(err.Error(), "outside its cluster") || sysexits.Status(err) != sysexits.Unavailable {
		t.Errorf("%v", err)
	}
}

func TestClasses(t *testing.T) {
	number := func(n uint16, text string) error { return &mysql.MySQLError{Number: n, Message: text} }
	for _, tt := range []struct {
		err         error
		code        uint16
		lost, again bool
	}{
		{nil, 0, false, false},
		{errors.New("x"), 0, false, false},
		{driver.ErrBadConn, 0, true, true},
		{fmt.Errorf("x: %w", mysql.ErrInvalidConn), 0, true, true},
		{sql.ErrConnDone, 0, true, true},
		{sql.ErrNoRows, 0, false, false},
		{io.ErrUnexpectedEOF, 0, true, true},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, 0, true, true},
		{&net.DNSError{Name: "x", IsNotFound: true}, 0, true, true},
		{&os.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}, 0, false, false},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(42)}, 0, false, false},
		{&silence{"x", time.Second}, 0, true, true},
		{context.Canceled, 0, false, false},
		{context.DeadlineExceeded, 0, false, false},
		{mysql.ErrPktTooLarge, 1153, false, false},
		{mysql.ErrNoTLS, 0, false, false},
		{number(1053, "Server shutdown in progress"), 1053, true, true},
		{number(1927, "Connection was killed"), 1927, true, true},
		{number(2006, ""), 2006, true, true},
		{number(1205, ""), 1205, false, true},
		{number(1213, ""), 1213, false, true},
		{number(1062, "Duplicate entry 'read-only'"), 1062, false, false},
		{number(1290, "The MariaDB server is running with the --read-only option so it cannot execute this statement"), 1290, false, true},
		{number(1290, "... running with the --secure-file-priv option ..."), 1290, false, false},
		{number(1836, ""), 1836, false, true},
		{number(1030, "Got error 28 \"No space left on device\" from storage engine InnoDB"), 1030, false, true},
		{number(1030, "Got error 1 \"Operation not permitted\" from storage engine"), 1030, false, false},
		{number(1045, "tls: x"), 1045, false, false},
		{&unreachable{[]refusal{{"a", number(1045, "")}, {"b", io.EOF}}}, 1045, true, true},
		{&unreachable{[]refusal{{"a", number(1045, "")}, {"b", number(1040, "")}}}, 1045, false, true},
		{&unreachable{[]refusal{{"a", number(1045, "")}, {"b", number(1049, "")}}}, 1045, false, false},
	} {
		if Code(tt.err) != tt.code || Lost(tt.err) != tt.lost || Again(tt.err) != tt.again {
			t.Errorf("%v: code %d, lost %v, again %v; want %d, %v, %v", tt.err, Code(tt.err), Lost(tt.err), Again(tt.err), tt.code, tt.lost, tt.again)
		}
		w := Word(tt.err, "x")
		if (w == nil) != (tt.err == nil) || Code(w) != tt.code || Lost(w) != tt.lost || Again(w) != tt.again || !errors.Is(w, tt.err) {
			t.Errorf("%v is not within %v", tt.err, w)
		}
		if again := Word(w, "y"); again != w {
			t.Errorf("%v became %v", w, again)
		}
	}
	if w := Word(number(1114, "The table 't' is full\nx\x1b"), "writing"); sysexits.Status(w) != sysexits.IO ||
		w.Error() != `writing: the server says "The table 't' is full\\nx\\x1b" (error 1114); make room on the server's disk` {
		t.Errorf("%v", w)
	}
}

func TestOrder(t *testing.T) {
	hosts := []string{"a:1", "unix:/s", "b:1", "unix:/t"}
	if got := order(hosts, false); !slices.Equal(got, hosts) {
		t.Errorf("%v", got)
	}
	seen := map[string]bool{}
	for range 200 {
		got := order(hosts, true)
		if !strings.HasPrefix(got[0], "unix:") || !strings.HasPrefix(got[1], "unix:") {
			t.Fatalf("%v", got)
		}
		seen[strings.Join(got, " ")] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d orders, want 4", len(seen))
	}
}

func TestBackoff(t *testing.T) {
	for tries, most := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 1000: time.Minute} {
		var longest time.Duration
		for range 1000 {
			d := backoff(time.Second, time.Minute, tries)
			if d <= 0 || d > most {
				t.Fatalf("%d tries: %v", tries, d)
			}
			longest = max(longest, d)
		}
		if longest < most*9/10 {
			t.Errorf("%d tries: never more than %v", tries, longest)
		}
	}
}

func TestSuites(t *testing.T) {
	got := suites("HIGH:ECDHE-RSA-AES128-GCM-SHA256,ECDHE-ECDSA-CHACHA20-POLY1305 TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:!aNULL")
	want := []uint16{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}
