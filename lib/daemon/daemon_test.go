package daemon

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/sysexits"
)

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify(Ready); err != nil {
		t.Fatalf("without systemd: %v", err)
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "n"), "@rol-test-" + strconv.Itoa(os.Getpid())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: strings.Replace(name, "@", "\x00", 1), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		if err := Notify(Ready, "STATUS=x"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := l.Read(b)
		if got := string(b[:n]); err != nil || got != "READY=1\nSTATUS=x" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", "/nonexistent/socket")
	if err := Notify(Ready); err == nil {
		t.Error("no error for a socket that is not there")
	}
}

// TestFiles runs itself as a process that systemd has given two descriptors.
func TestFiles(t *testing.T) {
	if os.Getenv("ROL_TEST_FILES") == "1" {
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		files := Files()
		if len(files["http"]) != 1 || len(files["unknown"]) != 1 {
			t.Fatalf("got %v", files)
		}
		l, err := net.FileListener(files["http"][0])
		if err != nil || l.Addr().Network() != "tcp" {
			t.Fatalf("got %v, %v", l, err)
		}
		_ = os.Setenv("LISTEN_PID", "1")
		if Files() != nil {
			t.Fatal("took descriptors that are another process's")
		}
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := exec.Command(os.Args[0], "-test.run=^TestFiles$")
	c.ExtraFiles = []*os.File{f, f}
	c.Env = append(os.Environ(), "ROL_TEST_FILES=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=http:")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestListenAndServe(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	// what a killed process leaves
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	l, err := Listen("unix:" + socket)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o660 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
	tcp, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /x", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "y") })
	go func() { Serve(ctx, mux, l, tcp); close(ended) }()
	for url, client := range map[string]*http.Client{
		"http://local/x":                       Client(socket),
		"http://" + tcp.Addr().String() + "/x": http.DefaultClient,
	} {
		r, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if string(b) != "y" {
			t.Errorf("%s: got %q", url, b)
		}
	}
	if _, err := Listen(socket); sysexits.Status(err) != sysexits.TryAgain {
		t.Errorf("a socket in use: %v", err)
	}
	cancel()
	<-ended
	for addr, status := range map[string]int{"nonsense": sysexits.Config, "/nonexistent/d/s": sysexits.Unavailable} {
		if _, err := Listen(addr); sysexits.Status(err) != status {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
