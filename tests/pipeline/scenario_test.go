package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/lab"
	"github.com/rolmail/rolmail/tests/peer"
)

// scenario is a run of the whole: mails pass the cluster, rsyslogd hands the
// lines on, rol-logpipe writes rows, and meanwhile something is disturbed.
type scenario struct {
	t       testing.TB
	c       *cluster
	dir     string
	way     way
	dbs     []string // as --db
	maria   *peer.MariaDB
	syslog  *rsyslogd
	logpipe *logpipe
	rng     *rand.Rand // of the disturbance
	notes   []string   // what it did
	dead    map[string]bool

	degraded string // what /healthz has said
}

// sqliteAndMaria are the names of the databases that a case can have.
const (
	sqlite  = "sqlite"
	mariadb = "mariadb"
)

// disturbance goes on until ctx is done, and then puts right what it broke.
type disturbance func(ctx context.Context, s *scenario)

// scenarioCase is a case of the table.
type scenarioCase struct {
	name    string
	way     way
	dbs     []string // sqlite, mariadb
	disturb disturbance
	spool   string                                // size of a file system of its own for the spool
	hurts   bool                                  // so that /healthz says so
	over    time.Duration                         // the mails are spread over so long, at least
	before  func(s *scenario)                     // when all runs, before the first mail
	check   func(s *scenario, truths []lab.Truth) // when all is right
}

// lifetime is how long a scenario may take to get right after the last mail.
const lifetime = 60 * time.Second

func (sc scenarioCase) title() string {
	return sc.name + "/" + string(sc.way) + "/" + strings.Join(sc.dbs, "+")
}

func (sc scenarioCase) run(t *testing.T, maria *peer.MariaDB) {
	c := theCluster(t)
	seed := newSeed(t)
	s := &scenario{
		t: t, c: c, dir: scratch(t), way: sc.way, maria: maria, rng: rand.New(rand.NewPCG(seed, 1)), dead: map[string]bool{},
	}
	for i, kind := range sc.dbs {
		s.dbs = append(s.dbs, s.database(kind, i))
	}
	if sc.spool != "" {
		mountSpool(t, filepath.Join(s.dir, "spool"), sc.spool)
	}
	s.logpipe = newLogpipe(t, sc.way, s.dir, s.dbs)
	s.logpipe.start()
	s.syslog = startRsyslog(t, c.machines, s.dir, sc.way.action(s.dir, s.logpipe.command()))
	s.logpipe.syslog = s.syslog

	if sc.before != nil {
		sc.before(s)
	}
	g := newGenerator(t, c, seed)
	ctx, cancel := context.WithCancel(context.Background())
	var disturbed sync.WaitGroup
	if sc.disturb != nil {
		watch, enough := context.WithCancel(context.Background())
		disturbed.Go(func() { s.watchHealth(watch) })
		disturbed.Go(func() {
			sc.disturb(ctx, s)
			if sc.hurts { // what it does may show a moment later: at the next commit
				time.AfterFunc(10*time.Second, enough)
			} else {
				enough()
			}
		})
	}
	begun := time.Now()
	over := sc.over
	if os.Getenv(mailsEnv) != "" {
		over *= 3
	}
	g.send(mailCount(t, 250), over)
	sent := time.Since(begun)
	truths := g.finish(t, c, 2*time.Minute, func() {
		cancel()
		disturbed.Wait()
	})
	t.Logf("%d truths, sent in %v, done in %v; %s", len(truths), sent.Round(time.Millisecond),
		time.Since(begun).Round(time.Millisecond), strings.Join(s.notes, "; "))
	s.syslog.flushed()
	if sc.hurts && s.degraded == "" {
		t.Error("/healthz was well all the time")
	}
	s.judge(truths)
	if sc.check != nil {
		sc.check(s, truths)
	}
}

// database makes one, and returns its name for --db.
func (s *scenario) database(kind string, n int) string {
	if kind == sqlite {
		return fmt.Sprintf("sqlite:%s/maillog%d.db", s.dir, n)
	}
	return "mysql:" + s.maria.CF(fmt.Sprintf("run%d_%d", s.c.runs, n))
}

// note remembers what the disturbance did, for the log of the test.
func (s *scenario) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// judge waits until the rows are right in every database that lives, ends
// rol-logpipe, and looks whether they are still right, and the same as those of
// the reference log, read afterwards.
func (s *scenario) judge(truths []lab.Truth) {
	s.t.Helper()
	begun := time.Now()
	for _, db := range s.dbs {
		if !s.dead[db] {
			s.wait(db, truths, begun.Add(lifetime))
		}
	}
	s.t.Logf("right after %v", time.Since(begun).Round(time.Millisecond))
	s.healthy()
	s.logpipe.stop()
	for _, w := range s.logpipe.complaints() {
		out, _ := os.ReadFile(s.logpipe.output)
		s.t.Errorf("%s\n%s", w, tail(out, 20))
	}
	reference := s.reference()
	for _, db := range s.dbs {
		if s.dead[db] {
			continue
		}
		out, rows, err := search(s.t, db)
		if err != nil {
			s.t.Error(err)
			continue
		}
		if wrong := lab.ScoreAll(truths, rows); wrong != nil {
			keep(s.t, s.dir, truths, out, wrong)
		} else if diff := difference(out, reference); diff != "" {
			keep(s.t, s.dir, truths, out, []string{db + " differs from the log read afterwards: " + diff})
		}
	}
}

// wait waits until the rows of a database are right.
func (s *scenario) wait(db string, truths []lab.Truth, until time.Time) {
	s.t.Helper()
	for {
		out, rows, err := search(s.t, db)
		wrong := []string{fmt.Sprint(err)}
		if err == nil {
			wrong = lab.ScoreAll(truths, rows)
		}
		if wrong == nil {
			return
		}
		if time.Now().After(until) {
			keep(s.t, s.dir, truths, out, wrong)
			s.blame()
			messages, _ := os.ReadFile(s.logpipe.output)
			s.t.Fatalf("%s is not right after %v; rol-logpipe said:\n%s", db, lifetime, tail(messages, 20))
		}
		<-time.After(200 * time.Millisecond)
	}
}

// blame says so when the lines were lost before rol-logpipe could see them: then
// the disturbance is wrong, and not what was disturbed.
func (s *scenario) blame() {
	if s.way != byFile {
		return
	}
	count := map[string]int{}
	b, _ := os.ReadFile(s.syslog.reference)
	for line := range strings.Lines(string(b)) {
		count[line]++
	}
	names, _ := filepath.Glob(filepath.Join(s.dir, "mail.log*"))
	for _, name := range names {
		b, _ := os.ReadFile(name)
		for line := range strings.Lines(string(b)) {
			count[line]--
		}
	}
	for line, n := range count {
		if n != 0 {
			s.t.Errorf("the disturbance itself lost or doubled a line: %d %q", -n, line)
		}
	}
}

// reference is the rows of the log that rsyslogd has written besides.
func (s *scenario) reference() []byte {
	s.t.Helper()
	db := "sqlite:" + filepath.Join(s.dir, "reference.db")
	if _, err := run("rol-logpipe", peer.Program(s.t, "rol-logpipe"), "--db", db, s.syslog.reference); err != nil {
		s.t.Fatal(err)
	}
	out, _, err := search(s.t, db)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// difference names rows that are in one only, "" if there are none.
func difference(got, want []byte) string {
	in := func(text []byte) map[string]bool {
		all := map[string]bool{}
		for line := range bytes.SplitSeq(bytes.TrimSpace(text), []byte("\n")) {
			all[string(line)] = true
		}
		return all
	}
	g, w := in(got), in(want)
	var lines []string
	for line := range g {
		if !w[line] {
			lines = append(lines, "+ "+line)
		}
	}
	for line := range w {
		if !g[line] {
			lines = append(lines, "- "+line)
		}
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
	if len(lines) > 10 {
		lines = append(lines[:10], fmt.Sprintf("and %d more", len(lines)-10))
	}
	return strings.Join(lines, "\n")
}

// tail is the last lines of a text.
func tail(text []byte, n int) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n-1):], nil)
}
