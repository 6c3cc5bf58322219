package peer

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Memory is what a process has in memory, now and at most, in bytes.
func Memory(pid int) (now, most int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		kb, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			now = kb << 10
		case "VmHWM:":
			most = kb << 10
		}
	}
	if most == 0 {
		return 0, 0, fmt.Errorf("process %d says nothing of its memory", pid)
	}
	return now, most, nil
}

// LeastChild is the least that answers omprog, to compare with: it trusts each
// read to be one line, and writes it to a file. It returns at the end of its
// standard input.
func LeastChild(file string) error {
	f, err := unix.Open(file, unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	buf, ok := make([]byte, 64<<10), []byte("OK\n")
	unix.Write(1, ok)
	for {
		n, err := unix.Read(0, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n == 0:
			return err
		}
		unix.Write(f, buf[:n])
		unix.Write(1, ok)
	}
}
