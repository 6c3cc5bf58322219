//go:build linux && amd64

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/logpipe"
	"github.com/rolmail/rolmail/tests/killer"
	"github.com/rolmail/rolmail/tests/peer"
)

// shortLog is the beginning of a lab log, by lines.
func shortLog() (all [][]byte, err error) {
	log, err := os.ReadFile("../lab/testdata/lab-a.log")
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(log) {
		all = append(all, line)
	}
	return all[:800], nil
}

// rsyslog does what omprog does with confirmMessages="on": it sends a line and
// waits for its answer; to a program that it has started again it sends the
// line once more that has none.
type rsyslog struct {
	lines    [][]byte
	acked    int
	in, out  *os.File   // of the test
	children []*os.File // the program's ends
}

func newRsyslog(string) (feeder, error) {
	all, err := shortLog()
	return &rsyslog{lines: all}, err
}

func (r *rsyslog) args() []string { return []string{"--omprog"} }
func (r *rsyslog) away()          {}

func (r *rsyslog) attach(c *exec.Cmd) error {
	r.close()
	stdin, in, err := os.Pipe()
	if err != nil {
		return err
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		return errors.Join(err, stdin.Close(), in.Close())
	}
	c.Stdin, c.Stdout = stdin, stdout
	r.in, r.out, r.children = in, out, []*os.File{stdin, stdout}
	return nil
}

func (r *rsyslog) close() {
	for _, f := range append(r.children, r.in, r.out) {
		if f != nil {
			_ = f.Close()
		}
	}
	r.children = nil
}

// answer reads a line of the program's.
func (r *rsyslog) answer() (string, error) {
	var line []byte
	var b [1]byte
	for {
		_ = r.out.SetReadDeadline(time.Now().Add(patience))
		if _, err := r.out.Read(b[:]); err == io.EOF {
			return "", errEnded
		} else if err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return strings.TrimLeft(string(line), "."), nil
		}
		line = append(line, b[0])
	}
}

func (r *rsyslog) feed(p *proc) error {
	if err := r.confirm(r.lines); err != nil {
		return err
	}
	return p.wait("all lines committed", committed)
}

// confirm sends what has no answer yet.
func (r *rsyslog) confirm(all [][]byte) error {
	for _, f := range r.children { // the program has its own
		_ = f.Close()
	}
	r.children = nil
	text, err := r.answer() // that it is there
	for err == nil && text == "OK" && r.acked < len(all) {
		if _, werr := r.in.Write(all[r.acked]); errors.Is(werr, syscall.EPIPE) {
			return errEnded
		} else if werr != nil {
			return werr
		}
		if text, err = r.answer(); err == nil && text == "OK" {
			r.acked++
		}
	}
	if err == nil && text != "OK" {
		err = fmt.Errorf("answer %q to line %d", text, r.acked)
	}
	return err
}

func (r *rsyslog) finish(*proc) error {
	all := r.lines
	for line := range strings.Lines(lastPart) {
		all = append(all[:len(all):len(all)], []byte(line))
	}
	return r.confirm(all)
}

// fifo writes into a FIFO and holds it open while no program does.
type fifo struct {
	path    string
	f       *os.File
	text    []byte
	lines   int
	written int
}

func newFIFO(dir string) (feeder, error) {
	all, err := shortLog()
	if err != nil {
		return nil, err
	}
	p := &fifo{path: filepath.Join(dir, "fifo"), text: bytes.Join(all, nil), lines: len(all)}
	if err := unix.Mkfifo(p.path, 0o600); err != nil {
		return nil, err
	}
	p.f, err = os.OpenFile(p.path, os.O_RDWR|unix.O_NONBLOCK, 0)
	return p, err
}

func (p *fifo) args() []string         { return []string{"--pipe", p.path} }
func (p *fifo) attach(*exec.Cmd) error { return nil }
func (p *fifo) away()                  {}
func (p *fifo) close()                 { _ = p.f.Close() }

// push writes what has not been written.
func (p *fifo) push(svc *proc, text []byte) error {
	for deadline := time.Now().Add(patience); p.written < len(text); {
		if time.Now().After(deadline) {
			return errors.New("the FIFO stays full")
		}
		_ = p.f.SetWriteDeadline(time.Now().Add(pollEvery))
		n, err := p.f.Write(text[p.written:min(p.written+5000, len(text))])
		p.written += n
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		select {
		case <-svc.ended:
			return errEnded
		default:
		}
	}
	return nil
}

func (p *fifo) feed(svc *proc) error {
	if err := p.push(svc, p.text); err != nil {
		return err
	}
	return svc.wait("the FIFO read", func(r *logpipe.Report) bool { return lines(r) >= p.lines && committed(r) })
}

func (p *fifo) finish(svc *proc) error {
	return p.push(svc, append(p.text[:len(p.text):len(p.text)], lastPart...))
}

// reading are the calls that matter to a FIFO: what is read is gone.
var reading = func() map[uint64]string {
	calls := maps.Clone(killer.Changing)
	calls[unix.SYS_READ] = "read"
	return calls
}()

var feedSweeps = []sweep{
	{name: "omprog killed", fault: killer.Fault{Calls: killer.Changing, Says: true}, in: []string{inSpool}, few: 6, judge: killed, make: newRsyslog},
	{name: "omprog killed in the database", fault: killer.Fault{Calls: killer.Changing}, in: []string{inDB}, few: 2, judge: killed, make: newRsyslog},
	{name: "omprog without room", fault: killer.Fault{Calls: killer.Filling, Errno: syscall.ENOSPC, Short: true, More: 4}, in: []string{inSpool}, few: 3, judge: waits, make: newRsyslog},
	{name: "FIFO killed", fault: killer.Fault{Calls: reading}, in: []string{inSpool, "/fifo"}, few: 8, judge: killed, make: newFIFO},
	{name: "FIFO killed in the database", fault: killer.Fault{Calls: killer.Changing}, in: []string{inDB}, few: 2, judge: killed, make: newFIFO},
	{name: "FIFO without room", fault: killer.Fault{Calls: killer.Filling, Errno: syscall.ENOSPC, Short: true, More: 4}, in: []string{inSpool}, few: 3, judge: waits, make: newFIFO},
}

func TestOmprogAndFIFOAtAnyMoment(t *testing.T) {
	t.Parallel()
	s, err := newStage(peer.Program(t, "rol-logpipe"), newFIFO)
	if err != nil {
		t.Fatal(err)
	}
	defer s.remove()
	o, err := s.complete()
	if err != nil {
		t.Fatalf("%v: %v", err, o)
	}
	want, err := s.rows(peer.Program(t, "rol-maillog"))
	if err != nil || strings.Count(want, "\n") < 50 {
		t.Fatalf("%v: %.200s", err, want)
	}
	together(t, feedSweeps, s.program, want)
}
