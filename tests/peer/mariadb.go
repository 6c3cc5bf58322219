package peer

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// MariaDB is a mariadbd with a directory of its own, on a free port of the
// loopback and a unix socket. Its root has no password.
type MariaDB struct {
	Dir    string
	Socket string
	Port   int

	t       testing.TB
	options []string
	cmd     *exec.Cmd
	exited  chan struct{}
}

// dbReady is how long a server may take to answer.
const dbReady = 60 * time.Second

// StartMariaDB makes a database directory, starts a server on it with further
// options such as "--log-bin", and stops it at the end of the test.
func StartMariaDB(t testing.TB, options ...string) *MariaDB {
	t.Helper()
	Need(t, "mariadbd")
	Need(t, "mariadb")
	install := Need(t, "mariadb-install-db")
	// A unix socket's path has at most 107 bytes, so not t.TempDir.
	dir, err := os.MkdirTemp("", "rol-db-")
	if err != nil {
		t.Fatal(err)
	}
	m := &MariaDB{Dir: dir, Socket: filepath.Join(dir, "s"), Port: FreePort(t), t: t, options: options}
	t.Cleanup(func() {
		m.Kill()
		_ = os.RemoveAll(dir)
	})
	// A server that starts removes what looks like temporary tables from its
	// temporary directory: in a common one also those of the others.
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	setup := exec.Command(install, "--no-defaults", "--datadir="+filepath.Join(dir, "data"), "--skip-test-db",
		"--auth-root-authentication-method=normal", "--user="+userName())
	setup.Env = append(os.Environ(), "TMPDIR="+filepath.Join(dir, "tmp"))
	out, err := setup.CombinedOutput()
	if err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	m.Start()
	return m
}

func userName() string {
	u, err := user.Current()
	if err != nil {
		return "root"
	}
	return u.Username
}

// FreePort is a TCP port of the loopback that nobody uses at the moment.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Start starts the server, for the first time or again, and waits until it
// answers.
func (m *MariaDB) Start() {
	m.t.Helper()
	path := Need(m.t, "mariadbd")
	args := append([]string{
		"--no-defaults", "--datadir=" + filepath.Join(m.Dir, "data"), "--socket=" + m.Socket,
		"--port=" + strconv.Itoa(m.Port), "--bind-address=127.0.0.1", "--pid-file=" + filepath.Join(m.Dir, "pid"),
		"--tmpdir=" + filepath.Join(m.Dir, "tmp"), "--user=" + userName(), "--log-error=" + filepath.Join(m.Dir, "log"),
		"--innodb-buffer-pool-size=256M", "--innodb-log-file-size=128M", "--max-connections=50",
	}, m.options...)
	m.cmd = exec.Command(path, args...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.exited = make(chan struct{})
	go func(c *exec.Cmd, done chan struct{}) {
		_ = c.Wait()
		close(done)
	}(m.cmd, m.exited)
	for deadline := time.Now().Add(dbReady); ; {
		if out, err := m.client("SELECT 1"); err == nil && strings.TrimSpace(out) == "1" {
			return
		}
		select {
		case <-m.exited:
			log, _ := os.ReadFile(filepath.Join(m.Dir, "log"))
			m.t.Fatalf("mariadbd did not start:\n%s", log)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("mariadbd does not answer")
		}
	}
}

// Kill kills the server with SIGKILL, if it runs, and waits for its end.
func (m *MariaDB) Kill() { m.end(syscall.SIGKILL) }

// Shutdown ends the server in good order.
func (m *MariaDB) Shutdown() { m.end(syscall.SIGTERM) }

func (m *MariaDB) end(sig syscall.Signal) {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(syscall.SIGCONT)
	_ = m.cmd.Process.Signal(sig)
	<-m.exited
	m.cmd = nil
}

// Freeze stops the server (SIGSTOP) so that connections hang, and returns when
// all its threads have stopped; Thaw lets it go on.
func (m *MariaDB) Freeze() {
	m.t.Helper()
	_ = m.cmd.Process.Signal(syscall.SIGSTOP)
	for deadline := time.Now().Add(dbReady); !m.stopped(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatal("mariadbd does not stop")
		}
	}
}

// stopped looks at the state of each thread, the letter behind its name.
func (m *MariaDB) stopped() bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", m.cmd.Process.Pid))
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		end := bytes.LastIndexByte(stat, ')')
		if err == nil && (end < 0 || !bytes.HasPrefix(stat[end+1:], []byte(" T"))) {
			return false
		}
	}
	return len(threads) > 0
}

// Thaw lets a frozen server go on.
func (m *MariaDB) Thaw() { _ = m.cmd.Process.Signal(syscall.SIGCONT) }

func (m *MariaDB) client(sql string) (string, error) {
	c := exec.Command("mariadb", "--no-defaults", "--socket="+m.Socket, "--user=root", "--batch", "--skip-column-names",
		"--default-character-set=utf8mb4", "-e", sql)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

// SQL runs statements as root by the mariadb client and returns what they
// print: a line a row, columns separated by tabs.
func (m *MariaDB) SQL(sql string) string {
	m.t.Helper()
	out, err := m.client(sql)
	if err != nil {
		m.t.Fatalf("%.200s: %v", sql, err)
	}
	return out
}

// CF makes a database, and a mysql_table(5) file of mode 0600 by which it is
// reached over TCP as root, with more lines such as "user = x" if given.
func (m *MariaDB) CF(dbname string, more ...string) string {
	m.t.Helper()
	m.SQL("CREATE DATABASE IF NOT EXISTS `" + dbname + "`")
	text := fmt.Sprintf("hosts = 127.0.0.1:%d\ndbname = %s\n", m.Port, dbname)
	if len(more) == 0 {
		text += "user = root\n"
	}
	text += strings.Join(more, "\n") + "\n"
	f, err := os.CreateTemp(m.Dir, dbname+"-*.cf")
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		m.t.Fatal(err)
	}
	return f.Name()
}
