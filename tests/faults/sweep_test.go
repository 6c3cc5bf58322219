//go:build linux && amd64

package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rolmail/rolmail/tests/killer"
	"github.com/rolmail/rolmail/tests/peer"
)

var background = context.Background()

// places of a stage in which faults are.
const (
	inSpool = "/spool/"
	inDB    = "/db/"
)

// sweep is one kind of fault, at many moments of a service's life.
type sweep struct {
	name  string
	fault killer.Fault
	in    []string // places
	few   int      // moments
	judge func(o killer.Outcome, up bool) error
	make  func(dir string) (feeder, error) // nil: a log file
	quit  chan struct{}                    // closed when something is wrong, and that is enough; may be nil
}

// killed judges a program that was to be killed.
func killed(o killer.Outcome, _ bool) error {
	if o.Status != 128+int(syscall.SIGKILL) {
		return errors.New("not killed")
	}
	return nil
}

// waits judges a program whose disk was full for a while: once it is up, it
// goes on by itself. Before, it may say so and end.
func waits(o killer.Outcome, up bool) error {
	if up && o.Status != 0 {
		return errors.New("it did not wait for room")
	}
	return fails(o, up)
}

// fails judges a program whose disk has failed: it goes on, or says so and
// ends.
func fails(o killer.Outcome, _ bool) error {
	if o.Status == 0 {
		return nil
	}
	said := strings.Split(strings.TrimSpace(o.Output), "\n")
	for _, line := range said {
		if !strings.HasPrefix(line, "rol-logpipe: ") {
			return errors.New("it ends with more than lines of its own")
		}
	}
	last := said[len(said)-1]
	if o.Status != 74 && o.Status != 73 || strings.Contains(last, ": warning: ") || strings.Contains(last, ": error: ") {
		return errors.New("it does not say why it ends, or ends with another status than 74 and 73")
	}
	return nil
}

// endsWith74 judges a program whose spool cannot be synced. The list of hosts
// lies beside it, and is not worth an end.
func endsWith74(o killer.Outcome, up bool) error {
	if o.Status == 0 && strings.Contains(o.Output, "the list of hosts is not written") {
		return nil
	}
	if o.Status != 74 {
		return errors.New("want status 74")
	}
	return fails(o, up)
}

var sweeps = []sweep{
	{name: "killed in the spool", fault: killer.Fault{Calls: killer.Changing}, in: []string{inSpool}, few: 8, judge: killed},
	{name: "killed in the database", fault: killer.Fault{Calls: killer.Changing}, in: []string{inDB}, few: 7, judge: killed},
	{name: "killed in a write of the spool", fault: killer.Fault{Calls: killer.Writing, Short: true}, in: []string{inSpool}, few: 5, judge: killed},
	{name: "killed in a write of the database", fault: killer.Fault{Calls: killer.Writing, Short: true}, in: []string{inDB}, few: 3, judge: killed},
	{name: "killed where something is synced", fault: killer.Fault{Calls: killer.Syncing}, in: []string{inDB, inSpool}, few: 4, judge: killed},
	{name: "no room for the spool", fault: killer.Fault{Calls: killer.Filling, Errno: syscall.ENOSPC, Short: true, More: 4}, in: []string{inSpool}, few: 5, judge: waits},
	{name: "no room for the database", fault: killer.Fault{Calls: killer.Filling, Errno: syscall.ENOSPC, More: 3}, in: []string{inDB}, few: 4, judge: waits},
	{name: "no room for anything", fault: killer.Fault{Calls: killer.Filling, Errno: syscall.ENOSPC, More: 3}, in: []string{inSpool, inDB}, few: 3, judge: waits},
	{name: "the spool's disk fails", fault: killer.Fault{Calls: killer.Changing, Errno: syscall.EIO}, in: []string{inSpool}, few: 6, judge: fails},
	{name: "the database's disk fails", fault: killer.Fault{Calls: killer.Changing, Errno: syscall.EIO}, in: []string{inDB}, few: 5, judge: fails},
	{name: "the spool cannot be synced", fault: killer.Fault{Calls: killer.Syncing, Errno: syscall.EIO}, in: []string{inSpool}, few: 4, judge: endsWith74},
	{name: "the database cannot be synced", fault: killer.Fault{Calls: killer.Syncing, Errno: syscall.EIO}, in: []string{inDB}, few: 3, judge: fails},
}

// atOnce bounds the programs that run at the same time. They mostly wait.
var atOnce = make(chan struct{}, 10)

// trials is what came of a sweep.
type trials struct {
	mu    sync.Mutex
	calls int // of an undisturbed run
	hit   int
	wrong []error
	once  sync.Once
}

func (r *trials) add(hit bool, err error, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if hit {
		r.hit++
	}
	if err != nil && !errors.Is(err, errEnough) {
		r.wrong = append(r.wrong, fmt.Errorf("%s: %w", what, err))
	}
}

// run tries the fault at all moments. want are the rows, maillog the program
// that shows them.
func (s sweep) run(t *testing.T, program, want string) *trials {
	t.Helper()
	maillog := peer.Program(t, "rol-maillog")
	if s.make == nil {
		s.make = newLogFile
	}
	res := &trials{}
	count := func() error {
		_, clean, err := s.try(program, maillog, want, 0)
		if err == nil && (clean.Status != 0 || clean.Count < 5) {
			err = fmt.Errorf("undisturbed: %v", clean)
		}
		res.calls = clean.Count
		return err
	}
	if err := bounded(count); err != nil {
		res.wrong = append(res.wrong, err)
		return res
	}
	var all sync.WaitGroup
	for _, n := range points(t, res.calls, s.few) {
		all.Go(func() {
			_ = bounded(func() error {
				select {
				case <-s.quit:
					return nil
				default:
				}
				hit, _, err := s.try(program, maillog, want, n)
				// Programs that do many things at once make more calls or fewer.
				for round := 0; round < 3 && !hit && err == nil; round++ {
					n = 1 + n*2/3
					hit, _, err = s.try(program, maillog, want, n)
				}
				res.add(hit, err, fmt.Sprintf("%s, at call %d of %d", s.name, n, res.calls))
				if err != nil && s.quit != nil {
					res.once.Do(func() { close(s.quit) })
				}
				return nil
			})
		})
	}
	all.Wait()
	return res
}

func bounded(f func() error) error {
	atOnce <- struct{}{}
	defer func() { <-atOnce }()
	return f()
}

// try runs a service with the fault at the nth call, again without, and
// compares.
func (s sweep) try(program, maillog, want string, n int) (hit bool, o killer.Outcome, err error) {
	st, err := newStage(program, s.make)
	if err != nil {
		return false, o, err
	}
	defer st.remove()
	st.quit = s.quit
	f := s.fault
	f.At = n
	for _, place := range s.in {
		f.Under = append(f.Under, st.dir+place)
	}
	o, up, err := st.disturbed(f)
	if err != nil {
		return false, o, fmt.Errorf("%w: %v", err, o)
	}
	if o.Hit != "" {
		if err := s.judge(o, up); err != nil {
			return true, o, fmt.Errorf("%w: %v", err, o)
		}
	} else if o.Status != 0 {
		return false, o, fmt.Errorf("without a fault: %v", o)
	}
	second, err := st.complete()
	if err == nil {
		err = sane(second.Output)
	}
	if err != nil {
		return o.Hit != "", o, fmt.Errorf("going on: %w: %v\nafter: %v", err, second, o)
	}
	rows, err := st.rows(maillog)
	if err == nil && rows != want {
		err = errors.New(difference(rows, want))
	}
	if err != nil {
		err = fmt.Errorf("%w\nafter: %v\nthen: %v", err, o, second)
	}
	return o.Hit != "", o, err
}

// sane says what must not be said after any crash of a program: something is
// missing that was whole.
func sane(output string) error {
	for _, bad := range []string{"is damaged", "are missing", "ends before the database's position", "is not where this program left it"} {
		if strings.Contains(output, bad) {
			return fmt.Errorf("no crash explains %q", bad)
		}
	}
	return nil
}

func TestServiceAtAnyMoment(t *testing.T) {
	t.Parallel()
	together(t, sweeps, peer.Program(t, "rol-logpipe"), wantRows(t))
}

// together runs sweeps at the same time: what they wait for is not the
// processor.
func together(t *testing.T, sweeps []sweep, program, want string) {
	t.Helper()
	peer.Program(t, "rol-maillog")
	points(t, 1, 1) // says what is wrong with the environment here, and not in a goroutine
	results := make([]*trials, len(sweeps))
	var all sync.WaitGroup
	for i, s := range sweeps {
		all.Go(func() { results[i] = s.run(t, program, want) })
	}
	all.Wait()
	for i, s := range sweeps {
		t.Run(s.name, func(t *testing.T) { s.report(t, results[i]) })
	}
}

// report fails the test for what went wrong, and if the faults have not
// struck.
func (s sweep) report(t *testing.T, r *trials) {
	t.Helper()
	for _, err := range r.wrong[:min(len(r.wrong), 5)] {
		t.Error(err)
	}
	planned := len(points(t, max(r.calls, 1), s.few))
	if r.hit < planned*9/10 {
		t.Errorf("only %d of %d faults struck", r.hit, planned)
	}
	t.Logf("%d faults in %d calls, %d wrong", r.hit, r.calls, len(r.wrong))
}
