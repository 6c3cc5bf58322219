//go:build linux && amd64

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/logpipe"
	"github.com/rolmail/rolmail/tests/peer"
)

// A power cut is a copy of the disk's image while the service writes to it:
// what it has not synced is not in the image, but for what the kernel has
// written on its own. The service is stopped meanwhile, as a copy takes time
// and a power cut does not.
//
// The image has the spool and the database. The logs are on another disk: they
// are the mail server's, and what is lost there is none of the service's
// business. So everything must come: the spool takes from the logs again what
// it has lost, and the database is never ahead of it.
func TestPowerCutsOfTheService(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting an image needs root")
	}
	want := wantRows(t)
	s, err := newStage(peer.Program(t, "rol-logpipe"), newLogFile)
	if err != nil {
		t.Fatal(err)
	}
	defer s.remove()
	image := filepath.Join(s.dir, "image")
	tool(t, "truncate", "-s", "64M", image)
	tool(t, "mkfs.ext4", "-q", image)
	s.disk = mount(t, image, "commit=300")
	s.db = "sqlite:" + s.disk + "/maillog.db"
	p, outcome, err := s.start(nil)
	if err != nil {
		t.Fatal(err)
	}
	log := s.feeder.(*logFile)
	if err := log.begun(p); err != nil {
		t.Fatal(err)
	}
	cuts := 0
	written := make(chan error, 1)
	go func() { written <- log.slowly() }()
	for n := len(points(t, 60, 8)); cuts < n; cuts++ {
		select { // at any moment
		case <-time.After(time.Duration(20+rand.N(4000/n)) * time.Millisecond):
		case <-p.ended:
			t.Fatal("the service has ended")
		}
		p.freeze(t)
		tool(t, "cp", "--sparse=always", image, cutOf(s.dir, cuts))
		p.signal(syscall.SIGCONT)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGKILL)
	<-outcome
	if err := log.append([]byte(lastPart)); err != nil {
		t.Fatal(err)
	}
	read := 0
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range cuts {
		disk := mount(t, cutOf(s.dir, i), "noatime")
		c := &stage{program: s.program, dir: s.dir, disk: disk, db: "sqlite:" + disk + "/maillog.db", feeder: finished{log}}
		all.Go(func() {
			_ = bounded(func() error {
				n, err := c.afterCut(peer.Program(t, "rol-maillog"), want)
				mu.Lock()
				defer mu.Unlock()
				if read += n; err != nil {
					t.Errorf("cut %d: %v", i, err)
				}
				return nil
			})
		})
	}
	all.Wait()
	t.Logf("%d cuts; %d lines were read after them", cuts, read)
}

func cutOf(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("cut%d", i)) }

// finished is a log to which nothing is added.
type finished struct{ feeder }

func (finished) finish(*proc) error { return nil }
func (finished) away()              {}

// begun waits until the service has the log.
func (l *logFile) begun(p *proc) error {
	return p.wait("the beginning", func(r *logpipe.Report) bool { return lines(r) >= l.count[0] && committed(r) })
}

// slowly lets a log grow in small pieces, and rotates it, over some seconds.
func (l *logFile) slowly() error {
	parts, err := labParts()
	if err != nil {
		return err
	}
	for i, part := range parts[1:] {
		if i == 1 {
			if err := os.Rename(l.path, l.path+".1"); err != nil {
				return err
			}
		}
		for len(part) > 0 {
			piece := part[:min(len(part), 5000)]
			part = part[len(piece):]
			if err := l.append(piece); err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond) // a mail server's pace
		}
	}
	return nil
}

// freeze stops the service and returns when all its threads have stopped.
func (p *proc) freeze(t *testing.T) {
	t.Helper()
	p.signal(syscall.SIGSTOP)
	for deadline := time.Now().Add(patience); !stopped(p.pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the service does not stop")
		}
	}
}

func stopped(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		end := bytes.LastIndexByte(stat, ')')
		if err == nil && (end < 0 || !bytes.HasPrefix(stat[end+1:], []byte(" T"))) {
			return false
		}
	}
	return len(threads) > 0
}

// afterCut goes on with what is left and compares. It returns how many lines
// were still to be read.
func (s *stage) afterCut(maillog, want string) (read int, err error) {
	p, outcome, err := s.start(nil)
	if err != nil {
		return 0, err
	}
	if err = p.allIn(); err == nil {
		if r := p.report(); r != nil {
			read = lines(r)
		}
	}
	o := p.end(outcome)
	if err == nil && o.Status != 0 {
		err = errors.New("does not end well")
	}
	if err == nil {
		err = sane(o.Output)
	}
	if err == nil {
		var rows string
		if rows, err = s.rows(maillog); err == nil && rows != want {
			err = errors.New(difference(rows, want))
		}
	}
	if err != nil {
		err = fmt.Errorf("%w\nafter: %v", err, o)
	}
	return read, err
}

// mount mounts an image on a directory with a short name.
func mount(t *testing.T, image, options string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rol-m-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if out, err := exec.Command(peer.Need(t, "mount"), "-o", "loop,"+options, image, dir).CombinedOutput(); err != nil {
		t.Skipf("no image can be mounted here: %s", out)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(peer.Need(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}
