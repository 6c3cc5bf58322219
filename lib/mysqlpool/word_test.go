package mysqlpool

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/tests/peer"
)

// cf is a file for a server, with a password that must be in no message.
func cf(t testing.TB, lines ...string) string {
	t.Helper()
	return write(t, "x.cf", strings.Join(lines, "\n")+"\n")
}

// try opens the file, takes a session and runs a statement, and returns the
// error that a person would see.
func try(t testing.TB, path, statement string, change ...func(*Options)) error {
	t.Helper()
	cfg, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	opt, log := brisk()
	opt.Grants = "SELECT, INSERT"
	for _, f := range change {
		f(&opt)
	}
	defer func() {
		if strings.Contains(log.String(), "secret") {
			t.Errorf("the password is in the log:\n%s", log)
		}
	}()
	p, err := Open(cfg, opt)
	if err != nil {
		return err
	}
	defer p.Close()
	c, err := p.Conn(context.Background())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := run(c, statement); err != nil {
		return c.Word(err, "doing it")
	}
	return nil
}

func run(c *Conn, statement string) error {
	rows, err := c.QueryContext(context.Background(), statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		continue
	}
	return rows.Err()
}

func TestWordsOfAServer(t *testing.T) {
	m := peer.StartMariaDB(t, "--max-allowed-packet=1M", "--innodb-lock-wait-timeout=1")
	m.SQL(`CREATE DATABASE d; CREATE TABLE d.t (x INT PRIMARY KEY); CREATE DATABASE other; CREATE TABLE other.t (x INT);
		CREATE USER u@'%' IDENTIFIED BY 'secret'; GRANT SELECT ON d.* TO u@'%';
		CREATE USER w@'%' IDENTIFIED BY 'secret'; GRANT ALL ON d.* TO w@'%';
		CREATE USER few@'%' IDENTIFIED BY 'secret' WITH MAX_USER_CONNECTIONS 1; GRANT ALL ON d.* TO few@'%';
		CREATE USER none@'%' IDENTIFIED BY 'secret';
		CREATE PROCEDURE other.p() SELECT 1;
		INSTALL SONAME 'auth_ed25519'; CREATE USER ed@'%' IDENTIFIED VIA ed25519 USING PASSWORD('secret'); GRANT ALL ON d.* TO ed@'%'`)
	host := "hosts = " + address(m)
	u := []string{host, "user = u", "password = secret", "dbname = d"}
	w := []string{host, "user = w", "password = secret", "dbname = d"}
	for _, tt := range []struct {
		name      string
		cf        []string
		statement string
		status    int
		want      []string
	}{
		{
			"wrong password",
			[]string{host, "user = u", "password = secretly", "dbname = d"},
			"SELECT 1", sysexits.NoPerm,
			[]string{"FILE: " + address(m) + ": the server refuses 'u'@'localhost' with this password (error 1045); see to user and password in FILE"},
		},
		{
			"no password",
			[]string{host, "user = u", "dbname = d"},
			"SELECT 1", sysexits.NoPerm,
			[]string{"refuses 'u'@'localhost', without a password (error 1045)"},
		},
		{
			"no such user",
			[]string{host, "user = nobody", "password = secret", "dbname = d"},
			"SELECT 1", sysexits.NoPerm,
			[]string{"'nobody'@'localhost'"},
		},
		{
			"a database without rights",
			[]string{host, "user = none", "password = secret", "dbname = d"},
			"SELECT 1", sysexits.NoPerm,
			[]string{"(error 1044); GRANT SELECT, INSERT ON d.* TO 'none'@'%'"},
		},
		{
			"no right to insert", u, "INSERT INTO t VALUES (1)", sysexits.NoPerm,
			[]string{
				"FILE: " + address(m) + `: doing it: the server says "INSERT command denied to user 'u'@'localhost' for table`,
				"(error 1142); GRANT SELECT, INSERT ON d.* TO 'u'@'localhost'",
			},
		},
		{"no right to set", u, "SET GLOBAL max_connections = 7", sysexits.NoPerm, []string{"(error 1227); see which with SHOW GRANTS"}},
		{"no right to call", w, "CALL other.p()", sysexits.NoPerm, []string{"(error 1370); GRANT"}},
		{
			"no database",
			[]string{host, "user = root", "dbname = missing-db"},
			"SELECT 1", sysexits.Config,
			[]string{`there is no database "missing-db"; CREATE DATABASE ` + "`missing-db`" + ` CHARACTER SET utf8mb4, or correct dbname in FILE`},
		},
		{"no table", u, "SELECT * FROM missing", sysexits.Unavailable, []string{"doing it: ", "d.missing", "(error 1146)"}},
		{
			"too long", w, "SELECT '" + strings.Repeat("x", 2<<20) + "'", sysexits.Config,
			[]string{"doing it: a statement is longer than the server takes; raise max_allowed_packet there"},
		},
		{"a mistake of ours", u, "SELEC\x1b[31mT\n1", sysexits.Bug, []string{"(error 1064)"}},
		{"fine", u, "SELECT 1", 0, nil},
		{"unix socket", []string{"hosts = unix:" + m.Socket, "user = w", "password = secret", "dbname = d"}, "SELECT 1", 0, nil},
		{"ed25519", []string{host, "user = ed", "password = secret", "dbname = d"}, "SELECT 1", 0, nil},
		{
			"option file", []string{
				"option_file = " + write(t, "my.cnf", "[client]\nuser=w\npassword=secret\nsocket="+m.Socket+"\n"), "dbname = d",
			}, "SELECT 1", 0, nil,
		},
		{
			"nobody listens",
			[]string{"hosts = 127.0.0.1:1 unix:/nonexistent/s", "user = u", "password = secret", "dbname = d"},
			"SELECT 1", sysexits.Unavailable,
			[]string{"FILE: 127.0.0.1:1: connection refused; unix:/nonexistent/s: there is no such socket; is the server running?"},
		},
		{
			"no such host",
			[]string{"hosts = no-such-host.invalid", "user = u", "dbname = d"},
			"SELECT 1", sysexits.Unavailable,
			[]string{`no-such-host.invalid:3306: `, `"no-such-host.invalid"`, "see to hosts in FILE"},
		},
		{
			"one dead, one refuses",
			[]string{"hosts = 127.0.0.1:1 " + address(m), "user = u", "password = secretly", "dbname = d"},
			"SELECT 1", sysexits.Unavailable,
			[]string{"127.0.0.1:1: connection refused; " + address(m) + ": the server refuses 'u'@'localhost'"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := cf(t, tt.cf...)
			err := try(t, path, tt.statement)
			if sysexits.Status(err) != tt.status {
				t.Errorf("status %d, want %d: %v", sysexits.Status(err), tt.status, err)
			}
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(want, "FILE", path)) {
					t.Errorf("%v\nwant %s", err, want)
				}
			}
			if err != nil && (strings.ContainsAny(err.Error(), "\n\x1b") || strings.Contains(err.Error(), "secret")) {
				t.Errorf("%q", err)
			}
		})
	}

	t.Run("too many sessions", func(t *testing.T) {
		cfg, err := ReadFile(cf(t, host, "user = few", "password = secret", "dbname = d"))
		if err != nil {
			t.Fatal(err)
		}
		opt, _ := brisk()
		p := open(t, cfg, opt)
		first := conn(t, p, address(m))
		_, err = p.Conn(context.Background())
		if sysexits.Status(err) != sysexits.TryAgain || !Again(err) || Lost(err) || Code(err) != codeUserLimit && Code(err) != codeUserConns {
			t.Errorf("%v: again %v, lost %v, code %d", err, Again(err), Lost(err), Code(err))
		}
		_ = first.Close()
		until(t, "room", func() bool {
			c, err := p.Conn(context.Background())
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
	})

	t.Run("locks", func(t *testing.T) {
		cfg, err := ReadFile(cf(t, w...))
		if err != nil {
			t.Fatal(err)
		}
		opt, _ := brisk()
		opt.Read = patience
		p := open(t, cfg, opt)
		a, b := conn(t, p, address(m)), conn(t, p, address(m))
		defer a.Close()
		defer b.Close()
		for _, c := range []*Conn{a, b} {
			if err := run(c, "BEGIN"); err != nil {
				t.Fatal(err)
			}
		}
		if err := run(a, "INSERT INTO t VALUES (7)"); err != nil {
			t.Fatal(err)
		}
		err = run(b, "INSERT INTO t VALUES (7)")
		word := b.Word(err, "")
		if !Again(err) || Lost(err) || Code(err) != codeLockWait || sysexits.Status(word) != sysexits.TryAgain {
			t.Errorf("%v", word)
		}
	})

	t.Run("killed by the administrator", func(t *testing.T) {
		cfg, err := ReadFile(cf(t, w...))
		if err != nil {
			t.Fatal(err)
		}
		opt, _ := brisk()
		p := open(t, cfg, opt)
		c := conn(t, p, address(m))
		defer c.Close()
		m.SQL("KILL " + one(t, c, "SELECT CONNECTION_ID()"))
		err = run(c, "SELECT 1")
		if !Lost(err) || sysexits.Status(c.Word(err, "")) != sysexits.TryAgain {
			t.Errorf("%v", err)
		}
		_ = conn(t, p, address(m)).Close()
	})

	// The last one: it takes root's other rights away.
	t.Run("account of the system", func(t *testing.T) {
		account := "`" + login(t) + "`@localhost"
		m.SQL("CREATE OR REPLACE USER " + account + " IDENTIFIED VIA unix_socket; GRANT SELECT ON d.* TO " + account)
		if err := try(t, cf(t, "hosts = unix:"+m.Socket, "dbname = d"), "SELECT * FROM t"); err != nil {
			t.Error(err)
		}
	})
}

func TestRightsOfTheFile(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	path := cf(t, "dbname = d")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); sysexits.Status(err) != sysexits.NoPerm {
		t.Errorf("%v", err)
	}
}

// login is the name of the account that runs the test.
func login(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

func TestReadOnlyServer(t *testing.T) {
	a, b := peer.StartMariaDB(t, "--read-only"), peer.StartMariaDB(t)
	for _, m := range []*peer.MariaDB{a, b} {
		m.SQL("CREATE DATABASE d; CREATE TABLE d.t (x INT); CREATE USER u@'%' IDENTIFIED BY 'secret'; GRANT ALL ON d.* TO u@'%'")
	}
	only := cf(t, "hosts = "+address(a), "user = u", "password = secret", "dbname = d")
	err := try(t, only, "INSERT INTO t VALUES (1)")
	if sysexits.Status(err) != sysexits.Unavailable || Code(err) != codeOption || !Again(err) || Lost(err) ||
		!strings.Contains(err.Error(), "it is read-only: name the server that takes writes first in hosts in "+only) {
		t.Errorf("%v: code %d, again %v, lost %v", err, Code(err), Again(err), Lost(err))
	}
	writable := func(o *Options) { o.Writable = true }
	err = try(t, only, "INSERT INTO t VALUES (1)", writable)
	if sysexits.Status(err) != sysexits.Unavailable || Code(err) != codeReadOnly || !Again(err) || !strings.Contains(err.Error(), "it is read-only") {
		t.Errorf("%v", err)
	}
	two := cf(t, "hosts = "+address(a)+" "+address(b), "user = u", "password = secret", "dbname = d")
	if err := try(t, two, "INSERT INTO t VALUES (1)", writable); err != nil {
		t.Error(err)
	}
	if got := b.SQL("SELECT count(*) FROM d.t"); got != "1\n" {
		t.Errorf("%s rows on the server that takes writes", got)
	}

	// What becomes writable is used again.
	cfg, err := ReadFile(two)
	if err != nil {
		t.Fatal(err)
	}
	opt, _ := brisk()
	opt.Writable = true
	p := open(t, cfg, opt)
	_ = conn(t, p, address(b)).Close()
	a.SQL("SET GLOBAL read_only = 0")
	until(t, "failback", func() bool { return p.Hosts()[0].Active })
	// And what stops to be is left.
	a.SQL("SET GLOBAL read_only = 1")
	until(t, "failover", func() bool { return p.Hosts()[1].Active })
}

func TestTLS(t *testing.T) {
	dir := certificates(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	m := peer.StartMariaDB(t, "--ssl-ca="+file("ca.pem"), "--ssl-cert="+file("srv.pem"), "--ssl-key="+file("srv.key"))
	m.SQL(`CREATE DATABASE d; CREATE USER u@'%' IDENTIFIED BY 'secret' REQUIRE SSL; GRANT ALL ON d.* TO u@'%';
		CREATE USER x@'%' IDENTIFIED BY 'secret' REQUIRE X509; GRANT ALL ON d.* TO x@'%'`)
	ca, other := "tls_CAfile = "+file("ca.pem"), "tls_CAfile = "+file("other.pem")
	number := "hosts = " + address(m)
	for _, tt := range []struct {
		what  string
		lines []string
		want  string // "" is success
	}{
		{"verified", []string{ca, "tls_verify_cert = yes"}, ""},
		{"a name of the certificate's own", []string{ca, "tls_verify_cert = no"}, ""},
		{"encrypted only", []string{"tls_ciphers = ECDHE-RSA-AES128-GCM-SHA256"}, ""},
		{"another CA", []string{other}, "see to tls_CAfile in "},
		{"another CA, verified", []string{other, "tls_verify_cert = yes"}, "see to tls_CAfile in "},
		{"the system's CAs", []string{"tls_verify_cert = yes"}, "see to tls_CAfile in "},
		{"CA directory", []string{"tls_CApath = " + file("cas"), "tls_verify_cert = yes"}, ""},
		{"none", nil, "the server refuses 'u'@'localhost'"},
		{"own certificate", []string{ca, "tls_cert_file = " + file("cli.pem"), "tls_key_file = " + file("cli.key"), "user = x"}, ""},
		{"no certificate of our own", []string{ca, "user = x"}, "the server refuses 'x'@'localhost'"},
		{"no such CA", []string{"tls_CAfile = /nonexistent"}, "tls_CAfile: open /nonexistent"},
		{"no CA in it", []string{"tls_CAfile = " + file("srv.key")}, "no certificate in it"},
		{"no directory", []string{"tls_CApath = /nonexistent"}, "tls_CApath: open /nonexistent"},
		{"no key", []string{"tls_cert_file = " + file("cli.pem")}, "tls_cert_file, tls_key_file"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			lines := append([]string{number, "user = u", "password = secret", "dbname = d"}, tt.lines...)
			err := try(t, cf(t, lines...), "SELECT 1")
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err != nil && sysexits.Status(err) != sysexits.Config && Code(err) != codeAccess || Lost(err) || Again(err) {
				t.Errorf("%v: status %d, lost %v, again %v", err, sysexits.Status(err), Lost(err), Again(err))
			}
		})
	}

	t.Run("another name", func(t *testing.T) {
		cfg := &Config{TLS: true, TLSVerify: true, TLSCAFile: file("ca.pem")}
		tc, err := cfg.tlsConfig()
		if err != nil {
			t.Fatal(err)
		}
		if got := forHost(tc, "tcp", "db1.example:3306").ServerName; got != "db1.example" {
			t.Errorf("server name %q", got)
		}
		if forHost(tc, "unix", "/s") != nil {
			t.Error("TLS on a unix socket")
		}
	})

	t.Run("a certificate without our name for it", func(t *testing.T) {
		m := peer.StartMariaDB(t, "--ssl-ca="+file("ca.pem"), "--ssl-cert="+file("cli.pem"), "--ssl-key="+file("cli.key"))
		m.SQL("CREATE DATABASE d")
		lines := []string{"hosts = " + address(m), "user = root", "dbname = d", ca}
		if err := try(t, cf(t, lines...), "SELECT 1"); err != nil {
			t.Error(err)
		}
		err := try(t, cf(t, append(lines, "tls_verify_cert = yes")...), "SELECT 1")
		if err == nil || !strings.Contains(err.Error(), "name the host in hosts as its certificate does") || sysexits.Status(err) != sysexits.Config {
			t.Error(err)
		}
	})

	t.Run("a server without TLS", func(t *testing.T) {
		m := peer.StartMariaDB(t, "--skip-ssl")
		m.SQL("CREATE DATABASE d")
		err := try(t, cf(t, "hosts = "+address(m), "user = root", "dbname = d", ca), "SELECT 1")
		if err == nil || !strings.Contains(err.Error(), "TLS: the server has none") || Lost(err) || sysexits.Status(err) != sysexits.Config {
			t.Errorf("%v", err)
		}
	})
}

// certificates makes a CA, a server's and a client's certificate, and another
// CA.
func certificates(t *testing.T) string {
	t.Helper()
	peer.Need(t, "openssl")
	dir := t.TempDir()
	script := `set -e
		for ca in ca other; do
			openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$ca" -keyout $ca.key -out $ca.pem
		done
		printf 'subjectAltName=IP:127.0.0.1\n' >srv.ext
		: >cli.ext
		for c in srv cli; do
			openssl req -newkey rsa:2048 -nodes -subj "/CN=$c" -keyout $c.key -out $c.csr
			openssl x509 -req -in $c.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $c.ext -out $c.pem
		done
		mkdir cas; cp ca.pem other.pem srv.key cas`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	return dir
}
