package pipeline

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/peer"
)

// machine is a host of the cluster: a name, and a /dev/log of its own, which
// stands for its syslog daemon that forwards to the central one. The socket is
// open here all the time, as systemd has it, so that lines wait in it while
// rsyslogd is started again.
type machine struct {
	name   string
	path   string
	socket *os.File
}

func newMachine(t testing.TB, dir, name string) *machine {
	t.Helper()
	m := &machine{name: name, path: filepath.Join(dir, name+".log")}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := os.Chmod(m.path, 0o666); err != nil {
		t.Fatal(err)
	}
	if m.socket, err = c.File(); err != nil {
		t.Fatal(err)
	}
	return m
}

// command runs on the machine: in a mount namespace in which /dev/log is its.
func (m *machine) command(name string, args ...string) *exec.Cmd {
	c := exec.Command("/bin/sh", append([]string{"-c", `mount --bind "$0" /dev/log && exec "$@"`, m.path, name}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return c
}

// say logs a line.
func (m *machine) say(t testing.TB, line string) {
	t.Helper()
	c, err := net.Dial("unixgram", m.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "<22>%s lab[1]: %s", time.Now().Format(time.Stamp), line); err != nil {
		t.Fatal(err)
	}
}

// rsyslogd is the central one: it reads every machine's /dev/log and writes
// where a scenario's action says, and besides all lines into a file of its own,
// the reference.
type rsyslogd struct {
	t         testing.TB
	machines  []*machine
	conf      string
	pidFile   string
	reference string

	mu     sync.Mutex // it is ended and started by disturbances too
	cmd    *exec.Cmd
	exited chan struct{}
}

// rsyslogConf is its configuration. The hand-over of what waits in memory at
// the end may take as long as it needs.
const rsyslogConf = `
global(workDirectory="@DIR@/work" maxMessageSize="64k" processInternalMessages="on" net.enableDNS="off")
module(load="imuxsock" SysSock.Use="off")
@INPUTS@
module(load="omprog")
main_queue(queue.type="LinkedList" queue.size="200000" queue.timeoutShutdown="20000")
template(name="rol" type="string" string="%TIMESTAMP:::date-rfc3339% %HOSTNAME% %syslogtag%%msg%\n")
if $syslogfacility-text != "mail" then { action(type="omfile" file="@DIR@/rsyslogd.log") stop }
action(type="omfile" file="@REFERENCE@" template="rol")
@ACTION@
`

// startRsyslog starts an rsyslogd in a directory, with an action for the lines.
func startRsyslog(t testing.TB, machines []*machine, dir, action string) *rsyslogd {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "work"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := &rsyslogd{
		t: t, machines: machines, conf: filepath.Join(dir, "rsyslog.conf"), pidFile: filepath.Join(dir, "rsyslogd.pid"),
		reference: filepath.Join(dir, "all.log"),
	}
	var inputs strings.Builder
	for _, m := range machines {
		fmt.Fprintf(&inputs, "input(type=\"imuxsock\" Socket=%q HostName=%q Unlink=\"off\" RateLimit.Interval=\"0\")\n", m.path, m.name)
	}
	text := strings.NewReplacer("@INPUTS@", inputs.String(), "@DIR@", dir, "@REFERENCE@", r.reference, "@ACTION@", action).Replace(rsyslogConf)
	if err := os.WriteFile(r.conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(peer.Need(t, "rsyslogd"), "-N1", "-f", r.conf).CombinedOutput(); err != nil {
		t.Fatalf("rsyslogd -N1: %v\n%s\n%s", err, out, text)
	}
	r.start()
	t.Cleanup(r.stop)
	return r
}

// start hands the sockets over as systemd does: as files from 3 on, by
// LISTEN_FDS.
func (r *rsyslogd) start() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=$0 exec "$@"`, fmt.Sprint(len(r.machines)),
		peer.Need(r.t, "rsyslogd"), "-n", "-f", r.conf, "-i", r.pidFile)
	for _, m := range r.machines {
		r.cmd.ExtraFiles = append(r.cmd.ExtraFiles, m.socket)
	}
	out, err := os.OpenFile(r.conf+".output", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer out.Close()
	r.cmd.Stdout, r.cmd.Stderr = out, out
	if err := r.cmd.Start(); err != nil {
		r.t.Error(err)
	}
	r.exited = make(chan struct{})
	go func(c *exec.Cmd, exited chan struct{}) {
		_ = c.Wait()
		close(exited)
	}(r.cmd, r.exited)
}

// stop ends rsyslogd in good order, as systemctl does.
func (r *rsyslogd) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.exited:
	case <-time.After(60 * time.Second):
		_ = r.cmd.Process.Kill()
		<-r.exited
		r.t.Error("rsyslogd did not end within 60 s")
	}
	r.cmd = nil
}

// pid is its process id, 0 if it does not run.
func (r *rsyslogd) pid() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return 0
	}
	return r.cmd.Process.Pid
}

// childEnded is how rsyslogd tells that a program of omprog has ended.
var childEnded = regexp.MustCompile(`omprog: program .* \(pid \d+\) (exited with status [1-9]\d*|terminated by signal \d+)`)

// childrenEnded are the programs that have failed, but for those we killed.
func (r *rsyslogd) childrenEnded() (all []string) {
	b, _ := os.ReadFile(filepath.Join(filepath.Dir(r.conf), "rsyslogd.log"))
	for _, line := range childEnded.FindAllString(string(b), -1) {
		if !strings.HasSuffix(line, "by signal 9") {
			all = append(all, line)
		}
	}
	return all
}

// flushed logs a line on each machine and waits until they are in the
// reference, and with them all that was logged before.
func (r *rsyslogd) flushed() {
	r.t.Helper()
	mark := fmt.Sprintf("all mails of run %d are done", time.Now().UnixNano())
	for _, m := range r.machines {
		m.say(r.t, mark)
	}
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if b, _ := os.ReadFile(r.reference); strings.Count(string(b), mark) == len(r.machines) {
			return
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(r.conf + ".output")
			r.t.Fatalf("rsyslogd did not write a line within 30 s\n%s", out)
		}
	}
}
