package pipeline

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rolmail/rolmail/tests/peer"
)

// healthz asks rol-logpipe how it is. It may not be there, when it was killed.
func healthz(ctx context.Context) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listenAddr+"/healthz", nil)
	if err != nil {
		return 0, "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// watchHealth asks again and again, and keeps the first answer that says
// degraded.
func (s *scenario) watchHealth(ctx context.Context) {
	for pause(ctx, 200*time.Millisecond) {
		status, body, err := healthz(ctx)
		if err != nil || status == http.StatusOK {
			continue
		}
		if status != http.StatusServiceUnavailable || !strings.HasPrefix(body, "degraded since ") {
			s.t.Errorf("/healthz: %d %q", status, body)
		}
		s.degraded = body
		return
	}
}

// healthy waits until rol-logpipe says that all is well, which with a dead
// database it must not.
func (s *scenario) healthy() {
	s.t.Helper()
	want := http.StatusOK
	if len(s.dead) > 0 {
		want = http.StatusServiceUnavailable
	}
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(100 * time.Millisecond) {
		status, body, err := healthz(context.Background())
		if err == nil && status == want {
			break
		}
		if time.Now().After(deadline) {
			s.t.Errorf("/healthz: %d %q, %v, want %d", status, body, err, want)
			break
		}
	}
	out, err := run("rol-logpipe status", peer.Program(s.t, "rol-logpipe"), "status", "--spool", filepath.Join(s.dir, "spool"))
	if err != nil || !strings.Contains(string(out), "mx1") {
		s.t.Errorf("status: %v\n%s", err, out)
	}
	if s.t.Failed() {
		_ = os.WriteFile(filepath.Join(s.dir, "status"), fmt.Appendln(out), 0o644)
	}
}
