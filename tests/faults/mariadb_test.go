//go:build linux && amd64

package faults

import (
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/peer"
)

// The service and its database server are killed again and again, at random,
// while the log grows and is rotated.
func TestServiceAndMariaDBKilled(t *testing.T) {
	t.Parallel()
	db := peer.StartMariaDB(t)
	want := wantRows(t)
	s, err := newStage(peer.Program(t, "rol-logpipe"), newLogFile)
	if err != nil {
		t.Fatal(err)
	}
	defer s.remove()
	s.db = "mysql:" + db.CF("rol")
	p, outcome, err := s.start(nil)
	if err != nil {
		t.Fatal(err)
	}
	log := s.feeder.(*logFile)
	if err := log.begun(p); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- log.slowly() }()
	long := 8 * time.Second
	if os.Getenv("ROL_FAULT_POINTS") != "" {
		long = 20 * time.Second
	}
	services, servers := 0, 0
	for begun := time.Now(); time.Since(begun) < long; {
		select {
		case <-time.After(time.Duration(100+rand.N(700)) * time.Millisecond):
		case <-p.ended:
			t.Fatalf("the service has ended: %v", <-outcome)
		}
		switch rand.N(3) {
		case 0, 1:
			p.signal(syscall.SIGKILL)
			o := <-outcome
			if err := sane(o.Output); err != nil || o.Status != 128+int(syscall.SIGKILL) {
				t.Fatalf("%v: %v", err, o)
			}
			services++
			if p, outcome, err = s.start(nil); err != nil {
				t.Fatal(err)
			}
		case 2:
			db.Kill()
			servers++
			db.Start()
		}
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if err := log.append([]byte(lastPart)); err != nil {
		t.Fatal(err)
	}
	err = p.allIn()
	if o := p.end(outcome); err != nil || o.Status != 0 || sane(o.Output) != nil {
		t.Fatalf("%v, %v: %v", err, sane(o.Output), o)
	}
	rows, err := s.rows(peer.Program(t, "rol-maillog"))
	if err != nil || rows != want {
		t.Fatalf("%v: %s", err, difference(rows, want))
	}
	if services < 2 || servers < 1 {
		t.Errorf("the service was killed %d times, the server %d times", services, servers)
	}
	t.Logf("the service was killed %d times, the server %d times", services, servers)
}
