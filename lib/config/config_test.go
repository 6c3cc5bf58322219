package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/config"
	"github.com/rolmail/rolmail/lib/sysexits"
)

func TestSyntax(t *testing.T) {
	type entries = []config.Entry
	for _, tt := range []struct {
		name, in string
		want     entries
		err      string
	}{
		{"empty", "", nil, ""},
		{"comments and empty lines", "# a\n\n  # b\n \t\n", nil, ""},
		{"plain", "a = b\n", entries{{"a", "b", 1}}, ""},
		{"no newline at the end", "a = b", entries{{"a", "b", 1}}, ""},
		{"no spaces", "a=b\nc=d=e", entries{{"a", "b", 1}, {"c", "d=e", 2}}, ""},
		{"empty value", "a =\nb=", entries{{"a", "", 1}, {"b", "", 2}}, ""},
		{"white space", "a  \t=  b  c \t\r\n", entries{{"a", "b  c", 1}}, ""},
		{"# is a comment at the start of a line only", "a = b # c", entries{{"a", "b # c", 1}}, ""},
		{"continuation", "a =\n  b,\n\tc\nd = e", entries{{"a", "b, c", 1}, {"d", "e", 4}}, ""},
		{"continuation over comments", "a = b\n\n# x\n  # y\n  c\n", entries{{"a", "b c", 1}}, ""},
		{"no expansion, no quotes", `a = $b "c"`, entries{{"a", `$b "c"`, 1}}, ""},
		{"byte order mark", "\ufeffa = b", entries{{"a", "b", 1}}, ""},
		{"not ASCII", "a = Bözen\xff", entries{{"a", "Bözen\xff", 1}}, ""},
		{
			"mysql_table(5)", "hosts = inet:db1 unix:/run/my.sock\nquery = SELECT a\n FROM t WHERE b='%s'\n",
			entries{{"hosts", "inet:db1 unix:/run/my.sock", 1}, {"query", "SELECT a FROM t WHERE b='%s'", 2}},
			"",
		},
		{"no =", "a = b\n\nnonsense\n", nil, `rol.cf:3: "nonsense": want name = value`},
		{"no = in a long line", "x" + strings.Repeat("y", 500), nil, `rol.cf:1: "x` + strings.Repeat("y", 59) + `": want name = value`},
		{"no name", " # c\n= b", nil, `rol.cf:2: a name is missing before "="`},
		{"two names", "a b = c", nil, `rol.cf:1: "a ...": white space in a name; want name = value`},
		{"nothing to continue", "# c\n  a = b", nil, "rol.cf:2: continuation line (leading white space) with nothing to continue"},
		{"error in a line before its continuation's", "a\n b\nc = d", nil, `rol.cf:1: "a ...": want name = value`},
		{"NUL", "a = b\nc = \x00", nil, `rol.cf:2: control character '\x00': only text is allowed here`},
		{"escape", "a = \x1b[0m", nil, `rol.cf:1: control character '\x1b': only text is allowed here`},
		{"too long", strings.Repeat("#", config.MaxSize+1), nil, "/etc/rol/rol.cf: longer than 1048576 bytes: this is no configuration file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := config.Parse("/etc/rol/rol.cf", []byte(tt.in))
			if tt.err != "" {
				if err == nil || err.Error() != tt.err || sysexits.Status(err) != 78 {
					t.Fatalf("error %v, status %d, want %s", err, sysexits.Status(err), tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(f.Entries, tt.want) {
				t.Errorf("got  %+v\nwant %+v", f.Entries, tt.want)
			}
		})
	}
}

func TestAnyNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "my.cf")
	if err := os.WriteFile(path, []byte("user = a\npassword = p#ss = word\nuser = b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := config.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := f.Lookup("user"); v != "b" || !ok {
		t.Errorf("user = %q, %v", v, ok)
	}
	if v, _ := f.Lookup("password"); v != "p#ss = word" {
		t.Errorf("password = %q", v)
	}
	if v, ok := f.Lookup("dbname"); v != "" || ok {
		t.Errorf("dbname = %q, %v", v, ok)
	}
	if want := []string{`my.cf:3: "user" is set a second time (first in line 1); the last one counts`}; !slices.Equal(f.Warnings, want) {
		t.Errorf("warnings %q", f.Warnings)
	}
	if _, err = config.ReadFile(path + ".none"); sysexits.Status(err) != 78 {
		t.Errorf("missing file: %v", err)
	}
	if _, err = config.ReadFile(t.TempDir()); sysexits.Status(err) != 78 {
		t.Errorf("a directory: %v", err)
	}
}

var schema = config.Schema{
	{Name: "t_text", Type: config.String, Default: "x y"},
	{Name: "t_number", Type: config.Int, Default: "-3"},
	{Name: "t_switch", Type: config.Bool, Default: "no"},
	{Name: "t_time", Type: config.Duration, Default: "5d"},
	{Name: "t_size", Type: config.Size, Default: "64k"},
	{Name: "t_list", Type: config.List},
	{Name: "t_nets", Type: config.Networks, Default: "127.0.0.1"},
	{Name: "t_zone", Type: config.Zone},
}

func values(c *config.Config) []any {
	return []any{
		c.String("t_text"), c.Int("t_number"), c.Bool("t_switch"), c.Duration("t_time"), c.Size("t_size"),
		c.List("t_list"), c.Networks("t_nets"), c.Zone("t_zone").String(),
	}
}

func TestValues(t *testing.T) {
	c, err := schema.Parse("x.cf", nil)
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	want := []any{
		"x y", int64(-3), false, 5 * day, int64(65536),
		[]string{},
		[]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		time.Local.String(),
	}
	if got := values(c); !reflect.DeepEqual(got, want) {
		t.Errorf("defaults\n%v\nwant\n%v", got, want)
	}
	c, err = schema.Parse("x.cf", []byte("t_text =\nt_number = 7\nt_switch = Yes\nt_time = 1w2d3h4m5s\nt_size = 2G\n"+
		"t_list = a, b\tc,,d\nt_nets = 10.0.0.0/8 2001:db8::/32\nt_zone = Europe/Rome\n"))
	if err != nil {
		t.Fatal(err)
	}
	want = []any{
		"", int64(7), true, 9*day + 3*time.Hour + 4*time.Minute + 5*time.Second, int64(2 << 30),
		[]string{"a", "b", "c", "d"},
		[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")},
		"Europe/Rome",
	}
	if got := values(c); !reflect.DeepEqual(got, want) {
		t.Errorf("from a file\n%v\nwant\n%v", got, want)
	}
	if !c.IsSet("t_text") || c.Raw("t_time") != "1w2d3h4m5s" {
		t.Error("IsSet or Raw is wrong")
	}
	for name, f := range map[string]func(){
		"an undeclared name": func() { c.String("t_none") },
		"another type":       func() { c.Int("t_text") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestWrongValues(t *testing.T) {
	for in, want := range map[string]string{
		"t_txet = 1":                         `x.cf:1: unknown parameter "t_txet"; did you mean t_text?`,
		"other = 1":                          `x.cf:1: unknown parameter "other"; rol.cf(5) lists those there are`,
		"T-Text = 1":                         `x.cf:1: unknown parameter "T-Text"; did you mean t_text?`,
		"t_text = 1\n\nt_text = 1":           "x.cf:3: t_text is set a second time: keep one of the lines",
		"t_number = 1.5":                     `x.cf:1: t_number: "1.5": want a number`,
		"t_number =":                         `x.cf:1: t_number: "": want a number`,
		"t_switch = 1":                       `x.cf:1: t_switch: "1": want yes or no`,
		"t_time = 5":                         `x.cf:1: t_time: "5": want a time with a unit, such as 30s, 10m, 1h30m, 5d or 2w`,
		"t_time = h":                         `x.cf:1: t_time: "h": want a time with a unit, such as 30s, 10m, 1h30m, 5d or 2w`,
		"t_time = -5m":                       `x.cf:1: t_time: "-5m": want a time with a unit, such as 30s, 10m, 1h30m, 5d or 2w`,
		"t_time = 99999999999w":              `x.cf:1: t_time: "99999999999w": too long a time`,
		"t_time = 15000w 1w":                 `x.cf:1: t_time: "15000w 1w": want a time with a unit, such as 30s, 10m, 1h30m, 5d or 2w`,
		"t_time = 15000w400w":                `x.cf:1: t_time: "15000w400w": too long a time`,
		"t_size = 5x":                        `x.cf:1: t_size: "5x": want a size, such as 4096, 64k, 10M or 2G`,
		"t_size = -1":                        `x.cf:1: t_size: "-1": want a size, such as 4096, 64k, 10M or 2G`,
		"t_size = 99999999T":                 `x.cf:1: t_size: "99999999T": want a size, such as 4096, 64k, 10M or 2G`,
		"t_nets = localhost":                 `x.cf:1: t_nets: "localhost": want a network such as 192.0.2.0/24 or 2001:db8::/32`,
		"t_nets = 10.0.0.0/8,\n  10.0.0.1/8": `x.cf:1: t_nets: "10.0.0.1/8": the address has bits beyond its mask; did you mean 10.0.0.0/8?`,
		"t_nets = fe80::1%eth0":              `x.cf:1: t_nets: "fe80::1%eth0": want a network such as 192.0.2.0/24 or 2001:db8::/32`,
		"t_zone = Middle/Earth":              `x.cf:1: t_zone: "Middle/Earth": no such time zone; want a name such as Europe/Rome or UTC`,
		"t_zone = ../../etc/passwd":          `x.cf:1: t_zone: "../../etc/passwd": no such time zone; want a name such as Europe/Rome or UTC`,
	} {
		_, err := schema.Parse("/some/x.cf", []byte(in))
		if err == nil || err.Error() != want || sysexits.Status(err) != 78 {
			t.Errorf("%q: error %v, status %d\nwant %s", in, err, sysexits.Status(err), want)
		}
	}
}

func TestKnownParameters(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range config.Known {
		if seen[p.Name] || p.Doc == "" || !strings.Contains(p.Name, "_") {
			t.Errorf("%q: declared twice, without words or without its tool's name", p.Name)
		}
		seen[p.Name] = true
		if _, err := config.Known.Parse("x.cf", []byte(p.Name+" = "+p.Default)); err != nil {
			t.Errorf("default of %s: %v", p.Name, err)
		}
	}
	for in, ok := range map[string]bool{
		"maillog_filter_relays = 127.0.0.1:10024, [::1]:10024 mf1.example:10024": true,
		"maillog_filter_relays = 127.0.0.1":                                      false,
		"maillog_filter_relays = a:1, b:0":                                       false,
		"maillog_filter_relays = :10024":                                         false,
		"maillog_db =":                                                           false,
		"maillog_timezone = Europe/Rome":                                         true,
		"maillog_own_networks =":                                                 true,
	} {
		if _, err := config.Known.Parse("x.cf", []byte(in)); (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestLoad(t *testing.T) {
	if _, err := os.Stat(config.DefaultPath); os.IsNotExist(err) {
		c, err := config.Load("")
		if err != nil || c.Path != "" || c.String("maillog_db") != "sqlite:/var/lib/rol/maillog.db" {
			t.Errorf("without the default file: %v", err)
		}
	}
	path := filepath.Join(t.TempDir(), "rol.cf")
	if _, err := config.Load(path); sysexits.Status(err) != 78 || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("maillog_db = /x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil || c.Path != path || c.String("maillog_db") != "/x" {
		t.Errorf("%+v, %v", c, err)
	}
	if os.Getuid() != 0 {
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(path); sysexits.Status(err) != 77 {
			t.Errorf("unreadable file: %v", err)
		}
	}
}

// Whatever the bytes: no panic, and a file that was understood means the same
// when it is written plainly, one parameter a line.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a = b\n c\n#\n\n d", "a=", " x", "\ufeffa\t=\r\n", "maillog_db = x\nmaillog_timezone = UTC"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = config.Known.Parse("x.cf", data)
		first, err := config.Parse("x.cf", data)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00\x1b") {
				t.Errorf("error is not one clean line: %q", err)
			}
			return
		}
		var plain strings.Builder
		for _, e := range first.Entries {
			plain.WriteString(e.Name + " = " + e.Value + "\n")
		}
		again, err := config.Parse("x.cf", []byte(plain.String()))
		if err != nil {
			t.Fatalf("%q, written as %q: %v", data, plain.String(), err)
		}
		for i := range first.Entries {
			first.Entries[i].Line, again.Entries[i].Line = 0, 0
		}
		if !slices.Equal(first.Entries, again.Entries) {
			t.Errorf("%+v became %+v", first.Entries, again.Entries)
		}
	})
}

func FuzzDuration(f *testing.F) {
	f.Add("1h30m")
	f.Add("9223372036w")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := config.ParseDuration(s); err == nil && d < 0 {
			t.Errorf("%q is %v", s, d)
		}
		if n, err := config.ParseSize(s); err == nil && n < 0 {
			t.Errorf("%q is %d bytes", s, n)
		}
	})
}
