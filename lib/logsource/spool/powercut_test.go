//go:build linux && amd64

package spool

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

// A power cut is a copy of the disk's image while a program writes to it:
// what the program has not synced is not in the image, but for what the kernel
// has written on its own. The program is stopped meanwhile, as a copy takes
// time and a power cut does not.
func TestPowerCut(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting an image needs root")
	}
	image, cut := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "cut")
	tool(t, "truncate", "-s", "32M", image)
	tool(t, "mkfs.ext4", "-q", image)
	mounted := t.TempDir()
	mount(t, image, mounted)
	c := command(self(t), filepath.Join(mounted, "spool"), syncEnv+"=1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Process.Kill(), c.Wait() })
	synced := make(chan int, 1<<20) // what it says, as it says it
	go func() {
		defer close(synced)
		for s := bufio.NewScanner(out); s.Scan(); {
			var n int
			if _, err := fmt.Sscanf(s.Text(), "synced %d", &n); err == nil {
				synced <- n + 1
			}
		}
	}()
	unsynced := 0
	for i := range 6 {
		n := 0
		for range 1 + i*17 {
			var more bool
			if n, more = <-synced; !more {
				t.Fatal("the child has ended")
			}
		}
		if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		stopped(t, c.Process.Pid)
		for len(synced) > 0 {
			n = <-synced
		}
		tool(t, "cp", "--sparse=always", image, cut)
		if err := c.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		state, err := afterCut(t, cut)
		if err != nil || state < n {
			t.Errorf("cut %d: %d chunks, of which %d were synced: %v", i, state, n, err)
		}
		unsynced += state - n
	}
	t.Logf("%d chunks more than were said to be synced, in six cuts", unsynced)
}

// afterCut reads what is left, and how many chunks that is.
func afterCut(t *testing.T, image string) (int, error) {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	unmount := mount(t, image, dir)
	defer unmount()
	s, err := Open(childOptions(filepath.Join(dir, "spool")))
	if err != nil {
		return 0, err
	}
	defer s.Close()
	r, err := s.NewReader(s.Begin())
	if err != nil {
		return 0, err
	}
	defer r.Close()
	next := map[string]int{}
	for {
		b, err := r.TryNext()
		if err != nil {
			return 0, err
		}
		if b == nil {
			break
		}
		if err := follows(next, b); err != nil {
			return 0, err
		}
	}
	state, _ := strconv.Atoi(string(s.State("a")))
	if some, is := next["a"]; is && some != state {
		return state, fmt.Errorf("state %d, chunks to %d", state, some)
	}
	return state, nil
}

// stopped waits until a process has stopped.
func stopped(t *testing.T, pid int) {
	t.Helper()
	poll(t, "a stopped child", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		var id int
		var name string
		var state rune
		_, _ = fmt.Sscanf(string(b), "%d %s %c", &id, &name, &state)
		return state == 'T'
	})
}

// mount mounts an image of a file system whose journal commits only when it is
// told to.
func mount(t *testing.T, image, dir string) (unmount func()) {
	t.Helper()
	if out, err := exec.Command(peer.Need(t, "mount"), "-o", "loop,commit=300", image, dir).CombinedOutput(); err != nil {
		t.Skipf("no image can be mounted here: %s", out)
	}
	done := false
	unmount = func() {
		if !done {
			done = true
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	}
	t.Cleanup(unmount)
	return unmount
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(peer.Need(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}
