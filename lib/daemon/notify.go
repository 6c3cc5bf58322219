// Package daemon is what the toolkit's daemons share with the machine around
// them: systemd's readiness protocol and socket activation, and a small HTTP
// server for /metrics and /healthz.
//
// It holds no state but the listeners that it was asked for. Without systemd
// every call does nothing and says so by its result.
package daemon

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// States of sd_notify(3).
const (
	Ready     = "READY=1"
	Stopping  = "STOPPING=1"
	Reloading = "RELOADING=1"
	Watchdog  = "WATCHDOG=1"
)

// Notify tells systemd of the service's state: lines of sd_notify(3), such as
// Ready and "STATUS=following 3 files". Where nobody listens it does nothing.
func Notify(lines ...string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if name[0] == '@' { // the abstract namespace of unix(7)
		name = "\x00" + name[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	return nil
}

// firstFD is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstFD = 3

// Files are the descriptors that systemd has opened for this process, by the
// name of FileDescriptorName=, or "unknown". Each call makes new ones of the
// same descriptors, so call it once.
func Files() map[string][]*os.File {
	if pid, err := strconv.Atoi(os.Getenv("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > 1<<16 {
		return nil
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	all := map[string][]*os.File{}
	for i := range n {
		name := "unknown"
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		syscall.CloseOnExec(firstFD + i)
		all[name] = append(all[name], os.NewFile(uintptr(firstFD+i), name))
	}
	return all
}
