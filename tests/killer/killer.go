//go:build linux && amd64

// Package killer runs a program that dies at its Nth system call that changes
// files, or whose Nth such call fails: crashes and failing disks at every
// moment of a program's life, one after the other.
package killer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Fault is what happens to a program at its Nth interesting system call,
// counted over all its threads. With At 0 it only counts.
type Fault struct {
	At      int
	Errno   syscall.Errno // 0: it is killed; else this call fails
	More    int           // and as many after it
	Stay    bool          // and all later ones
	Short   bool          // the Nth call, a write, writes half of it; then comes what is above
	Calls   map[uint64]string
	Under   []string      // only calls on files whose paths begin so; none: on all, but what it says
	Says    bool          // writes to standard output are interesting, too
	Started func(pid int) // called when the program runs, before its first instruction
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

// Run runs a command with a fault.
func (f Fault) Run(t testing.TB, c *exec.Cmd) Outcome {
	t.Helper()
	o, err := f.Try(c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Try does what Run does, in any goroutine. Outputs of the command that have
// been set are left as they are, the others are in the Outcome.
func (f Fault) Try(c *exec.Cmd) (o Outcome, err error) {
	runtime.LockOSThread() // ptrace knows threads, not processes
	defer runtime.UnlockOSThread()
	out, err := os.CreateTemp("", "rol-out-")
	if err != nil {
		return o, err
	}
	defer out.Close()
	_ = os.Remove(out.Name())
	if c.Stdout == nil {
		c.Stdout = out
	}
	if c.Stderr == nil {
		c.Stderr = out
	}
	c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := c.Start(); err != nil {
		return o, err
	}
	pid := c.Process.Pid
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil || !ws.Stopped() {
		return o, fmt.Errorf("the traced program does not stop: %w, %v", err, ws)
	}
	const options = syscall.PTRACE_O_TRACECLONE | syscall.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL
	if err := syscall.PtraceSetOptions(pid, options); err != nil {
		return o, err
	}
	if f.Started != nil {
		f.Started(pid)
	}
	_ = syscall.PtraceSyscall(pid, 0)
	err = f.follow(pid, &o)
	_ = c.Process.Release()
	b, rerr := io.ReadAll(io.NewSectionReader(out, 0, maxOutput))
	o.Output = string(b)
	return o, errors.Join(err, rerr)
}

// maxOutput bounds what is kept of an output, bytes.
const maxOutput = 1 << 20

// follow goes with the program, from stop to stop, until it has ended.
func (f Fault) follow(pid int, o *Outcome) error {
	after := map[int]func(*syscall.PtraceRegs){} // what to do when a thread's call has ended
	for {
		var ws syscall.WaitStatus
		// Any thread of the program. It has a process group of its own: other
		// children may run meanwhile, and somebody else waits for those.
		tid, err := syscall.Wait4(-pid, &ws, syscall.WALL, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil { // none is left
			return nil
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
			if err := f.atCall(pid, tid, after, o); err != nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				return err
			}
		case ws.StopSignal() != syscall.SIGSTOP && ws.StopSignal() != syscall.SIGTRAP:
			signal = int(ws.StopSignal()) // Go uses signals itself
		}
		_ = syscall.PtraceSyscall(tid, signal) // it may have been killed meanwhile
	}
}

// atCall looks at a thread that enters or leaves a system call.
func (f Fault) atCall(pid, tid int, after map[int]func(*syscall.PtraceRegs), o *Outcome) error {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		return nil
	}
	set := func() error {
		if err := syscall.PtraceSetRegs(tid, &regs); err != nil && err != syscall.ESRCH { // killed meanwhile
			return err
		}
		return nil
	}
	if leave := after[tid]; leave != nil {
		delete(after, tid)
		leave(&regs)
		return set()
	}
	enters := int64(regs.Rax) == -int64(syscall.ENOSYS)
	name := f.Calls[regs.Orig_rax]
	if !enters || name == "" || !f.interesting(tid, name, &regs) {
		return nil
	}
	o.Count++
	if f.At == 0 || o.Count < f.At || o.Count > f.At+f.More && !f.Stay {
		return nil
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
		after[tid] = func(regs *syscall.PtraceRegs) {
			if f.Errno == 0 {
				kill()
			}
			regs.Rdx = whole // the kernel leaves it as it is
		}
		return set()
	case f.Errno == 0:
		kill()
	default:
		regs.Orig_rax = ^uint64(0) // no such call
		after[tid] = func(regs *syscall.PtraceRegs) { regs.Rax = uint64(-int64(f.Errno)) }
		return set()
	}
	return nil
}

// byPath are the calls that name a file, by the register that points to its
// name. All others have its descriptor.
var byPath = map[string]func(*syscall.PtraceRegs) uint64{
	"open":      func(r *syscall.PtraceRegs) uint64 { return r.Rdi },
	"unlink":    func(r *syscall.PtraceRegs) uint64 { return r.Rdi },
	"rename":    func(r *syscall.PtraceRegs) uint64 { return r.Rdi },
	"openat":    func(r *syscall.PtraceRegs) uint64 { return r.Rsi },
	"unlinkat":  func(r *syscall.PtraceRegs) uint64 { return r.Rsi },
	"renameat":  func(r *syscall.PtraceRegs) uint64 { return r.Rsi },
	"renameat2": func(r *syscall.PtraceRegs) uint64 { return r.Rsi },
	"mkdirat":   func(r *syscall.PtraceRegs) uint64 { return r.Rsi },
}

// interesting tells whether a call of the kind is one of those meant.
func (f Fault) interesting(tid int, name string, regs *syscall.PtraceRegs) bool {
	if name == "write" && regs.Rdi <= 2 {
		return f.Says && regs.Rdi == 1
	}
	if len(f.Under) == 0 {
		// Go wakes its poller by a write to an eventfd, and ends when that fails.
		return name != "write" || !strings.HasPrefix(openAs(tid, regs), "anon_inode:")
	}
	path := ""
	if at := byPath[name]; at != nil {
		path = textAt(tid, at(regs))
	} else {
		path = openAs(tid, regs)
	}
	return slices.ContainsFunc(f.Under, func(under string) bool { return strings.HasPrefix(path, under) })
}

// openAs is what the descriptor is that a call has first.
func openAs(tid int, regs *syscall.PtraceRegs) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, int32(regs.Rdi)))
	return path
}

// textAt reads a C string of a program that has stopped.
func textAt(tid int, at uint64) string {
	var b [4096]byte
	n, _ := syscall.PtracePeekData(tid, uintptr(at), b[:])
	text, _, _ := strings.Cut(string(b[:n]), "\x00")
	return text
}
