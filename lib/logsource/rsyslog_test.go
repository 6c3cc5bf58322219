package logsource

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/tests/peer"
)

// rsyslog is a rsyslogd of a test's own, which gets lines by TCP on loopback
// and hands them to one action.
type rsyslog struct {
	t    testing.TB
	dir  string
	port int
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// startRsyslog starts rsyslogd. In the action, DIR is the test's directory and
// CHILD a command that runs a source of the kind.
func startRsyslog(t testing.TB, kind, action string) *rsyslog {
	t.Helper()
	path := peer.Need(t, "rsyslogd")
	r := &rsyslog{t: t, dir: t.TempDir()}
	exe, err := os.Executable()
	r.check(err)
	child := filepath.Join(r.dir, "child")
	script := fmt.Sprintf("#!/bin/sh\n%s=%s:%s exec %s\n", childEnv, kind, r.dir, exe)
	r.check(os.WriteFile(child, []byte(script), 0o700))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.check(err)
	r.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	conf := fmt.Sprintf(`global(workDirectory="%[1]s" maxMessageSize="64k")
module(load="imtcp")
module(load="omprog")
module(load="builtin:ompipe")
template(name="line" type="string" string="%%msg:2:$%%\n")
input(type="imtcp" address="127.0.0.1" port="%[2]d" ruleset="all")
ruleset(name="all") {
%[3]s
}
`, r.dir, r.port, strings.NewReplacer("DIR", r.dir, "CHILD", child).Replace(action))
	r.check(os.WriteFile(filepath.Join(r.dir, "conf"), []byte(conf), 0o600))
	r.start(path)
	t.Cleanup(r.end)
	return r
}

func (r *rsyslog) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rsyslog) start(path string) {
	r.t.Helper()
	r.cmd = exec.Command(path, "-n", "-f", filepath.Join(r.dir, "conf"), "-i", filepath.Join(r.dir, "rsyslogd.pid"))
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	r.check(r.cmd.Start())
	eventually(r.t, "rsyslogd listens", func() bool {
		c, err := net.Dial("tcp", r.address())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (r *rsyslog) address() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

// end ends rsyslogd, and with it the child.
func (r *rsyslog) end() {
	if r.cmd == nil {
		return
	}
	r.cmd.Process.Signal(unix.SIGTERM)
	done := make(chan bool)
	go func() { r.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		r.cmd.Process.Kill()
		<-done
	}
	r.cmd = nil
	if r.t.Failed() {
		r.t.Logf("rsyslogd said:\n%s", lastLines(r.out.String()))
	}
}

// send sends lines by TCP.
func (r *rsyslog) send(from, to int) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address())
	r.check(err)
	defer c.Close()
	var b bytes.Buffer
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "<22>Nov 25 00:00:00 mx1 postfix/smtpd[1]: line %d of a mail log\n", i)
		if b.Len() > 60000 || i == to-1 {
			_, err := c.Write(b.Bytes())
			r.check(err)
			b.Reset()
		}
	}
}

// numbers are the numbers of the lines in the diary.
func (r *rsyslog) numbers() []int {
	d, err := openDiary(filepath.Join(r.dir, "diary"))
	if err != nil { // a record is being written
		return nil
	}
	d.f.Close()
	var all []int
	for _, l := range d.lines {
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(l, "line "), " of a mail log"))
		if err != nil {
			r.t.Fatalf("a line that was not sent: %q", l)
		}
		all = append(all, n)
	}
	return all
}

// kill kills the child.
func (r *rsyslog) kill() bool {
	b, err := os.ReadFile(filepath.Join(r.dir, "pid"))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(string(b))
	return err == nil && pid > 1 && unix.Kill(pid, unix.SIGKILL) == nil
}

// verify wants every line once, in order if that is said.
func (r *rsyslog) verify(n int, ordered bool) {
	r.t.Helper()
	var got []int
	end := time.Now().Add(60 * time.Second)
	for got = r.numbers(); len(got) < n && time.Now().Before(end); got = r.numbers() {
		time.Sleep(20 * time.Millisecond)
	}
	if !ordered {
		slices.Sort(got)
	}
	for i := range max(n, len(got)) {
		if i >= len(got) || i >= n || got[i] != i {
			r.t.Fatalf("%d lines of %d came; at %d: %v; line %d is at %d, twice: %v", len(got), n, i,
				got[min(i, len(got)):min(i+5, len(got))], i, slices.Index(got, i), twice(got))
		}
	}
}

// TestOmprogRsyslog kills the program under load. Every line comes once.
func TestOmprogRsyslog(t *testing.T) {
	r := startRsyslog(t, "omprog", `action(type="omprog" binary="CHILD" template="line" confirmMessages="on" useTransactions="off"
	action.resumeRetryCount="-1" action.resumeInterval="1" queue.type="LinkedList" queue.size="200000" queue.workerThreads="1")`)
	const n = 60000
	r.send(0, n)
	kills := 0
	for seen := 0; kills < 25 && seen < n*9/10; {
		eventually(t, "lines come", func() bool {
			now := len(r.numbers())
			if now > seen {
				seen = now
				return true
			}
			return false
		})
		if r.kill() {
			kills++
		}
	}
	t.Logf("%d kills", kills)
	r.verify(n, true)
	if kills < 5 {
		t.Errorf("killed %d times only", kills)
	}
}

// TestOmpipeRsyslog kills the reader of a FIFO that rsyslogd writes to. Every
// line comes once, not always in order: rsyslogd puts a line that found the
// FIFO full behind those that it has queued.
func TestOmpipeRsyslog(t *testing.T) {
	r := startRsyslog(t, "fifo", `action(type="ompipe" pipe="DIR/fifo" template="line"
	action.resumeRetryCount="-1" action.resumeInterval="1" queue.type="LinkedList" queue.size="200000" queue.workerThreads="1")`)
	r.check(unix.Mkfifo(filepath.Join(r.dir, "fifo"), 0o600))
	hold, err := os.OpenFile(filepath.Join(r.dir, "fifo"), os.O_RDWR, 0)
	r.check(err)
	defer hold.Close()
	const n = 60000
	r.send(0, n)
	kills := 0
	for {
		cmd := exec.Command(filepath.Join(r.dir, "child"))
		r.check(cmd.Start())
		seen, done := len(r.numbers()), false
		eventually(t, "lines come", func() bool {
			now := len(r.numbers())
			done = now >= n
			return now > seen || done
		})
		cmd.Process.Kill()
		cmd.Wait()
		if kills++; done {
			break
		}
	}
	t.Logf("%d kills", kills)
	r.verify(n, false)
}

// twice are the numbers that came more than once.
func twice(got []int) (again []int) {
	seen := map[int]bool{}
	for _, n := range got {
		if seen[n] {
			again = append(again, n)
		}
		seen[n] = true
	}
	return again
}
