//go:build linux && amd64

// Package faults lets rol-logpipe die, or its disk fail, at any moment, and
// looks whether the next run completes what is missing, with nothing lost and
// nothing double: runs over files, and the service, that follows a log which
// grows and is rotated, reads a FIFO, or is rsyslog's child. The power is cut,
// and its database server killed as well. Then mistakes are built into the
// program, which all this must notice.
//
// ROL_FAULT_POINTS says at how many moments of each run, evenly spread; 0
// means all of them.
package faults

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/killer"
	"github.com/rolmail/rolmail/tests/peer"
)

// run runs a program with a fault.
func run(t *testing.T, f killer.Fault, program string, args ...string) killer.Outcome {
	t.Helper()
	c := exec.Command(program, args...)
	c.Env = append(os.Environ(), "TZ=UTC")
	return f.Run(t, c)
}

func TestMain(m *testing.M) { os.Exit(peer.Run(m)) }

// points are the moments of count at which to strike.
func points(t *testing.T, count, few int) []int {
	t.Helper()
	if s := os.Getenv("ROL_FAULT_POINTS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			t.Fatalf("ROL_FAULT_POINTS=%q is no number", s)
		}
		few = n
	}
	if few == 0 || few > count {
		few = count
	}
	var all []int
	for i := range few {
		all = append(all, 1+i*count/few)
	}
	return all
}

// scene is a database that has read the first part of a log, and is to read
// the second.
type scene struct {
	logpipe, first, second string
	before                 string // directory with the database
	want                   string // all rows after an undisturbed run over the second part
}

func lab(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(peer.Root(t), "tests", "lab", "testdata", "lab-a.log"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newScene cuts a log at a line end near the fraction, which may be 0.
func newScene(t *testing.T, log []byte, n, of int) *scene {
	t.Helper()
	dir := t.TempDir()
	s := &scene{
		logpipe: peer.Program(t, "rol-logpipe"),
		first:   filepath.Join(dir, "first.log"), second: filepath.Join(dir, "second.log"),
		before: filepath.Join(dir, "before"),
	}
	at := 0
	if n > 0 {
		at = len(log) * n / of
		at += bytes.IndexByte(log[at:], '\n') + 1
	}
	write(t, s.first, log[:at])
	write(t, s.second, log[at:])
	if err := os.Mkdir(s.before, 0o700); err != nil {
		t.Fatal(err)
	}
	if n > 0 {
		s.read(t, s.before, s.first)
	}
	after := s.copy(t)
	s.read(t, after, s.second)
	s.want = dump(t, after)
	return s
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// copy makes a fresh copy of the database as it was before.
func (s *scene) copy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(s.before)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func db(dir string) string { return "sqlite:" + filepath.Join(dir, "maillog.db") }

// read is an undisturbed run.
func (s *scene) read(t *testing.T, dir, log string) {
	t.Helper()
	c := exec.Command(s.logpipe, "--db", db(dir), log)
	c.Env = append(os.Environ(), "TZ=UTC")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", c, err, out)
	}
}

// dump is all rows of a database, as rol-maillog prints them, sorted.
func dump(t *testing.T, dir string) string {
	t.Helper()
	c := exec.Command(peer.Program(t, "rol-maillog"), "search", "--db", db(dir), "--format", "json", "--limit", "0")
	out, err := sortedOutput(c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sortedOutput are the lines that a command prints, sorted.
func sortedOutput(c *exec.Cmd) (string, error) {
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", c, err, errs.Bytes())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

// complete runs once more and compares.
func (s *scene) complete(t *testing.T, dir string, o killer.Outcome) {
	t.Helper()
	s.read(t, dir, s.second)
	if got := dump(t, dir); got != s.want {
		t.Errorf("%v\nthen: %s", o, difference(got, s.want))
	}
}

func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	lost, more := "", ""
	for _, l := range w {
		if !slices.Contains(g, l) {
			lost = l
		}
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			more = l
		}
	}
	return fmt.Sprintf("%d rows, want %d\n- %.800s\n+ %.800s", len(g), len(w), lost, more)
}

// moments are a new database, one that goes on with open mails, and a last
// part in which most are done.
var moments = []struct{ n, of int }{{0, 3}, {1, 3}, {4, 5}}

// sweepReplay runs the second part with a fault at each point.
func sweepReplay(t *testing.T, few int, f killer.Fault, judge func(t *testing.T, s *scene, dir string, o killer.Outcome)) {
	log := lab(t)
	for _, m := range moments {
		t.Run(fmt.Sprintf("after %d of %d", m.n, m.of), func(t *testing.T) {
			s := newScene(t, log, m.n, m.of)
			counting := f
			counting.At = 0
			clean := run(t, counting, s.logpipe, "--db", db(s.copy(t)), s.second)
			if clean.Status != 0 || clean.Count < 5 {
				t.Fatalf("undisturbed: %v", clean)
			}
			hit := 0
			at := points(t, clean.Count, few)
			for _, n := range at {
				dir := s.copy(t)
				f.At = n
				o := run(t, f, s.logpipe, "--db", db(dir), s.second)
				if o.Hit != "" {
					hit++
					judge(t, s, dir, o)
				}
				s.complete(t, dir, o)
				_ = os.RemoveAll(dir)
				if t.Failed() {
					t.Fatalf("fault at call %d of %d", n, clean.Count)
				}
			}
			if hit < len(at)*3/4 { // the number of calls varies a little
				t.Errorf("only %d of %d faults struck", hit, len(at))
			}
			t.Logf("%d faults in %d calls", hit, clean.Count)
		})
	}
}

func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	sweepReplay(t, 8, killer.Fault{Calls: killer.Changing}, func(t *testing.T, _ *scene, _ string, o killer.Outcome) {
		if o.Status != 128+int(syscall.SIGKILL) {
			t.Errorf("not killed: %v", o)
		}
	})
}

// ioError judges a run whose disk has failed: it says so in one line, or it
// has not mattered and all rows are there. What is in the write-ahead log need
// not be copied home.
func ioError(t *testing.T, s *scene, dir string, o killer.Outcome) {
	if o.Status == 0 {
		if got := dump(t, dir); got != s.want {
			t.Errorf("%v\nyet: %s", o, difference(got, s.want))
		}
		return
	}
	if o.Status != 74 && o.Status != 73 || strings.Count(o.Output, "\n") != 1 || !strings.HasPrefix(o.Output, "rol-logpipe: ") {
		t.Errorf("want one line and status 74: %v", o)
	}
}

func TestDiskFullAtAnyMoment(t *testing.T) {
	t.Parallel()
	sweepReplay(t, 7, killer.Fault{Calls: killer.Filling, Errno: syscall.ENOSPC, Stay: true}, ioError)
}

func TestDiskFailsToSync(t *testing.T) {
	t.Parallel()
	sweepReplay(t, 10, killer.Fault{Calls: killer.Syncing, Errno: syscall.EIO}, ioError)
}

// Several transactions in a run, killed by the clock.
func TestKilledInALongRun(t *testing.T) {
	t.Parallel()
	var log []byte
	for i := range 12 {
		log = append(log, bytes.ReplaceAll(lab(t), []byte(" vm "), fmt.Appendf(nil, " vm%d ", i))...)
	}
	s := newScene(t, log, 0, 1)
	begun := time.Now()
	s.read(t, s.copy(t), s.second)
	took := time.Since(begun)
	for _, n := range points(t, 12, 6) {
		dir := s.copy(t)
		c := exec.Command(s.logpipe, "--db", db(dir), s.second)
		c.Env = append(os.Environ(), "TZ=UTC")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(took*time.Duration(n)/13, func() { _ = c.Process.Kill() })
		err := c.Wait()
		kill.Stop()
		s.complete(t, dir, killer.Outcome{Output: fmt.Sprintf("after %d thirteenths of %v: %v", n, took, err)})
	}
}

// A file system that is really full.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	s := newScene(t, lab(t), 0, 1)
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=192k"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	defer func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) }()
	c := exec.Command(s.logpipe, "--db", db(small), s.second)
	out, err := c.CombinedOutput()
	if c.ProcessState.ExitCode() != 74 || bytes.Count(out, []byte("\n")) != 1 || !bytes.Contains(out, []byte("full")) {
		t.Fatalf("%v: %s", err, out)
	}
	if err := syscall.Mount("", small, "", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	s.complete(t, small, killer.Outcome{Output: string(out)})
}
