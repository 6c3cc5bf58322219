package pipeline

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/tests/peer"
)

// way is how rsyslogd gives the lines to rol-logpipe.
type way string

const (
	byFile   way = "file"
	byFIFO   way = "fifo"
	byOmprog way = "omprog"
)

// pipeArgs is the command line of rol-logpipe in a scenario's directory.
func (w way) pipeArgs(dir string, dbs []string) []string {
	args := []string{"--spool", filepath.Join(dir, "spool"), "--listen", listenAddr}
	for _, db := range dbs {
		args = append(args, "--db", db)
	}
	switch w {
	case byFIFO:
		return append(args, "--pipe", filepath.Join(dir, "fifo"))
	case byOmprog:
		return append(args, "--omprog")
	}
	return append(args, "--follow", filepath.Join(dir, "mail.log"))
}

// listenAddr is where rol-logpipe tells how it is.
const listenAddr = "127.0.0.1:9180"

// action is what rsyslogd does with the lines. What it cannot get rid of waits
// in a queue of its own, which goes to the disk when rsyslogd ends.
func (w way) action(dir, command string) string {
	queue := `queue.type="LinkedList" queue.size="200000" queue.filename="rol" queue.saveOnShutdown="on"
  queue.workerThreads="1" queue.timeoutShutdown="20000" action.resumeRetryCount="-1" action.resumeInterval="1"`
	switch w {
	case byFIFO:
		return fmt.Sprintf(`action(type="ompipe" pipe=%q template="rol" %s)`, filepath.Join(dir, "fifo"), queue)
	case byOmprog:
		return fmt.Sprintf(`action(type="omprog" binary=%q template="rol" confirmMessages="on" useTransactions="off"
  reportFailures="on" output=%q %s)`, command, filepath.Join(dir, "logpipe.log"), queue)
	}
	// The buffer holds a whole batch of lines: a log that is truncated between
	// two parts of a line has it in neither file.
	return fmt.Sprintf(`action(type="omfile" file=%q template="rol" ioBufferSize="1m")`, filepath.Join(dir, "mail.log"))
}

// logpipe is the rol-logpipe of a scenario: under a supervisor that starts it
// again when it ends, as systemd does, or under rsyslogd, which does the same.
type logpipe struct {
	t      testing.TB
	way    way
	path   string
	args   []string
	output string // file with its messages
	syslog *rsyslogd

	mu       sync.Mutex
	cmd      *exec.Cmd
	killed   bool     // the running one, by us
	stopping bool     // and then no more
	kills    int      // so far
	wrong    []string // ends that nobody wanted
	done     chan struct{}
}

func newLogpipe(t testing.TB, w way, dir string, dbs []string) *logpipe {
	t.Helper()
	if w == byFIFO {
		if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &logpipe{
		t: t, way: w, path: peer.Program(t, "rol-logpipe"), args: w.pipeArgs(dir, dbs),
		output: filepath.Join(dir, "logpipe.log"),
	}
}

// command is the program with its arguments, as omprog wants it.
func (p *logpipe) command() string { return p.path + " " + strings.Join(p.args, " ") }

// start starts the supervisor, where it is not rsyslogd.
func (p *logpipe) start() {
	if p.way == byOmprog {
		return
	}
	p.done = make(chan struct{})
	p.launch()
	go p.supervise()
	p.t.Cleanup(func() { p.stop() })
}

func (p *logpipe) launch() {
	out, err := os.OpenFile(p.output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer out.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.killed = exec.Command(p.path, p.args...), false
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		p.t.Error(err)
	}
}

func (p *logpipe) supervise() {
	defer close(p.done)
	for {
		err := p.cmd.Wait()
		p.mu.Lock()
		killed, stopping := p.killed, p.stopping
		if stopping && err != nil || !stopping && !killed {
			p.wrong = append(p.wrong, fmt.Sprintf("rol-logpipe ended by itself: %v", err))
		}
		p.mu.Unlock()
		if stopping {
			return
		}
		if !killed {
			<-time.After(500 * time.Millisecond)
		}
		p.launch()
	}
}

// pid is the process id of the running one, 0 if there is none.
func (p *logpipe) pid() int {
	if p.way != byOmprog {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.cmd.Process.Pid
	}
	return child(p.syslog.pid(), "rol-logpipe")
}

// child is a child process of a name, 0 if there is none.
func child(parent int, name string) int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		b, _ := os.ReadFile(stat)
		before, after, ok := strings.Cut(string(b), " ("+name+") ")
		f := strings.Fields(after)
		if ok && len(f) > 1 && f[0] != "Z" && f[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(before)
			return pid
		}
	}
	return 0
}

// kill kills it with SIGKILL; somebody starts it again.
func (p *logpipe) kill() {
	pid := p.pid()
	if pid == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	p.kills++
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// stop ends it in good order, for the last time.
func (p *logpipe) stop() {
	if p.way == byOmprog { // rsyslogd closes its input
		p.syslog.stop()
		return
	}
	p.mu.Lock()
	if !p.stopping {
		p.stopping = true
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
	}
	pid := p.cmd.Process.Pid
	p.mu.Unlock()
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.t.Error("rol-logpipe did not end within 30 s of SIGTERM")
		_ = syscall.Kill(pid, syscall.SIGKILL)
		<-p.done
	}
}

// complaints are ends that were not our doing.
func (p *logpipe) complaints() []string {
	if p.way == byOmprog {
		return p.syslog.childrenEnded()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wrong
}
