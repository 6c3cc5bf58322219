package logsource

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// spinTime is for how long a pipe is read again and again before the process
// goes to sleep for it.
const spinTime = 50 * time.Microsecond

// brisk reads a pipe whose writer waits for an answer to each line. The next
// line comes a few microseconds behind the answer: less than it takes to be
// put to sleep and woken, which then is most of what a line costs. So as long
// as lines come that fast it does not sleep. It yields the processor while it
// looks, and sleeps as soon as one comes later than spinTime: below some
// 20,000 lines a second it costs nothing.
type brisk struct {
	fd     int
	w      *waiter
	fast   bool // the last one came within spinTime
	blocks bool // it is no pipe, and a read of it would wait
}

func newBrisk(fd int, w *waiter) *brisk {
	b := &brisk{fd: fd, w: w}
	// A pipe's reading end is this process's own; what a terminal is told,
	// the shell behind it would have too.
	var st unix.Stat_t
	b.blocks = unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO || unix.SetNonblock(fd, true) != nil
	return b
}

// read reads what is there as soon as there is something.
func (b *brisk) read(ctx context.Context, buf []byte) (int, error) {
	for ready := !b.blocks; ; ready = true {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if ready {
			n, err := readFD(b.fd, buf)
			if err == unix.EAGAIN && b.fast {
				n, err = b.spin(buf)
			}
			if err != unix.EAGAIN {
				return n, err
			}
		}
		begun := time.Now()
		if _, err := b.w.wait(ctx, b.fd, -1); err != nil {
			return 0, err
		}
		b.fast = time.Since(begun) < spinTime
	}
}

// spin reads until there is something, or for spinTime.
func (b *brisk) spin(buf []byte) (n int, err error) {
	for begun := time.Now(); ; {
		unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		if n, err = readFD(b.fd, buf); err != unix.EAGAIN || time.Since(begun) > spinTime {
			b.fast = err != unix.EAGAIN
			return n, err
		}
	}
}
