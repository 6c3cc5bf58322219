//go:build linux && amd64

// Package killer runs a program that dies at its Nth system call that changes
// files, or whose Nth such call fails: crashes and failing disks at every
// moment of a program's life, one after the other.
package killer

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

// Fault is what happens to a program at its Nth interesting system call,
// counted over all its threads. With At 0 it only counts.
type Fault struct {
	At    int
	Errno syscall.Errno // 0: it is killed; else this call fails
	Stay  bool          // and all later ones
	Short bool          // the Nth call, a write, writes half of it; then comes what is above
	Calls map[uint64]string
}

// The interesting calls.
var (
	// Changing are those that change files.
	Changing = map[uint64]string{
		unix.SYS_PWRITE64: "pwrite64", unix.SYS_WRITE: "write", unix.SYS_FSYNC: "fsync",
		unix.SYS_FDATASYNC: "fdatasync", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FALLOCATE: "fallocate",
		unix.SYS_OPENAT: "openat", unix.SYS_OPEN: "open", unix.SYS_UNLINK: "unlink", unix.SYS_UNLINKAT: "unlinkat",
		unix.SYS_RENAME: "rename", unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2",
		unix.SYS_FCHMOD: "fchmod", unix.SYS_MKDIRAT: "mkdirat",
	}

	// Filling are those that a full disk fails.
	Filling = map[uint64]string{
		unix.SYS_PWRITE64: "pwrite64", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FALLOCATE: "fallocate",
	}

	// Writing are those that Short applies to.
	Writing = map[uint64]string{unix.SYS_PWRITE64: "pwrite64", unix.SYS_WRITE: "write"}

	// Syncing are those that make sure.
	Syncing = map[uint64]string{unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync"}
)

// Outcome is how a run with a fault ended.
type Outcome struct {
	Count  int    // interesting calls seen
	Hit    string // the call at which the fault struck, "" if it did not
	Status int    // 128 + the signal for a killed one
	Output string // both outputs
}

func (o Outcome) String() string {
	return fmt.Sprintf("status %d after %d calls, fault at %q: %s", o.Status, o.Count, o.Hit, strings.TrimSpace(o.Output))
}

// Run runs a command with a fault. It must not be used in parallel: it waits
// for any child.
func (f Fault) Run(t testing.TB, c *exec.Cmd) Outcome {
	t.Helper()
	runtime.LockOSThread() // ptrace knows threads, not processes
	defer runtime.UnlockOSThread()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
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
	o.Output = string(b)
	return o
}

// follow goes with the program, from stop to stop, until it has ended.
func (f Fault) follow(t testing.TB, pid int) (o Outcome) {
	after := map[int]func(*syscall.PtraceRegs){} // what to do when a thread's call has ended
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
				o.Status = ws.ExitStatus()
				if ws.Signaled() {
					o.Status = 128 + int(ws.Signal())
				}
			}
			continue
		case ws.StopSignal() == syscall.SIGTRAP|0x80:
			f.atCall(t, pid, tid, after, &o)
		case ws.StopSignal() != syscall.SIGSTOP && ws.StopSignal() != syscall.SIGTRAP:
			signal = int(ws.StopSignal()) // Go uses signals itself
		}
		_ = syscall.PtraceSyscall(tid, signal) // it may have been killed meanwhile
	}
}

// atCall looks at a thread that enters or leaves a system call.
func (f Fault) atCall(t testing.TB, pid, tid int, after map[int]func(*syscall.PtraceRegs), o *Outcome) {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		return
	}
	set := func() {
		if err := syscall.PtraceSetRegs(tid, &regs); err != nil && err != syscall.ESRCH {
			t.Error(err)
		}
	}
	if leave := after[tid]; leave != nil {
		delete(after, tid)
		leave(&regs)
		set()
		return
	}
	enters := int64(regs.Rax) == -int64(syscall.ENOSYS)
	name := f.Calls[regs.Orig_rax]
	if !enters || name == "" || name == "write" && regs.Rdi <= 2 {
		return
	}
	o.Count++
	if f.At == 0 || o.Count < f.At || o.Count > f.At && !f.Stay {
		return
	}
	first := o.Hit == ""
	if first {
		o.Hit = name
	}
	kill := func() { _ = syscall.Kill(pid, syscall.SIGKILL) }
	switch {
	case f.Short && first:
		whole := regs.Rdx
		regs.Rdx /= 2
		set()
		after[tid] = func(regs *syscall.PtraceRegs) {
			if f.Errno == 0 {
				kill()
			}
			regs.Rdx = whole // the kernel leaves it as it is
		}
	case f.Errno == 0:
		kill()
	default:
		regs.Orig_rax = ^uint64(0) // no such call
		set()
		after[tid] = func(regs *syscall.PtraceRegs) { regs.Rax = uint64(-int64(f.Errno)) }
	}
}
