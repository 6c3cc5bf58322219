//go:build linux && amd64

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fault is what happens to a program at its Nth interesting system call,
// counted over all its threads. With at 0 it only counts.
type fault struct {
	at    int
	errno syscall.Errno // 0: it is killed; else this call fails
	stay  bool          // and all later ones
	calls map[uint64]string
}

// The interesting calls: those that change files.
var (
	changing = map[uint64]string{
		unix.SYS_PWRITE64: "pwrite64", unix.SYS_WRITE: "write", unix.SYS_FSYNC: "fsync",
		unix.SYS_FDATASYNC: "fdatasync", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FALLOCATE: "fallocate",
		unix.SYS_OPENAT: "openat", unix.SYS_OPEN: "open", unix.SYS_UNLINK: "unlink", unix.SYS_UNLINKAT: "unlinkat",
		unix.SYS_RENAME: "rename", unix.SYS_RENAMEAT: "renameat", unix.SYS_FCHMOD: "fchmod",
	}
	filling = map[uint64]string{
		unix.SYS_PWRITE64: "pwrite64", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FALLOCATE: "fallocate",
	}
	syncing = map[uint64]string{unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync"}
)

// outcome is how a run with a fault ended.
type outcome struct {
	count  int    // interesting calls seen
	hit    string // the call at which the fault struck, "" if it did not
	status int    // 128 + the signal for a killed one
	output string // both outputs
}

func (o outcome) String() string {
	return fmt.Sprintf("status %d after %d calls, fault at %q: %s", o.status, o.count, o.hit, strings.TrimSpace(o.output))
}

// run runs a program with a fault. It must not be used in parallel: it waits
// for any child.
func (f fault) run(t *testing.T, program string, args ...string) outcome {
	t.Helper()
	runtime.LockOSThread() // ptrace knows threads, not processes
	defer runtime.UnlockOSThread()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c := exec.Command(program, args...)
	c.Env = append(os.Environ(), "TZ=UTC")
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pid := c.Process.Pid
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil || !ws.Stopped() {
		t.Fatalf("the traced program does not stop: %v, %v", err, ws)
	}
	const options = syscall.PTRACE_O_TRACECLONE | syscall.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL
	if err := syscall.PtraceSetOptions(pid, options); err != nil {
		t.Fatal(err)
	}
	_ = syscall.PtraceSyscall(pid, 0)
	o := f.follow(t, pid)
	_ = c.Process.Release()
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	o.output = string(b)
	return o
}

// follow goes with the program, from stop to stop, until it has ended.
func (f fault) follow(t *testing.T, pid int) (o outcome) {
	failing := map[int]bool{} // threads whose call must return the error
	for {
		var ws syscall.WaitStatus
		tid, err := syscall.Wait4(-1, &ws, syscall.WALL, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return o
		}
		signal := 0
		switch {
		case ws.Exited() || ws.Signaled():
			if tid == pid {
				o.status = ws.ExitStatus()
				if ws.Signaled() {
					o.status = 128 + int(ws.Signal())
				}
			}
			continue
		case ws.StopSignal() == syscall.SIGTRAP|0x80:
			f.atCall(t, pid, tid, failing, &o)
		case ws.StopSignal() != syscall.SIGSTOP && ws.StopSignal() != syscall.SIGTRAP:
			signal = int(ws.StopSignal()) // Go uses signals itself
		}
		_ = syscall.PtraceSyscall(tid, signal) // it may have been killed meanwhile
	}
}

// atCall looks at a thread that enters or leaves a system call.
func (f fault) atCall(t *testing.T, pid, tid int, failing map[int]bool, o *outcome) {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		return
	}
	enters := int64(regs.Rax) == -int64(syscall.ENOSYS) && !failing[tid]
	if failing[tid] {
		delete(failing, tid)
		regs.Rax = uint64(-int64(f.errno))
		if err := syscall.PtraceSetRegs(tid, &regs); err != nil {
			t.Error(err)
		}
		return
	}
	name := f.calls[regs.Orig_rax]
	if !enters || name == "" || name == "write" && regs.Rdi <= 2 {
		return
	}
	o.count++
	if f.at == 0 || o.count < f.at || o.count > f.at && !f.stay {
		return
	}
	if o.hit == "" {
		o.hit = name
	}
	if f.errno == 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		return
	}
	regs.Orig_rax = ^uint64(0) // no such call
	if err := syscall.PtraceSetRegs(tid, &regs); err != nil {
		t.Error(err)
	}
	failing[tid] = true
}
