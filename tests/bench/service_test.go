package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/logpipe"
	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/tests/copylog"
	"github.com/rolmail/rolmail/tests/peer"
)

const childEnv = "ROL_BENCH_CHILD"

func TestMain(m *testing.M) {
	if file := os.Getenv(childEnv); file != "" {
		if err := peer.LeastChild(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(peer.Run(m))
}

// benchLines is how many lines the benchmarks have.
func benchLines(b *testing.B) int {
	n, err := number("BENCH_LINES", 1_000_000)
	check(b, err)
	return n
}

func check(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// generatedLog writes a log of the lab's mails.
func generatedLog(b *testing.B, lines int) string {
	b.Helper()
	name := filepath.Join(b.TempDir(), "mail.log")
	t, err := copylog.Read(filepath.Join(peer.Root(b), "tests", "lab", "testdata", "lab-a.log"))
	check(b, err)
	f, err := os.Create(name)
	check(b, err)
	defer f.Close()
	check(b, t.Write(f, lines, false))
	return name
}

// BenchmarkMariaDBReplay reads a log into an empty MariaDB, and then has the
// server load the same rows from a file, into tables of the same form.
func BenchmarkMariaDBReplay(b *testing.B) {
	lines := benchLines(b)
	log, program := generatedLog(b, lines), peer.Program(b, "rol-logpipe")
	db := peer.StartMariaDB(b)
	var ours, bare time.Duration
	n, rss := 0, int64(0)
	for b.Loop() {
		n++
		name := fmt.Sprint("replay", n)
		u, err := run(false, nil, program, "--db", "mysql:"+db.CF(name), log)
		check(b, err)
		ours += u.wall
		rss = max(rss, u.rss)
		bare += bareLoad(b, db, name)
		db.SQL("DROP DATABASE " + name)
	}
	b.ReportMetric(float64(n*lines)/ours.Seconds(), "lines/s")
	b.ReportMetric(float64(n*lines)/bare.Seconds(), "bare-lines/s")
	b.ReportMetric(bare.Seconds()/ours.Seconds(), "ratio-to-bare")
	b.ReportMetric(float64(rss)/1e6, "MB-peak")
}

// bareLoad is how long LOAD DATA takes for the rows of a database.
func bareLoad(b *testing.B, db *peer.MariaDB, name string) (took time.Duration) {
	b.Helper()
	tables := strings.Fields(db.SQL("SELECT table_name FROM information_schema.tables WHERE table_schema = '" + name +
		"' AND table_name REGEXP '^maillog_[0-9]+$'"))
	if len(tables) == 0 {
		b.Fatalf("no day tables in %s", name)
	}
	for _, t := range tables {
		file := filepath.Join(db.Dir, name+t)
		db.SQL(fmt.Sprintf("SELECT * INTO OUTFILE '%s' CHARACTER SET binary FROM %s.%s; CREATE TABLE %s.bare LIKE %s.%s", file, name, t, name, name, t))
		begun := time.Now()
		db.SQL(fmt.Sprintf("LOAD DATA INFILE '%s' INTO TABLE %s.bare CHARACTER SET binary", file, name))
		took += time.Since(begun)
		if db.SQL(fmt.Sprintf("SELECT COUNT(*) FROM %s.bare", name)) != db.SQL(fmt.Sprintf("SELECT COUNT(*) FROM %s.%s", name, t)) {
			b.Fatal("not all rows were loaded")
		}
		db.SQL(fmt.Sprintf("DROP TABLE %s.bare", name))
		check(b, os.Remove(file))
	}
	return took
}

// child is a program that is talked to as omprog does.
type child struct {
	cmd     *exec.Cmd
	in, out int
	buf     []byte
}

// startChild starts a program with pipes that its parent waits on itself, as
// rsyslogd does: the runtime's poller would cost more than the program.
func startChild(b *testing.B, env []string, name string, args ...string) *child {
	b.Helper()
	var in, out [2]int
	check(b, unix.Pipe2(in[:], unix.O_CLOEXEC))
	check(b, unix.Pipe2(out[:], unix.O_CLOEXEC))
	c := &child{cmd: exec.Command(name, args...), in: in[1], out: out[0], buf: make([]byte, 64<<10)}
	r, w := os.NewFile(uintptr(in[0]), "stdin"), os.NewFile(uintptr(out[1]), "stdout")
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = r, w, os.Stderr
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(b, c.cmd.Start())
	r.Close()
	w.Close()
	c.confirmed(b, 1)
	return c
}

// confirmed waits for n times OK.
func (c *child) confirmed(b *testing.B, n int) {
	for want := 3 * n; want > 0; {
		got, err := unix.Read(c.out, c.buf)
		if err == unix.EINTR {
			continue
		}
		text := bytes.TrimLeft(c.buf[:max(0, got)], ".") // it is busy
		if err != nil || got == 0 || len(text) > want || len(bytes.Trim(text, "OK\n")) > 0 {
			b.Fatalf("answer %q, %v", c.buf[:max(0, got)], err)
		}
		want -= len(text)
	}
}

func (c *child) say(b *testing.B, lines []byte) {
	for len(lines) > 0 {
		n, err := unix.Write(c.in, lines)
		if err != unix.EINTR {
			check(b, err)
			lines = lines[n:]
		}
	}
}

func (c *child) end(b *testing.B) {
	b.Helper()
	unix.Close(c.in)
	check(b, c.cmd.Wait())
	unix.Close(c.out)
}

// BenchmarkOmprog is the whole program, with a database, as a child that is
// waited for at each line, as by rsyslogd, or at each 64th.
func BenchmarkOmprog(b *testing.B) {
	program := peer.Program(b, "rol-logpipe")
	data, err := os.ReadFile(generatedLog(b, min(benchLines(b), 300_000)))
	check(b, err)
	lines := bytes.SplitAfter(data, []byte("\n"))
	lines = lines[:len(lines)-1]
	service := func(each string) func(*testing.B) *child {
		return func(b *testing.B) *child {
			dir := b.TempDir()
			conf := filepath.Join(dir, "rol.cf")
			check(b, os.WriteFile(conf, []byte("maillog_spool_sync_each = "+each+"\n"), 0o600))
			return startChild(b, nil, program, "--omprog", "--config", conf, "--spool", filepath.Join(dir, "spool"), "--db", filepath.Join(dir, "db"))
		}
	}
	least := func(b *testing.B) *child {
		self, err := os.Executable()
		check(b, err)
		return startChild(b, []string{childEnv + "=" + filepath.Join(b.TempDir(), "lines")}, self)
	}
	for _, c := range []struct {
		name   string
		window int
		n      int
		start  func(*testing.B) *child
	}{
		{"each-line", 1, 200_000, service("no")},
		{"each-line-least-child", 1, 100_000, least},
		{"each-line-fsync", 1, 20_000, service("yes")},
		{"64-lines", 64, 300_000, service("no")},
		{"64-lines-fsync", 64, 300_000, service("yes")},
	} {
		b.Run(c.name, func(b *testing.B) {
			some := lines[:min(c.n, len(lines))]
			var took time.Duration
			n := 0
			for b.Loop() {
				child := c.start(b)
				begun := time.Now()
				for i := 0; i < len(some); i += c.window {
					part := some[i:min(i+c.window, len(some))]
					child.say(b, bytes.Join(part, nil))
					child.confirmed(b, len(part))
				}
				took += time.Since(begun)
				n += len(some)
				child.end(b)
			}
			b.ReportMetric(float64(n)/took.Seconds(), "lines/s")
		})
	}
}

// sentLines are a mail that is sent at once; %[1]s is its queue id.
const sentLines = `%[2]s mx1 mx2/smtpd[9]: connect from new.example.net[192.0.2.7]
%[2]s mx1 mx2/smtpd[9]: %[1]s: client=new.example.net[192.0.2.7]
%[2]s mx1 mx2/cleanup[7]: %[1]s: message-id=<%[1]s@new.example.net>
%[2]s mx1 mx2/qmgr[3]: %[1]s: from=<new@example.net>, size=400, nrcpt=1 (queue active)
%[2]s mx1 mx2/smtpd[9]: disconnect from new.example.net[192.0.2.7] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5
%[2]s mx1 mx2/smtp[5]: %[1]s: to=<new@example.com>, relay=mx.example.com[192.0.2.9]:25, delay=0.5, delays=0.1/0/0.2/0.2, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4bX7)
%[2]s mx1 mx2/qmgr[3]: %[1]s: removed
`

// waiting is how many mails wait in BenchmarkRestart.
const waiting = 200_000

// BenchmarkRestart is the service with 200,000 mails that wait: its memory
// while they come, and when it is started again the time from its start to the
// first row of a new mail.
func BenchmarkRestart(b *testing.B) {
	log := filepath.Join(b.TempDir(), "waiting.log")
	from := time.Now().Add(-waiting * 10 * time.Millisecond).UTC()
	f, err := os.Create(log)
	check(b, err)
	check(b, copylog.WriteWaiting(f, waiting, from))
	check(b, f.Close())
	b.Run("sqlite", func(b *testing.B) {
		benchRestart(b, log, func() string { return "sqlite:" + filepath.Join(b.TempDir(), "db") })
	})
	b.Run("mariadb", func(b *testing.B) {
		db, n := peer.StartMariaDB(b), 0
		benchRestart(b, log, func() string { n++; return "mysql:" + db.CF(fmt.Sprint("restart", n)) })
	})
}

func benchRestart(b *testing.B, log string, newDB func() string) {
	program := peer.Program(b, "rol-logpipe")
	var first, ingest time.Duration
	var came, again float64
	n := 0
	for b.Loop() {
		n++
		dir, db := b.TempDir(), newDB()
		conf := filepath.Join(dir, "rol.cf")
		check(b, os.WriteFile(conf, nil, 0o600))
		start := func() *exec.Cmd {
			c := exec.Command(program, "--config", conf, "--spool", filepath.Join(dir, "spool"), "--db", db, "--follow", log, filepath.Join(dir, "*.log"))
			c.Stderr = os.Stderr
			c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			check(b, c.Start())
			return c
		}
		begun := time.Now()
		c := start()
		for !caughtUp(b, filepath.Join(dir, "spool")) {
			time.Sleep(100 * time.Millisecond)
		}
		ingest += time.Since(begun)
		time.Sleep(10 * time.Second) // the indexes of a new day are built
		came = max(came, peak(b, c))
		check(b, c.Process.Kill())
		_ = c.Wait()
		stamp := time.Now().UTC().Format("2006-01-02T15:04:05.000000-07:00")
		check(b, os.WriteFile(filepath.Join(dir, "new.log"), fmt.Appendf(nil, sentLines, "4kXY000000z1T", stamp), 0o600))
		reader, err := store.Open(db, store.ReadOnly)
		check(b, err)
		begun = time.Now()
		c = start()
		for !found(b, reader, "4kXY000000z1T") {
			time.Sleep(5 * time.Millisecond)
		}
		first += time.Since(begun)
		again = max(again, peak(b, c))
		check(b, reader.Close())
		check(b, c.Process.Signal(syscall.SIGTERM))
		check(b, c.Wait())
	}
	b.ReportMetric(first.Seconds()/float64(n), "s-to-first-row")
	b.ReportMetric(came, "MB-peak-while-they-come")
	b.ReportMetric(again, "MB-peak-after-restart")
	b.ReportMetric(float64(n*waiting*copylog.WaitingLines)/ingest.Seconds(), "lines/s")
}

// caughtUp tells whether a service has committed everything, and all mails
// wait.
func caughtUp(b *testing.B, spool string) bool {
	r, err := logpipe.Ask(b.Context(), spool)
	return err == nil && len(r.Databases) == 1 && r.Databases[0].LagBytes == 0 &&
		r.Databases[0].Lines == waiting*int64(copylog.WaitingLines)
}

func found(b *testing.B, db *store.DB, qid string) bool {
	r, err := db.Search(b.Context(), &store.Query{QueueID: qid, Limit: 1})
	check(b, err)
	for _, err := range r.All() {
		check(b, err)
		return true
	}
	return false
}

// peak is the most memory that a running process has had, MB.
func peak(b *testing.B, c *exec.Cmd) float64 {
	b.Helper()
	_, most, err := peer.Memory(c.Process.Pid)
	check(b, err)
	return float64(most) / 1e6
}
