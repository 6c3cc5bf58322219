package mysqlpool

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/config"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// write makes a file of mode 0600 and returns its path.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHosts(t *testing.T) {
	socket := defaultSocket()
	for in, want := range map[string]string{
		"":                         socket,
		"localhost":                socket,
		"inet:localhost":           socket,
		"localhost:3307":           socket,
		"unix:/a/b.sock":           "unix:/a/b.sock",
		"db1":                      "db1:3306",
		"db1:3307":                 "db1:3307",
		"inet:db1:3307":            "db1:3307",
		"inet:db1":                 "db1:3306",
		"127.0.0.1":                "127.0.0.1:3306",
		"[2001:db8::1]":            "[2001:db8::1]:3306",
		"[2001:db8::1]:3307":       "[2001:db8::1]:3307",
		"inet:[2001:db8::1]:3307":  "[2001:db8::1]:3307",
		"2001:db8::1":              "[2001:db8::1]:3306",
		"db1 db2, db3,\tdb4:1":     "db1:3306 db2:3306 db3:3306 db4:1",
		"db_1.example.com:65535":   "db_1.example.com:65535",
		"db1, unix:/s, localhost":  "db1:3306 unix:/s " + socket,
		"unix:s":                   "!absolute",
		"unix:":                    "!absolute",
		"db1:0":                    "!65535",
		"db1:65536":                "!65535",
		"db1:x":                    "!65535",
		"[::1":                     "!]",
		"[::1]3306":                "!:",
		"[db1]:3306":               "db1:3306",
		"a:b:c":                    "!IPv6",
		"db%1":                     "!host name",
		"-x":                       "!host name",
		"tcp:3306":                 "tcp:3306",
		"inet:":                    "!host name",
		strings.Repeat("a ", 33):   "!at most 32",
		strings.Repeat("a", 256):   "!host name",
		"user:secret@db1:3306":     "!IPv6",
		"mysql://user:pw@db1:3306": "!IPv6",
	} {
		c, err := ReadFile(write(t, "x.cf", "dbname = d\nhosts = "+in+"\n"))
		if bad, ok := strings.CutPrefix(want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), "x.cf:2: hosts: ") ||
				sysexits.Status(err) != sysexits.Config {
				t.Errorf("%q: %v, want an error with %q", in, err, bad)
			}
			continue
		}
		if err != nil || strings.Join(c.Hosts, " ") != want {
			t.Errorf("%q: %v, %v, want %s", in, c, err, want)
		}
	}
}

func TestReadFile(t *testing.T) {
	got, err := ReadFile(write(t, "x.cf", `
# as Postfix has it
hosts = db1, unix:/run/s
user = u
password = p w
dbname = d
query = SELECT 1
result_format = %s
idle_interval = 90
retry_interval = 2m
tls_CAfile = /ca.pem
tls_key_file = /key.pem
tls_verify_cert = yes
snapshot_query = SELECT 2
`), "snapshot_query")
	if err != nil {
		t.Fatal(err)
	}
	got.Path = ""
	want := &Config{
		Hosts: []string{"db1:3306", "unix:/run/s"}, User: "u", Password: "p w", DBName: "d", Charset: "utf8mb4",
		TLS: true, TLSVerify: true, TLSCAFile: "/ca.pem", TLSKeyFile: "/key.pem", TLSCertFile: "/key.pem",
		Idle: 90 * time.Second, Retry: 2 * time.Minute,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestWarnings(t *testing.T) {
	path := write(t, "x.cf", "dbname = d\npasswort = x\npassword = y\nuser = a\nuser = b\ncharset = latin1\ntls_ciphers = HIGH\n")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`x.cf:5: "user" is set a second time`,
		`x.cf:2: "passwort" is no parameter of mysql_table(5); did you mean password?`,
		`x.cf: charset "latin1" is not used`,
		`x.cf: tls_ciphers "HIGH" names no suite`,
		`x.cf: holds a password and everybody may read it; chmod o= ` + path,
	}
	for i, w := range want {
		if i >= len(c.Warnings) || !strings.HasPrefix(c.Warnings[i], w) {
			t.Fatalf("got %q\nwant %q", c.Warnings, want)
		}
	}
	if len(c.Warnings) != len(want) || c.User != "b" {
		t.Errorf("got %q, user %s", c.Warnings, c.User)
	}
}

func TestFileErrors(t *testing.T) {
	for in, want := range map[string]string{
		"hosts = a\n":                                 "x.cf: dbname is missing",
		"dbname =\n":                                  "x.cf: dbname is missing",
		"virt_hosts = a\nvirt_dbname = d\n":           `x.cf:2: "virt_dbname" is the obsolete form of main.cf`,
		"dbname = d\ntls_verify_cert = perhaps\n":     `x.cf:2: tls_verify_cert: "perhaps": want yes or no`,
		"dbname = d\nidle_interval = 0\n":             `x.cf:2: idle_interval: "0": want 1 second`,
		"dbname = d\nretry_interval = -1\n":           `x.cf:2: retry_interval: "-1"`,
		"dbname = d\nretry_interval = 2w\n":           `x.cf:2: retry_interval: "2w": want 1 second`,
		"dbname = d\noption_file = /nonexistent/my\n": "option_file: open /nonexistent/my: no such file",
		"dbname\n": "x.cf:1:",
		"dbname = d\noption_file = " + os.DevNull + "\n": "",
	} {
		_, err := ReadFile(write(t, "x.cf", in))
		if (err == nil) != (want == "") || err != nil && (!strings.HasPrefix(err.Error(), want) || sysexits.Status(err) != sysexits.Config) {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
	for _, path := range []string{"mysql:/etc/x.cf", "proxy:mysql:/etc/x.cf"} {
		if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), "want the path of the file alone") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := ReadFile("/nonexistent/x.cf"); sysexits.Status(err) != sysexits.Config {
		t.Errorf("missing file: %v", err)
	}
}

func TestOptionFile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"conf.d/b.cnf":    "[client]\nport = 3308\n",
		"conf.d/skip.txt": "[client]\nport = 1\n",
		"more":            "[client]\nssl_ca=/more.pem\n",
	} {
		path := filepath.Join(dir, name)
		_ = os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, cf, cnf string
		want          Config
	}{
		{
			"client", "", "[client]\nuser=u\npassword = 'a # b'\nhost=h\nport=3307\nsocket=/s\nssl-verify-server-cert\n",
			Config{User: "u", Password: "a # b", Hosts: []string{"h:3307"}, TLS: true, TLSVerify: true},
		},
		{
			"the file itself wins", "user = v\npassword = q\nhosts = db1 db2:1 localhost\ntls_verify_cert = no\n",
			"[client]\nuser=u\npassword=p\nhost=h\nport=3307\nsocket=/s\nssl-verify-server-cert=1\n",
			Config{User: "v", Password: "q", Hosts: []string{"db1:3307", "db2:1", "unix:/s"}, TLS: true},
		},
		{
			"a group of its own after client, wherever it stands", "option_group = rol\n",
			"[rol]\nuser=r\n[client]\nuser=c\npassword=p\nsocket=/s\n[mysqld]\nuser=mysql\nport=x\n",
			Config{User: "r", Password: "p", Hosts: []string{"unix:/s"}},
		},
		{"an empty group reads nothing", "option_group =\nhosts = h\n", "[client]\nuser=c\n", Config{Hosts: []string{"h:3306"}}},
		{
			"quotes, escapes, comments", "hosts = h\n",
			"; a comment\n[client] # another\nuser = \"x\\ty\" # and one\npassword=a\\sb\\\\c\\d#e\nno-beep\n",
			Config{User: "x\ty", Password: `a b\c\d`, Hosts: []string{"h:3306"}},
		},
		{
			"includes", "hosts = h\n", "!includedir " + dir + "/conf.d\n!include " + dir + "/more\n[client]\nloose_user=u\n",
			Config{User: "u", Hosts: []string{"h:3308"}, TLS: true, TLSCAFile: "/more.pem"},
		},
		{"modes", "hosts = h\n", "[client]\nssl-mode=VERIFY_IDENTITY\n", Config{Hosts: []string{"h:3306"}, TLS: true, TLSVerify: true}},
		{"off again", "hosts = h\n", "[client]\nssl\nskip-ssl\n", Config{Hosts: []string{"h:3306"}}},
	} {
		cnf := write(t, "my.cnf", tt.cnf)
		c, err := ReadFile(write(t, "x.cf", "dbname = d\noption_file = "+cnf+"\n"+tt.cf))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		tt.want.DBName, tt.want.Charset, c.Path = "d", "utf8mb4", ""
		if !reflect.DeepEqual(*c, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, *c, tt.want)
		}
	}
	loop := write(t, "loop", "")
	_ = os.WriteFile(loop, []byte("!include "+loop), 0o600)
	for cnf, want := range map[string]string{
		write(t, "my.cnf", "[client]\nport=x\n"):         "my.cnf:2: port:",
		write(t, "my.cnf", "[client]\nsocket=s\n"):       "my.cnf:2: socket:",
		write(t, "my.cnf", "[client]\nssl-mode=maybe\n"): "my.cnf:2: ssl-mode:",
		write(t, "my.cnf", "[client\n"):                  "my.cnf:1:",
		write(t, "my.cnf", "!inc\n"):                     "my.cnf:1:",
		write(t, "my.cnf", "[client]\nhost=a%b\n"):       "host:",
		loop: "include each other",
	} {
		_, err := ReadFile(write(t, "x.cf", "dbname = d\noption_file = "+cnf+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) || sysexits.Status(err) != sysexits.Config {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Whatever the bytes: no panic, one clean line for an error, and hosts that
// can be dialled.
func FuzzFile(f *testing.F) {
	f.Add([]byte("hosts = db1, [::1]:3307 unix:/s\nuser = u\ndbname = d\n"), []byte("[client]\nuser = 'x'\nssl-mode=REQUIRED\n"))
	f.Add([]byte("dbname = d\ntls_verify_cert = yes\ntls_ciphers = A:B\n"), []byte("!x\n[a]\nport=1 # x\n"))
	f.Fuzz(func(t *testing.T, cf, cnf []byte) {
		file, err := config.Parse("x.cf", cf)
		if err != nil {
			return
		}
		for i := range file.Entries {
			if file.Entries[i].Name == "option_file" {
				return // of the fuzzer's choice
			}
		}
		c, err := fromFile(file, nil)
		var o options
		p := anOptionFile(&o)
		oerr := p.parse(string(cnf))
		for _, err := range []error{err, oerr} {
			if err != nil && (strings.ContainsAny(err.Error(), "\n\x00\x1b") || sysexits.Status(err) != sysexits.Config) {
				t.Errorf("%q", err)
			}
		}
		if err != nil {
			return
		}
		for _, h := range c.Hosts {
			netw, addr := network(h)
			if netw == "tcp" && strings.HasSuffix(addr, ":") || addr == "" {
				t.Errorf("host %q", h)
			}
		}
	})
}

func anOptionFile(o *options) *cnf {
	return &cnf{o: o, path: "my.cnf", groups: []string{"client", "rol"}, include: func(string) error { return nil }}
}
