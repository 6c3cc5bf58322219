package pipeline

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/lab"
	"github.com/rolmail/rolmail/tests/peer"
)

// reach is how soon a row must be found after its line was written: 99 of 100.
const reach = 2 * time.Second

// follower is a running rol-maillog follow, and when it told what.
type follower struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu    sync.Mutex
	first map[seen]time.Time
}

// seen is what a row says of a recipient.
type seen struct{ rcpt, outcome string }

// follow starts rol-maillog follow on a database, as soon as that has tables.
func follow(t testing.TB, db string) *follower {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(50 * time.Millisecond) {
		if _, _, err := search(t, db); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	f := &follower{
		cmd:  exec.Command(peer.Program(t, "rol-maillog"), "follow", "--db", db, "--format", "json"),
		done: make(chan struct{}), first: map[seen]time.Time{},
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	f.cmd.Stderr = os.Stderr
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(f.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			f.row(s.Bytes())
		}
	}()
	t.Cleanup(f.stop)
	return f
}

func (f *follower) row(line []byte) {
	now := time.Now()
	var r struct{ Rcpt, Outcome string }
	if json.Unmarshal(line, &r) != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if k := (seen{r.Rcpt, r.Outcome}); f.first[k].IsZero() {
		f.first[k] = now
	}
}

func (f *follower) stop() {
	_ = f.cmd.Process.Kill()
	<-f.done
	_ = f.cmd.Wait()
}

// lastWord is a line that says what becomes of a recipient.
var lastWord = regexp.MustCompile(`(?m)^(\S+) .* to=<([^>]*)>`)

// latencies are the times from the last line about a recipient to the row that
// says so, for the mails whose last line names the recipient.
func (f *follower) latencies(t testing.TB, log []byte, truths []lab.Truth) []time.Duration {
	t.Helper()
	written := map[string]time.Time{}
	for _, m := range lastWord.FindAllSubmatch(log, -1) {
		at, err := time.Parse(time.RFC3339Nano, string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		written[string(m[2])] = at
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []time.Duration
	for _, truth := range truths {
		at, known := written[truth.Rcpt]
		if truth.Fate == "expired" || truth.Rcpt == "" || truth.Kind == lab.Notice || !known {
			continue
		}
		found := f.first[seen{truth.Rcpt, truth.Fate}]
		if found.IsZero() {
			t.Errorf("never told: %+v", truth)
			continue
		}
		all = append(all, max(0, found.Sub(at)))
	}
	slices.Sort(all)
	return all
}

// attempts is how often a run may be too slow before that is the program's
// doing and not that of other tests on the machine.
const attempts = 3

// Rows appear while the mail is still moving.
func TestLatency(t *testing.T) {
	theCluster(t)
	maria := peer.StartMariaDB(t)
	for _, c := range []scenarioCase{
		{name: "undisturbed", way: byFile, dbs: []string{sqlite}},
		{name: "undisturbed", way: byFIFO, dbs: []string{mariadb}},
		{name: "undisturbed", way: byOmprog, dbs: []string{mariadb}},
	} {
		t.Run(c.title(), func(t *testing.T) {
			var p99 time.Duration
			for range attempts {
				if p99 = latency(t, c, maria); p99 <= reach {
					return
				}
			}
			t.Errorf("p99 is above %v in each of %d attempts, the last is %v", reach, attempts, p99)
		})
	}
}

// latency runs a case and returns the time within which 99 of 100 mails were
// told.
func latency(t *testing.T, c scenarioCase, maria *peer.MariaDB) (p99 time.Duration) {
	var f *follower
	c.over = 5 * time.Second
	c.before = func(s *scenario) {
		s.c.machines[0].say(s.t, "omprog starts its program with the first line")
		f = follow(s.t, s.dbs[0])
	}
	c.check = func(s *scenario, truths []lab.Truth) {
		log, err := os.ReadFile(s.syslog.reference)
		if err != nil {
			s.t.Fatal(err)
		}
		all := f.latencies(s.t, log, truths)
		if len(all) < 50 {
			s.t.Fatalf("only %d latencies", len(all))
		}
		p99 = all[len(all)*99/100]
		s.t.Logf("latency of %d mails: p50 %v, p99 %v, most %v", len(all), all[len(all)/2], p99, all[len(all)-1])
	}
	c.run(t, maria)
	return p99
}
