// Package soak runs the service for as long as it is told to: a cluster's day,
// or many, from a file that is rotated, while its memory and what it keeps open
// are watched. In the end every mail must have its row.
//
// ROL_SOAK_LINES says how many lines there are (200,000), ROL_SOAK_DB where
// they go: sqlite or mariadb.
package soak

import (
	"bufio"
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

	"github.com/rolmail/rolmail/lib/logpipe"
	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/tests/copylog"
	"github.com/rolmail/rolmail/tests/peer"
)

func TestMain(m *testing.M) { os.Exit(peer.Run(m)) }

// What the service may take.
const (
	maxMB   = 150
	growing = 1.3 // the last fifth of the samples to the second; more mails wait by then
)

func TestSoak(t *testing.T) {
	lines := 200_000
	if s := os.Getenv("ROL_SOAK_LINES"); s != "" {
		n, err := strconv.Atoi(s)
		check(t, err)
		lines = n
	}
	tpl, err := copylog.Read(filepath.Join(peer.Root(t), "tests", "lab", "testdata", "lab-a.log"))
	check(t, err)
	perCopy := tpl.Lines() + copylog.PerCopy*copylog.MailLines
	copies := max(2, lines/perCopy)
	want := truth(t, tpl, copies)

	s := startService(t)
	watch := s.watch()
	midnight := time.Now().UTC().AddDate(0, 0, -2).Truncate(24 * time.Hour)
	day := tpl.NewDay(midnight, copies)
	begun := time.Now()
	w := &writer{t: t, s: s, name: s.log, every: max(20_000, min(500_000, copies*perCopy/40))}
	for l := day.Next(); l != nil; l = day.Next() {
		w.write(l)
	}
	w.close()
	s.await(func(st *status) bool { return st.lines() >= w.n && st.Databases[0].LagBytes == 0 })
	took := time.Since(begun)
	samples := watch()
	s.end()
	t.Logf("%d lines, %d rotations, %.0f s, %.0f lines/s; at most %d mails waited", w.n, w.rotations, took.Seconds(),
		float64(w.n)/took.Seconds(), day.Most())
	judge(t, samples, lines, day.Most(), tpl.Lines())
	if got := s.rows(); !slices.Equal(got.list(), want.list()) {
		t.Errorf("rows by outcome and completeness\n got %v\nwant %v", got.list(), want.list())
	} else {
		t.Logf("%d rows, all right: %v", got.sum(), got.list())
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tally is rows by outcome and whether they are complete.
type tally map[string]int

func (c tally) list() (all []string) {
	for k, n := range c {
		all = append(all, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(all)
	return all
}

func (c tally) sum() (n int) {
	for _, k := range c {
		n += k
	}
	return n
}

// truth is what a day must bring: what one copy does (which tests/lab compares
// with what was really sent), so many times, and the mails that waited.
func truth(t *testing.T, tpl *copylog.Template, copies int) tally {
	t.Helper()
	dir := t.TempDir()
	log, db := filepath.Join(dir, "one.log"), "sqlite:"+filepath.Join(dir, "db")
	f, err := os.Create(log)
	check(t, err)
	check(t, tpl.Write(f, tpl.Lines(), false))
	check(t, f.Close())
	out, err := exec.Command(peer.Program(t, "rol-logpipe"), "--config", emptyConfig(t, dir), "--db", db, log).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all := count(t, db)
	for k := range all {
		all[k] *= copies
	}
	all["sent"] += copies * copylog.PerCopy
	return all
}

func emptyConfig(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "rol.cf")
	check(t, os.WriteFile(name, nil, 0o600))
	return name
}

func count(t *testing.T, where string) tally {
	t.Helper()
	db, err := store.Open(where, store.ReadOnly)
	check(t, err)
	defer db.Close()
	r, err := db.Search(t.Context(), &store.Query{})
	check(t, err)
	c := tally{}
	for row, err := range r.All() {
		check(t, err)
		k := row.Outcome
		if !row.Complete {
			k += " incomplete"
		}
		c[k]++
	}
	return c
}

// service is the program under test.
type service struct {
	t                    *testing.T
	program, log, db, sp string
	cmd                  *exec.Cmd
	said                 bytes.Buffer
}

func startService(t *testing.T) *service {
	t.Helper()
	dir := t.TempDir()
	s := &service{
		t: t, program: peer.Program(t, "rol-logpipe"), log: filepath.Join(dir, "mail.log"), sp: filepath.Join(dir, "spool"),
		db: "sqlite:" + filepath.Join(dir, "db"),
	}
	if os.Getenv("ROL_SOAK_DB") == "mariadb" {
		s.db = "mysql:" + peer.StartMariaDB(t).CF("soak")
	}
	check(t, os.WriteFile(s.log, nil, 0o600))
	s.cmd = exec.Command(s.program, "--config", emptyConfig(t, dir), "--spool", s.sp, "--db", s.db, "--follow", s.log)
	s.cmd.Stderr = &s.said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(t, s.cmd.Start())
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		if s.said.Len() > 0 {
			t.Logf("it said: %.2000s", s.said.String())
		}
	})
	return s
}

func (s *service) end() {
	s.t.Helper()
	check(s.t, s.cmd.Process.Signal(syscall.SIGTERM))
	check(s.t, s.cmd.Wait())
}

func (s *service) rows() tally { return count(s.t, s.db) }

// status is what the service says of itself, and the system of its memory.
type status struct {
	*logpipe.Report
	at time.Time
	mb float64
}

// lines is how many lines are in the database.
func (st *status) lines() int64 { return st.Databases[0].Lines }

// look asks how the service is; nil: it does not say, yet.
func (s *service) look() *status {
	r, err := logpipe.Ask(s.t.Context(), s.sp)
	if err != nil || len(r.Databases) != 1 {
		return nil
	}
	now, _, err := peer.Memory(s.cmd.Process.Pid)
	if err != nil {
		return nil
	}
	return &status{Report: r, at: time.Now(), mb: float64(now) / 1e6}
}

// await waits for something.
func (s *service) await(ok func(*status) bool) {
	s.t.Helper()
	last, lines := time.Now(), int64(-1)
	for {
		st := s.look()
		if st != nil && ok(st) {
			return
		}
		if st != nil && st.lines() != lines {
			last, lines = time.Now(), st.lines()
		}
		if time.Since(last) > 2*time.Minute {
			s.t.Fatalf("it stands still: %+v", st)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// watch looks every second, until the function it returns is called.
func (s *service) watch() func() []*status {
	quit, done := make(chan bool), make(chan []*status)
	go func() {
		var all []*status
		for {
			select {
			case <-quit:
				done <- all
				return
			case <-time.After(time.Second):
			}
			if st := s.look(); st != nil {
				all = append(all, st)
				if len(all)%60 == 0 {
					d := st.Databases[0]
					s.t.Logf("%s: %d lines, %.0f MB, open: %d sessions, %d legs, %d scans; spool %d MB", st.at.Format(time.TimeOnly),
						d.Lines, st.mb, d.Sessions, d.Legs, d.Scans, st.Spool.Bytes>>20)
				}
			}
		}
	}()
	return func() []*status {
		close(quit)
		return <-done
	}
}

// writer writes the log, and rotates it as logrotate does. It waits when the
// service is so far behind that a file would go before it was read.
type writer struct {
	t         *testing.T
	s         *service
	name      string
	every     int
	f         *os.File
	out       *bufio.Writer
	n         int64
	rotations int
}

// keptFiles is how many rotated files there are at most.
const keptFiles = 4

func (w *writer) write(line []byte) {
	if w.f == nil || w.n%int64(w.every) == 0 {
		w.rotate()
	}
	_, err := w.out.Write(line)
	check(w.t, err)
	w.n++
}

func (w *writer) rotate() {
	if w.f != nil {
		w.close()
		w.s.await(func(st *status) bool {
			return st.lines() >= w.n-int64(keptFiles-2)*int64(w.every)
		})
		w.rotations++
		for i := keptFiles; i > 0; i-- {
			from := w.name
			if i > 1 {
				from = fmt.Sprintf("%s.%d", w.name, i-1)
			}
			if err := os.Rename(from, fmt.Sprintf("%s.%d", w.name, i)); err != nil && !os.IsNotExist(err) {
				w.t.Fatal(err)
			}
		}
	}
	var err error
	w.f, err = os.OpenFile(w.name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(w.t, err)
	w.out = bufio.NewWriterSize(w.f, 64<<10)
}

func (w *writer) close() {
	check(w.t, w.out.Flush())
	check(w.t, w.f.Close())
}

// judge looks at what the service took on its way.
func judge(t *testing.T, all []*status, lines, waiting, template int) {
	t.Helper()
	if len(all) == 0 {
		t.Fatal("it was never seen")
	}
	var mb []float64
	most := all[0].Databases[0]
	for _, st := range all {
		d := st.Databases[0]
		mb = append(mb, st.mb)
		most.Sessions, most.Legs = max(most.Sessions, d.Sessions), max(most.Legs, d.Legs)
		most.Scans, most.Waiting = max(most.Scans, d.Scans), max(most.Waiting, d.Waiting)
	}
	end := all[len(all)-1].Databases[0]
	fifth := len(mb) / 5
	early, late := middle(mb[fifth:max(fifth+1, 2*fifth)]), middle(mb[len(mb)-max(1, fifth):])
	t.Logf("memory: %.0f MB in the second fifth, %.0f MB in the last, at most %.0f MB", early, late, slices.Max(mb))
	t.Logf("open at most: %d sessions, %d legs, %d scans, %d handed on; at the end %d, %d, %d, %d", most.Sessions, most.Legs,
		most.Scans, most.Waiting, end.Sessions, end.Legs, end.Scans, end.Waiting)
	if slices.Max(mb) > maxMB {
		t.Errorf("at most %.0f MB, want %d", slices.Max(mb), maxMB)
	}
	if lines >= 2_000_000 && late > growing*early {
		t.Errorf("memory grows from %.0f to %.0f MB", early, late)
	}
	// A mail that waits is two legs. Of the copies a few overlap, and what has
	// ended is known a while longer.
	if bound := 2*waiting + 10*template; most.Legs > bound || most.Scans > bound || most.Sessions > bound {
		t.Errorf("more is open than there can be: above %d", bound)
	}
	if end.Unparsed != 0 || end.Late != 0 {
		t.Errorf("%d lines not understood, %d late", end.Unparsed, end.Late)
	}
	// What is given up for its age, the lab's log does not end.
	for why, n := range end.GivenUp {
		if strings.HasSuffix(why, "room") && n > 0 || len(end.GivenUp) != 6 {
			t.Errorf("given up: %d %s", n, why)
		}
	}
}

func middle(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
