//go:build linux && amd64

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/logpipe"
	"github.com/rolmail/rolmail/tests/killer"
	"github.com/rolmail/rolmail/tests/peer"
)

// proc is a service that runs, seen from outside.
type proc struct {
	pid   int
	spool string
	ended chan struct{}
	quit  <-chan struct{} // closed: nobody wants to know any more
	up    atomic.Bool     // it has answered
}

const (
	patience  = 60 * time.Second // how long anything may take
	pollEvery = 25 * time.Millisecond
)

var (
	errEnded  = errors.New("the program has ended")
	errEnough = errors.New("enough is known")
)

// wait waits until the service's report is as wanted: errEnded if it ends.
func (p *proc) wait(what string, ok func(*logpipe.Report) bool) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if r := p.report(); r != nil && ok(r) {
			return nil
		}
		select {
		case <-p.ended:
			return errEnded
		case <-p.quit:
			return errEnough
		case <-time.After(pollEvery):
		}
	}
	return fmt.Errorf("not within %v: %s", patience, what)
}

// report is nil where the service does not answer.
func (p *proc) report() *logpipe.Report {
	r, err := logpipe.Ask(background, p.spool)
	if err != nil || r.PID != p.pid {
		return nil
	}
	p.up.Store(true)
	return r
}

func (p *proc) signal(sig syscall.Signal) {
	select {
	case <-p.ended:
	default:
		_ = syscall.Kill(p.pid, sig)
	}
}

// committed says that the databases have what the spool has.
func committed(r *logpipe.Report) bool {
	for i := range r.Databases {
		if r.Databases[i].LagBytes > 0 || r.Databases[i].Degraded != nil {
			return false
		}
	}
	return len(r.Databases) > 0
}

// lines is how many the service has handed to the spool since its start.
func lines(r *logpipe.Report) (n int) {
	for i := range r.Sources {
		n += int(r.Sources[i].Lines)
	}
	return n
}

// The last lines of every log are of a host of their own: who has committed
// them has all before them, because the spool has one order.
const (
	lastHost = "the-end"
	lastPart = "2026-11-23T17:41:00.000000+00:00 the-end postfix/smtpd[9]: connect from a.example.com[192.0.2.9]\n" +
		"2026-11-23T17:41:01.000000+00:00 the-end postfix/smtpd[9]: lost connection after CONNECT from a.example.com[192.0.2.9]\n" +
		"2026-11-23T17:41:01.000001+00:00 the-end postfix/smtpd[9]: disconnect from a.example.com[192.0.2.9] commands=0/0\n"
)

// allIn waits until the last lines are in the databases.
func (p *proc) allIn() error {
	return p.wait("all lines in the database", func(r *logpipe.Report) bool {
		for _, h := range r.Hosts {
			if h.Host == lastHost {
				return committed(r)
			}
		}
		return false
	})
}

// feeder is where the lines come from. It knows what it has given.
type feeder interface {
	args() []string         // of the program
	attach(*exec.Cmd) error // before each start
	feed(p *proc) error     // gives all but the last part; errEnded if the program ends before
	finish(p *proc) error   // gives what is left, and the last part
	away()                  // something happens while no program runs
	close()
}

// stage is a service with all that it has, in a directory with a short name:
// the spool has a socket.
type stage struct {
	program string
	dir     string
	disk    string // a directory with the spool
	db      string // as type:where
	quit    <-chan struct{}
	feeder
}

func newStage(program string, make func(dir string) (feeder, error)) (*stage, error) {
	dir, err := os.MkdirTemp("", "rol-f-")
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // as the kernel names it
		return nil, err
	}
	s := &stage{program: program, dir: dir, disk: dir, db: "sqlite:" + dir + "/db/maillog.db"}
	err = os.Mkdir(filepath.Join(dir, "db"), 0o700)
	if err == nil {
		err = os.WriteFile(s.config(), []byte("maillog_spool_size = 16M\n"), 0o600) // a segment is 1 MB
	}
	if err == nil {
		s.feeder, err = make(dir)
	}
	if err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func (s *stage) remove() {
	if s.feeder != nil {
		s.close()
	}
	_ = os.RemoveAll(s.dir)
}

func (s *stage) config() string { return filepath.Join(s.dir, "rol.cf") }
func (s *stage) spool() string  { return filepath.Join(s.disk, "spool") }

func (s *stage) command() *exec.Cmd {
	c := exec.Command(s.program, append([]string{"--spool", s.spool(), "--db", s.db}, s.args()...)...)
	c.Env = append(os.Environ(), "TZ=UTC", "ROL_CONFIG="+s.config())
	return c
}

// start starts the service. The outcome comes when it has ended; f may be nil.
func (s *stage) start(f *killer.Fault) (*proc, <-chan killer.Outcome, error) {
	c := s.command()
	if err := s.attach(c); err != nil {
		return nil, nil, err
	}
	p := &proc{spool: s.spool(), ended: make(chan struct{}), quit: s.quit}
	outcome := make(chan killer.Outcome, 1)
	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		var o killer.Outcome
		var err error
		if f != nil {
			fault := *f
			fault.Started = func(pid int) { p.pid = pid; started <- nil }
			o, err = fault.Try(c)
		} else {
			o, err = plainly(c, func(pid int) { p.pid = pid; started <- nil })
		}
		if err != nil {
			o.Output += "\n" + err.Error()
			o.Status = -1
		}
		outcome <- o
		select {
		case started <- err: // it never was
		default:
		}
	}()
	if err := <-started; err != nil {
		return nil, nil, err
	}
	return p, outcome, nil
}

// plainly runs a command undisturbed.
func plainly(c *exec.Cmd, started func(pid int)) (o killer.Outcome, err error) {
	var out bytes.Buffer
	if c.Stdout == nil {
		c.Stdout = &out
	}
	c.Stderr = &out
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no service outlives a test that has panicked
	if err := c.Start(); err != nil {
		return o, err
	}
	started(c.Process.Pid)
	err = c.Wait()
	o.Status, o.Output = c.ProcessState.ExitCode(), out.String()
	if ws, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		o.Status = 128 + int(ws.Signal())
	}
	if errors.As(err, new(*exec.ExitError)) {
		err = nil
	}
	return o, err
}

// disturbed runs the service with a fault while the lines come. up: it has
// answered, so it was past its start.
func (s *stage) disturbed(f killer.Fault) (o killer.Outcome, up bool, err error) {
	p, outcome, err := s.start(&f)
	if err != nil {
		return o, false, err
	}
	if err = s.feed(p); err == errEnded {
		err = nil
	}
	return p.end(outcome), p.up.Load(), err
}

// complete lets the service go on undisturbed until all lines are in.
func (s *stage) complete() (o killer.Outcome, err error) {
	s.away()
	p, outcome, err := s.start(nil)
	if err != nil {
		return o, err
	}
	err = s.finish(p)
	if err == nil {
		err = p.allIn()
	}
	o = p.end(outcome)
	if err == nil && o.Status != 0 {
		err = errors.New("does not end well")
	}
	return o, err
}

// end ends a service as systemd does.
func (p *proc) end(outcome <-chan killer.Outcome) killer.Outcome {
	p.signal(syscall.SIGTERM)
	select {
	case o := <-outcome:
		return o
	case <-time.After(patience):
	}
	p.signal(syscall.SIGKILL)
	o := <-outcome
	o.Output = "did not end by SIGTERM\n" + o.Output
	return o
}

// rows are all rows, sorted.
func (s *stage) rows(maillog string) (string, error) {
	c := exec.Command(maillog, "search", "--db", s.db, "--format", "json", "--limit", "0")
	c.Env = append(os.Environ(), "ROL_CONFIG="+s.config())
	return sortedOutput(c)
}

// logFile is a log that grows, within lines too, and is rotated.
type logFile struct {
	path  string
	steps []func() error
	count []int // lines that are there after each step
	done  int
	known bool // the spool has a state of it: what is rotated now is found again
}

// labParts are a lab log in three, with long lines of somebody else's, so that
// it is several segments of the spool.
var labParts = sync.OnceValues(func() ([3][]byte, error) {
	var parts [3][]byte
	log, err := os.ReadFile("../lab/testdata/lab-a.log")
	if err != nil {
		return parts, err
	}
	padding := bytes.Repeat([]byte("x"), 4000)
	i := 0
	for line := range bytes.Lines(log) {
		part := &parts[min(i*3/4900, 2)]
		*part = append(*part, line...)
		if i%8 == 0 {
			stamp, _, _ := bytes.Cut(line, []byte(" "))
			*part = fmt.Appendf(*part, "%s vm noise[1]: %s\n", stamp, padding)
		}
		i++
	}
	return parts, nil
})

func newLogFile(dir string) (feeder, error) {
	parts, err := labParts()
	if err != nil {
		return nil, err
	}
	l := &logFile{path: filepath.Join(dir, "mail.log")}
	n := 0
	step := func(f func() error, b []byte) {
		n += bytes.Count(b, []byte("\n"))
		l.steps, l.count = append(l.steps, f), append(l.count, n)
	}
	for rest := parts[1]; len(rest) > 0; { // in pieces that end anywhere
		piece := rest[:min(len(rest), 200_000)]
		rest = rest[len(piece):]
		step(func() error { return l.append(piece) }, piece)
	}
	step(func() error {
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return err
		}
		return l.append(parts[2])
	}, parts[2])
	first := bytes.Count(parts[0], []byte("\n"))
	for i := range l.count {
		l.count[i] += first
	}
	l.count = append([]int{first}, l.count...)
	return l, l.append(parts[0])
}

func (l *logFile) args() []string         { return []string{"--follow", l.path} }
func (l *logFile) attach(*exec.Cmd) error { return nil }
func (l *logFile) close()                 {}

func (l *logFile) append(b []byte) error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(b)
	return err
}

// step does the next thing to the log.
func (l *logFile) step() error {
	l.done++
	return l.steps[l.done-1]()
}

// feed waits for each part to be read, and for the first and the last to be
// committed.
func (l *logFile) feed(p *proc) error {
	for {
		last := l.done == len(l.steps)
		err := p.wait(fmt.Sprintf("%d lines read", l.count[l.done]), func(r *logpipe.Report) bool {
			return lines(r) >= l.count[l.done] && (l.done > 0 && !last || committed(r))
		})
		if err != nil || last {
			return err
		}
		l.known = true
		if err := l.step(); err != nil {
			return err
		}
	}
}

func (l *logFile) away() {
	if l.known && l.done < len(l.steps) {
		_ = l.step()
	}
}

// finish sees to it that the service has read some of the log before that is
// rotated: of a log that nobody has read, nothing older is looked for.
func (l *logFile) finish(p *proc) error {
	for l.done < len(l.steps)-1 {
		if err := l.step(); err != nil {
			return err
		}
	}
	if l.done < len(l.steps) {
		if err := l.append([]byte(goOn)); err != nil {
			return err
		}
		if err := p.wait("reading", func(r *logpipe.Report) bool { return lines(r) > 0 }); err != nil {
			return err
		}
		if err := l.step(); err != nil {
			return err
		}
	}
	return l.append([]byte(lastPart))
}

// goOn is a line that makes no row.
const goOn = "2026-11-23T17:39:30.000000+00:00 vm noise[1]: go on\n"

// wantRows are the rows of an undisturbed service. They are those of a replay.
func wantRows(t *testing.T) string {
	t.Helper()
	wanted.once.Do(func() {
		s, err := newStage(peer.Program(t, "rol-logpipe"), newLogFile)
		if err != nil {
			t.Fatal(err)
		}
		defer s.remove()
		o, err := s.complete()
		if err != nil {
			t.Fatalf("%v: %v", err, o)
		}
		if wanted.rows, err = s.rows(peer.Program(t, "rol-maillog")); err != nil {
			t.Fatal(err)
		}
		s.db = "sqlite:" + s.dir + "/replay.db"
		whole := s.dir + "/whole.log"
		if out, err := exec.Command("sh", "-c", `cat "$1.1" "$1" >"$2"`, "sh", s.dir+"/mail.log", whole).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		replay := exec.Command(s.program, "--db", s.db, whole)
		replay.Env = append(os.Environ(), "TZ=UTC", "ROL_CONFIG="+s.config())
		if out, err := replay.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		rows, err := s.rows(peer.Program(t, "rol-maillog"))
		if err != nil || rows != wanted.rows || strings.Count(rows, "\n") < 400 {
			t.Fatalf("the service undisturbed and a replay: %v, %s", err, difference(wanted.rows, rows))
		}
	})
	if wanted.rows == "" {
		t.Fatal("no undisturbed run to compare with")
	}
	return wanted.rows
}

var wanted struct {
	once sync.Once
	rows string
}
