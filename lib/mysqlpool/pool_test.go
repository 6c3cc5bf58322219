package mysqlpool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/peer"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// until waits for ok.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// record is a log that can be read meanwhile.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

// brisk are options with short times, and the log they write.
func brisk() (Options, *record) {
	log := &record{}
	return Options{
		Log:  slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Dial: time.Second, Login: time.Second, Read: time.Second, Write: time.Second,
		Probe: 50 * time.Millisecond, Backoff: 20 * time.Millisecond, MaxBackoff: 100 * time.Millisecond,
		Healthy: 200 * time.Millisecond, CoolDown: 100 * time.Millisecond,
	}, log
}

// both is a configuration that prefers a to b.
func both(a, b *peer.MariaDB) *Config {
	for _, m := range []*peer.MariaDB{a, b} {
		m.SQL("CREATE DATABASE IF NOT EXISTS d; CREATE TABLE IF NOT EXISTS d.t (x INT PRIMARY KEY)")
	}
	return &Config{Path: "x.cf", Hosts: []string{address(a), address(b)}, User: "root", DBName: "d"}
}

func address(m *peer.MariaDB) string { return fmt.Sprintf("127.0.0.1:%d", m.Port) }

func open(t testing.TB, cfg *Config, opt Options) *Pool {
	t.Helper()
	p, err := Open(cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// conn is a session on the host it should be on.
func conn(t testing.TB, p *Pool, want string) *Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := p.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if c.Host() != want {
		t.Fatalf("session on %s, want %s; hosts %+v", c.Host(), want, p.Hosts())
	}
	return c
}

func one(t testing.TB, c *Conn, query string, args ...any) string {
	t.Helper()
	var s string
	if err := c.QueryRowContext(context.Background(), query, args...).Scan(&s); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return s
}

// Two servers, and what may happen to one of them while it is in use.
func TestFailover(t *testing.T) {
	a, b := peer.StartMariaDB(t), peer.StartMariaDB(t)
	cfg := both(a, b)

	t.Run("killed, and failback", func(t *testing.T) {
		opt, log := brisk()
		p := open(t, cfg, opt)
		if h := p.Hosts()[0]; h.Up || !h.Since.IsZero() || !h.Active {
			t.Errorf("before anything: %+v", h)
		}
		c := conn(t, p, address(a))
		a.Kill()
		began := time.Now()
		err := run(c, "INSERT INTO t VALUES (1)")
		if !Lost(err) || !Again(err) || Code(err) != 0 {
			t.Errorf("%v: lost %v, again %v, code %d", err, Lost(err), Again(err), Code(err))
		}
		if w := c.Word(err, "writing rows"); !strings.Contains(w.Error(), "writing rows: the connection to the server is lost") {
			t.Errorf("%v", w)
		}
		_ = c.Close()
		c = conn(t, p, address(b))
		if d := time.Since(began); d > time.Second {
			t.Errorf("failover took %v", d)
		}
		if c.Stale() || one(t, c, "SELECT 1") != "1" {
			t.Error("the new session is stale")
		}
		states := p.Hosts()
		if s := states[0]; s.Up || s.Active || s.LastError == "" || s.Failures == 0 || s.Since.IsZero() {
			t.Errorf("the dead: %+v", s)
		}
		if s := states[1]; !s.Up || !s.Active || s.Connects == 0 || s.Latency == 0 {
			t.Errorf("the quick: %+v", s)
		}
		a.Start()
		until(t, "the session on b is stale", c.Stale)
		if one(t, c, "SELECT 2") != "2" {
			t.Error("the stale session was cut")
		}
		_ = c.Close()
		_ = conn(t, p, address(a)).Close()
		if p.Switches() != 2 {
			t.Errorf("%d switches", p.Switches())
		}
		for _, want := range []string{"database host is down", "database host is up again", "database host changed", "mysql driver"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%q is not in the log:\n%s", want, log)
			}
		}
	})

	t.Run("frozen", func(t *testing.T) {
		opt, _ := brisk()
		p := open(t, cfg, opt)
		c := conn(t, p, address(a))
		a.Freeze()
		defer a.Thaw()
		began := time.Now()
		err := run(c, "INSERT INTO t VALUES (2)")
		if d := time.Since(began); d < opt.Read || d > opt.Read+time.Second || !Lost(err) {
			t.Errorf("after %v: %v", d, err)
		}
		if w := c.Word(err, ""); !strings.Contains(w.Error(), "no answer to a statement within 1s") {
			t.Errorf("%v", w)
		}
		_ = c.Close()
		began = time.Now()
		_ = conn(t, p, address(b)).Close()
		if d := time.Since(began); d > 500*time.Millisecond {
			t.Errorf("the next session took %v", d)
		}
		a.Thaw()
		until(t, "failback", func() bool { return p.Hosts()[0].Active })
		_ = conn(t, p, address(a)).Close()
	})

	t.Run("frozen, the caller waits less", func(t *testing.T) {
		opt, _ := brisk()
		opt.Read, opt.Login, opt.Probe = time.Minute, 300*time.Millisecond, time.Hour // nobody else asks
		p := open(t, cfg, opt)
		c := conn(t, p, address(a))
		defer c.Close()
		a.Freeze()
		defer a.Thaw()
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err := c.ExecContext(ctx, "INSERT INTO t VALUES (3)")
		if !errors.Is(err, context.DeadlineExceeded) || Lost(err) || Again(err) {
			t.Errorf("%v: lost %v, again %v", err, Lost(err), Again(err))
		}
		until(t, "somebody else finds out that a hangs", func() bool { return !p.Hosts()[0].Active })
		_ = conn(t, p, address(b)).Close()
	})

	t.Run("frozen while nobody asked", func(t *testing.T) {
		opt, _ := brisk()
		opt.Read, opt.Login, opt.Probe = time.Minute, 300*time.Millisecond, time.Hour
		p := open(t, cfg, opt)
		_ = conn(t, p, address(a)).Close()
		p.hosts[0].heard.Store(0) // long ago
		a.Freeze()
		defer a.Thaw()
		began := time.Now()
		_ = conn(t, p, address(b)).Close() // and not the idle session on a
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("took %v", d)
		}
	})

	t.Run("frozen from the start", func(t *testing.T) {
		opt, _ := brisk()
		p := open(t, cfg, opt)
		a.Freeze()
		defer a.Thaw()
		began := time.Now()
		_ = conn(t, p, address(b)).Close()
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("took %v", d)
		}
	})

	t.Run("behind", func(t *testing.T) {
		opt, _ := brisk()
		fresh, asked := make(chan struct{}), make(chan string, 100)
		opt.Fresh = func(ctx context.Context, c *Conn) (bool, error) {
			select {
			case asked <- c.Host() + one(t, c, "SELECT 3"):
			default:
			}
			select {
			case <-fresh:
				return true, nil
			default:
				return false, nil
			}
		}
		p := open(t, cfg, opt)
		_ = conn(t, p, address(a)).Close()
		a.Kill()
		until(t, "b is active", func() bool { return p.Hosts()[1].Active })
		a.Start()
		for range 3 {
			select {
			case got := <-asked:
				if want := address(a) + "3"; got != want {
					t.Fatalf("asked of %s, want %s", got, want)
				}
			case <-time.After(patience):
				t.Fatal("nobody asked whether the preferred host is fresh")
			}
			_ = conn(t, p, address(b)).Close()
		}
		close(fresh)
		until(t, "failback", func() bool { return p.Hosts()[0].Active })
		_ = conn(t, p, address(a)).Close()
	})

	t.Run("both dead", func(t *testing.T) {
		opt, _ := brisk()
		p := open(t, cfg, opt)
		a.Kill()
		b.Kill()
		_, err := p.Conn(context.Background())
		want := fmt.Sprintf("x.cf: %s: connection refused; %s: connection refused; is the server running?", address(a), address(b))
		if err == nil || err.Error() != want || !Lost(err) {
			t.Errorf("%v, want %s", err, want)
		}
		b.Start()
		_ = conn(t, p, address(b)).Close()
		a.Start()
	})

	t.Run("failed by its user", func(t *testing.T) {
		opt, _ := brisk()
		opt.Healthy = time.Minute
		p := open(t, cfg, opt)
		c := conn(t, p, address(a))
		c.Fail(errors.New("it is behind"))
		_ = c.Close()
		_ = conn(t, p, address(b)).Close()
		if got := p.Hosts()[0].LastError; got != "it is behind" {
			t.Errorf("last error %q", got)
		}
	})
}

// A single host has no time in which nobody tries it.
func TestRestartOfTheOnlyHost(t *testing.T) {
	m := peer.StartMariaDB(t)
	cfg, err := ReadFile(m.CF("d"))
	if err != nil {
		t.Fatal(err)
	}
	opt, _ := brisk()
	opt.Backoff, opt.MaxBackoff = time.Hour, time.Hour // the watcher is no help
	p := open(t, cfg, opt)
	first, idle := conn(t, p, address(m)), conn(t, p, address(m))
	_ = idle.Close()
	m.Kill()
	if _, err := p.Conn(context.Background()); !Lost(err) {
		t.Errorf("dead: %v", err)
	}
	m.Start()
	c := conn(t, p, address(m))
	if one(t, c, "SELECT 1") != "1" {
		t.Error("no answer")
	}
	if err := run(first, "SELECT 1"); !Lost(err) {
		t.Errorf("the session from before: %v", err)
	}
	if s := p.Hosts()[0]; !s.Up {
		t.Errorf("a session from before the restart took the host down: %+v", s)
	}
	_ = c.Close()
	_ = first.Close()
	if _, err := os.Stat(m.Socket); err != nil {
		t.Fatal(err)
	}
}
