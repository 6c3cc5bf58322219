package pipeline

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/tests/peer"
)

// The test binary runs three times: outside; as process 1 of new mount,
// network, process, host name and IPC namespaces; and below that as the tests.
// So /dev/log, port 25 and the loopback's addresses are its own, and nothing
// outlives it: when process 1 ends, the kernel ends all others.
const (
	stageEnv = "ROL_PIPELINE_STAGE"
	// noNamespace is the status with which process 1 says that it could not
	// make its surroundings.
	noNamespace = 113
)

// outside says why the tests run without namespaces of their own, and so cannot.
var outside string

func TestMain(m *testing.M) {
	switch os.Getenv(stageEnv) {
	case "init":
		os.Exit(initProcess())
	case "tests":
		os.Exit(runTests(m))
	}
	status, err := enter()
	if err == nil {
		os.Exit(status)
	}
	outside = err.Error()
	os.Exit(m.Run())
}

func runTests(m *testing.M) int {
	defer closeCluster()
	return peer.Run(m)
}

// enter runs the binary again in namespaces of its own and returns its status.
func enter() (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("namespaces of its own need root")
	}
	runtime.LockOSThread() // Pdeathsig is the death of the thread that forked
	defer runtime.UnlockOSThread()
	c := again("init")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := c.Start(); err != nil {
		return 0, fmt.Errorf("no namespaces of its own: %w", err)
	}
	err := c.Wait()
	if code := c.ProcessState.ExitCode(); code == noNamespace {
		return 0, errors.New("the namespaces cannot be furnished here")
	} else if code >= 0 {
		return code, nil
	}
	return 0, err
}

// again is this binary with its arguments, in another stage.
func again(stage string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), stageEnv+"="+stage)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	return c
}

// initProcess is process 1: it furnishes the namespaces, starts the tests, and
// buries whatever dies, such as daemons that have forked away.
func initProcess() int {
	if err := furnish(); err != nil {
		fmt.Fprintln(os.Stderr, "tests/pipeline:", err)
		return noNamespace
	}
	c := again("tests")
	if err := c.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "tests/pipeline:", err)
		return noNamespace
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return noNamespace
		case pid == c.Process.Pid && status.Signaled():
			return 128 + int(status.Signal())
		case pid == c.Process.Pid:
			return status.ExitStatus()
		}
	}
}

// host is the host name of the namespace.
const host = "cluster.lab.example"

func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := furnishDev(); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	// As many lines wait in /dev/log while rsyslogd is away; more make the
	// programs that log wait.
	if err := os.WriteFile("/proc/sys/net/unix/max_dgram_qlen", []byte("2000"), 0o644); err != nil {
		return err
	}
	return unix.Sethostname([]byte(host))
}

// furnishDev puts a small /dev over the real one, where a /dev/log of its own
// can stand.
func furnishDev() error {
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return fmt.Errorf("mounting /dev: %w", err)
	}
	for name, dev := range map[string]uint64{
		"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "full": unix.Mkdev(1, 7),
		"random": unix.Mkdev(1, 8), "urandom": unix.Mkdev(1, 9), "tty": unix.Mkdev(5, 0),
	} {
		path := filepath.Join("/dev", name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(dev)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := os.Chmod(path, 0o666); err != nil { // past the umask
			return err
		}
	}
	for name, to := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, filepath.Join("/dev", name)); err != nil {
			return err
		}
	}
	// Every machine puts its own over it.
	if err := os.WriteFile("/dev/log", nil, 0o666); err != nil {
		return err
	}
	return os.Mkdir("/dev/shm", 0o777)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// needPrivate skips the test where it would not be alone.
func needPrivate(t testing.TB) {
	t.Helper()
	if outside != "" {
		peer.Missing(t, outside)
	}
}

// Nothing of this test may be seen from outside, and nothing outside from here.
func TestNamespace(t *testing.T) {
	needPrivate(t)
	if name, err := os.Hostname(); err != nil || name != host {
		t.Errorf("host name %q, %v", name, err)
	}
	self, err := os.Readlink("/proc/self")
	if err != nil || self != fmt.Sprint(os.Getpid()) {
		t.Errorf("/proc is another namespace's: %q, %v", self, err)
	}
	lines, err := os.ReadFile("/proc/net/dev")
	if err != nil || strings.Count(string(lines), ":") != 1 {
		t.Errorf("more than the loopback: %v\n%s", err, lines)
	}
}
