package logsource

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// waiter waits for a descriptor or the end of a context. A read that blocks
// could not be ended, and the runtime's poller costs a line read in lock-step
// two system calls more.
type waiter struct {
	event int
	stop  func() bool
	fds   [2]unix.PollFd
}

func newWaiter(ctx context.Context) (*waiter, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, sysexits.Errorf(sysexits.IO, "eventfd: %w", err)
	}
	// The event is written to a duplicate that closes behind it: the waiter
	// may be gone when the context ends.
	dup, err := unix.FcntlInt(uintptr(event), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(event)
		return nil, sysexits.Errorf(sysexits.IO, "dup: %w", err)
	}
	f := os.NewFile(uintptr(dup), "eventfd")
	w := &waiter{event: event}
	stop := context.AfterFunc(ctx, func() {
		f.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
		f.Close()
	})
	w.stop = func() bool {
		if stop() {
			f.Close()
		}
		return true
	}
	return w, nil
}

func (w *waiter) close() {
	w.stop()
	unix.Close(w.event)
}

// wait returns when fd can be read or has hung up (ready), when d is over, or
// when the context is done. A negative d is forever.
func (w *waiter) wait(ctx context.Context, fd int, d time.Duration) (ready bool, err error) {
	w.fds = [2]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(w.event), Events: unix.POLLIN}}
	ms := -1
	if d >= 0 {
		ms = int(d.Milliseconds())
	}
	for {
		_, err = unix.Poll(w.fds[:], ms)
		if err == unix.EINTR {
			err = nil
			if d < 0 {
				continue
			}
		}
		if err == nil {
			err = ctx.Err()
		}
		return w.fds[0].Revents != 0, err
	}
}

// readFD reads once, and again when a signal came between.
func readFD(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// ioError says where reading or writing failed.
func ioError(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return sysexits.Errorf(sysexits.IO, "%s: %w", name, err)
}
