package pipeline

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/peer"
)

// devLog is the socket /dev/log. It is open here all the time, as systemd has
// it, so that lines wait in it while rsyslogd is started again.
type devLog struct{ file *os.File }

func newDevLog(t testing.TB) *devLog {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/dev/log", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := os.Chmod("/dev/log", 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	return &devLog{f}
}

// rsyslogd reads /dev/log and writes where a scenario's actions say, and
// besides all lines into a file of its own, the reference.
type rsyslogd struct {
	t         testing.TB
	log       *devLog
	conf      string
	pidFile   string
	reference string
	cmd       *exec.Cmd
	exited    chan struct{}
}

// rsyslogConf is its configuration. The hand-over of what waits in memory at
// the end may take as long as it needs.
const rsyslogConf = `
global(workDirectory="@DIR@/work" maxMessageSize="64k" processInternalMessages="on" net.enableDNS="off")
module(load="imuxsock" SysSock.Name="/dev/log" SysSock.Unlink="off" SysSock.RateLimit.Interval="0")
module(load="omprog")
main_queue(queue.type="LinkedList" queue.size="200000" queue.timeoutShutdown="20000")
template(name="rol" type="string" string="%TIMESTAMP:::date-rfc3339% %HOSTNAME% %syslogtag%%msg%\n")
if $syslogfacility-text != "mail" then { action(type="omfile" file="@DIR@/rsyslogd.log") stop }
action(type="omfile" file="@REFERENCE@" template="rol")
@ACTION@
`

// startRsyslog starts an rsyslogd in a directory, with an action for the lines.
func startRsyslog(t testing.TB, log *devLog, dir, action string) *rsyslogd {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "work"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := &rsyslogd{
		t: t, log: log, conf: filepath.Join(dir, "rsyslog.conf"), pidFile: filepath.Join(dir, "rsyslogd.pid"),
		reference: filepath.Join(dir, "all.log"),
	}
	text := strings.NewReplacer("@DIR@", dir, "@REFERENCE@", r.reference, "@ACTION@", action).Replace(rsyslogConf)
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

// start hands the socket over as systemd does: as file 3, by LISTEN_FDS.
func (r *rsyslogd) start() {
	r.t.Helper()
	r.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh",
		peer.Need(r.t, "rsyslogd"), "-n", "-f", r.conf, "-i", r.pidFile)
	r.cmd.ExtraFiles = []*os.File{r.log.file}
	out, err := os.OpenFile(r.conf+".output", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		r.t.Fatal(err)
	}
	defer out.Close()
	r.cmd.Stdout, r.cmd.Stderr = out, out
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.exited = make(chan struct{})
	go func(c *exec.Cmd, exited chan struct{}) {
		_ = c.Wait()
		close(exited)
	}(r.cmd, r.exited)
}

// stop ends rsyslogd in good order, as systemctl does.
func (r *rsyslogd) stop() {
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

// flushed logs a line and waits until it is in the reference, and with it all
// that was logged before.
func (r *rsyslogd) flushed() {
	r.t.Helper()
	c, err := net.Dial("unixgram", "/dev/log")
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	mark := fmt.Sprintf("all mails of run %d are done", time.Now().UnixNano())
	if _, err := fmt.Fprintf(c, "<22>%s lab[1]: %s", time.Now().Format(time.Stamp), mark); err != nil {
		r.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if b, _ := os.ReadFile(r.reference); strings.Contains(string(b), mark) {
			return
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(r.conf + ".output")
			r.t.Fatalf("rsyslogd wrote no line within 30 s\n%s", out)
		}
	}
}
