package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/sysexits"
)

const lockName = "lock"

// takeLock makes this process the only one of the spool. The lock is flock(2):
// it ends with the process, however that ends. Who waits looks again every 20
// ms rather than block in the kernel, where nothing could end the wait.
func takeLock(o *Options) (*os.File, error) {
	path := filepath.Join(o.Dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, sysexits.Wrap(sysexits.IO, err)
	}
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EWOULDBLOCK && time.Since(begun) < o.LockWait {
			continue
		}
		if err == unix.EWOULDBLOCK {
			who := holder(f)
			f.Close()
			return nil, sysexits.Errorf(sysexits.TryAgain, "%s: %s uses this spool; try again when that has ended", o.Dir, who)
		}
		if err != nil { // a file system without such locks: better without than not at all
			o.Log.Warn("the spool cannot be locked; see to it that only one process uses it", "file", path, "error", err.Error())
		}
		sign(f)
		return f, nil
	}
}

// sign writes this process's id into the lock file, for people. On a full disk
// it may not be there.
func sign(f *os.File) {
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
}

// signed is the process id in a lock file, 0 where there is none.
func signed(f *os.File) int {
	var b [32]byte
	n, _ := f.ReadAt(b[:], 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// holder says who has the lock.
func holder(f *os.File) string {
	pid := signed(f)
	if pid == 0 {
		return "another process"
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("the process %d", pid)
	}
	return fmt.Sprintf("%q, process %d,", strings.TrimSpace(string(name)), pid)
}
