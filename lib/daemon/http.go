package daemon

import (
	"context"
	"errors"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// Limits of the HTTP server. Its clients are a monitoring system and the
// program's own commands: small requests, answered at once.
const (
	headerTime  = 5 * time.Second
	requestTime = 30 * time.Second
	headerBytes = 16 << 10
)

// Listen opens a listener for addr: host:port, or the path of a unix socket,
// which gets mode 0660. A socket that a killed process left there is replaced;
// one that is answered on is not.
func Listen(addr string) (net.Listener, error) {
	path, isPath := strings.CutPrefix(addr, "unix:")
	if !isPath && !strings.Contains(addr, "/") {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, sysexits.Errorf(sysexits.Config, "listen address %.80q: want host:port, such as 127.0.0.1:9154, or unix:/path", addr)
		}
		l, err := net.Listen("tcp", addr)
		return l, listenError(addr, err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, sysexits.Errorf(sysexits.TryAgain, "%s: another process listens there", path)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() == fs.ModeSocket {
		_ = os.Remove(path)
	}
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o660)
	}
	return l, listenError(path, err)
}

func listenError(where string, err error) error {
	if err == nil {
		return nil
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	status := sysexits.Unavailable
	if errors.Is(err, os.ErrPermission) {
		status = sysexits.NoPerm
	}
	return sysexits.Errorf(status, "%s: cannot listen: %w", where, err)
}

// Serve answers requests on all listeners until ctx is done, and closes them.
func Serve(ctx context.Context, h http.Handler, listeners ...net.Listener) {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: requestTime,
		MaxHeaderBytes: headerBytes, ErrorLog: log.New(nothing{}, "", 0),
	}
	done := make(chan struct{}, len(listeners))
	for _, l := range listeners {
		go func() {
			_ = s.Serve(l)
			done <- struct{}{}
		}()
	}
	<-ctx.Done()
	_ = s.Close()
	for range listeners {
		<-done
	}
}

// nothing swallows what net/http has to say of clients that misbehave.
type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }

// Client talks to a daemon's unix socket by HTTP.
func Client(socket string) *http.Client {
	return &http.Client{
		Timeout: requestTime,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
		},
	}
}
