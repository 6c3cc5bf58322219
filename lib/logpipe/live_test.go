package logpipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/daemon"
	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// live is a service under test, with a log that grows.
type live struct {
	*Service
	t      *testing.T
	dir    string
	log    string
	cancel context.CancelCauseFunc
	ended  chan error
}

var errSignal = errors.New("signal")

// newLive starts a service that follows dir/mail.log into dir/m.db.
func newLive(t *testing.T, dir string, change func(*Service)) *live {
	t.Helper()
	l := &live{t: t, dir: dir, log: filepath.Join(dir, "mail.log")}
	l.Service = &Service{
		Options: Options{Parse: maillog.Options{Location: time.UTC}},
		Program: "rol-logpipe test", DBs: []string{filepath.Join(dir, "m.db")}, Follow: true, Files: []string{l.log},
		Spool: filepath.Join(dir, "spool"), SpoolSize: 64 << 20,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: time.Now,
		Interrupted: func(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errSignal) },
	}
	if change != nil {
		change(l.Service)
	}
	var ctx context.Context
	ctx, l.cancel = context.WithCancelCause(context.Background())
	l.ended = make(chan error, 1)
	go func() { l.ended <- l.Run(ctx) }()
	t.Cleanup(func() { l.cancel(errSignal) })
	return l
}

// stop ends the service as a signal does.
func (l *live) stop() {
	l.t.Helper()
	l.cancel(errSignal)
	select {
	case err := <-l.ended:
		if err != nil {
			l.t.Fatalf("ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		l.t.Fatal("does not end")
	}
}

func (l *live) write(lines ...string) {
	l.t.Helper()
	f, err := os.OpenFile(l.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.WriteString(f, strings.Join(lines, "")); err != nil {
		l.t.Fatal(err)
	}
}

// rows are all rows of a database, newest first; nil if there is none yet.
func rowsOf(t testing.TB, where string) (all []*flat.Row) {
	t.Helper()
	db, err := store.Open(where, store.ReadOnly)
	if err != nil {
		return nil
	}
	defer db.Close()
	res, err := db.Search(t.Context(), &store.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for r, err := range res.All() {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// until polls for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// mail is the log of a mail that one server sends on; at is its second.
func mail(n int, at time.Time) []string {
	stamp := func(ms int) string {
		return at.Add(time.Duration(ms) * time.Millisecond).UTC().Format("2006-01-02T15:04:05.000000-07:00")
	}
	q := fmt.Sprintf("B3%08X1", n)
	line := func(ms int, daemon, text string) string {
		return fmt.Sprintf("%s mx1 postfix/%s[%d]: %s\n", stamp(ms), daemon, 1000+n, text)
	}
	return []string{
		line(0, "smtpd", "connect from c.example.net[192.0.2.7]"),
		line(10, "smtpd", q+": client=c.example.net[192.0.2.7]"),
		line(20, "cleanup", q+fmt.Sprintf(": message-id=<%d@example.net>", n)),
		line(30, "qmgr", q+": from=<a@example.net>, size=1234, nrcpt=1 (queue active)"),
		line(40, "smtpd", "disconnect from c.example.net[192.0.2.7] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5"),
		line(500, "smtp", q+fmt.Sprintf(": to=<u%d@example.com>, relay=mail.example.com[198.51.100.9]:25, delay=0.5, "+
			"delays=0.1/0/0.2/0.2, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as ABCDEF%d)", n, n)),
		line(510, "qmgr", q+": removed"),
	}
}

func TestLive(t *testing.T) {
	l := newLive(t, t.TempDir(), nil)
	now := time.Now()
	m := mail(1, now)
	l.write(m[:5]...)
	db := l.DBs[0]
	until(t, "a provisional row", func() bool { r := rowsOf(t, db); return len(r) == 1 && r[0].TSFinal == 0 })
	l.write(m[5:]...)
	until(t, "sent", func() bool { r := rowsOf(t, db); return len(r) == 1 && r[0].Outcome == flat.Sent })
	first := rowsOf(t, db)[0].ID

	// over a restart, in the middle of a mail, with a rotation meanwhile
	m = mail(2, now.Add(time.Second))
	l.write(m[:4]...)
	until(t, "the second mail", func() bool { return len(rowsOf(t, db)) == 2 })
	l.stop()
	l.write(m[4])
	if err := os.Rename(l.log, l.log+".1"); err != nil {
		t.Fatal(err)
	}
	l.write(m[5:]...)
	l = newLive(t, l.dir, nil)
	until(t, "the second mail sent", func() bool {
		r := rowsOf(t, db)
		return len(r) == 2 && r[0].Outcome == flat.Sent && r[0].Lines == r[1].Lines && r[1].ID == first
	})
	l.stop()
}

func TestRowsBecomeFinalWhileNothingIsLogged(t *testing.T) {
	l := newLive(t, t.TempDir(), func(s *Service) { s.Trace.Linger = 500 * time.Millisecond })
	l.write(mail(1, time.Now())...)
	until(t, "final", func() bool {
		r := rowsOf(t, l.DBs[0])
		return len(r) == 1 && r[0].TSFinal != 0 && r[0].Complete
	})
	l.stop()
}

// TestADatabaseThatIsAway has two databases, one of which cannot be made at
// first.
func TestADatabaseThatIsAway(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "m.db"), filepath.Join(dir, "other.db")
	l := newLive(t, dir, func(s *Service) { s.DBs = []string{good, bad} })
	l.write(mail(1, time.Now())...)
	until(t, "both have it", func() bool { return len(rowsOf(t, good)) == 1 && len(rowsOf(t, bad)) == 1 })

	// A file of another program stands where the second one was.
	l.stop()
	if err := os.Rename(bad, bad+".away"); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{bad + "-wal", bad + "-shm"} {
		_ = os.Remove(f)
	}
	if err := os.Mkdir(bad, 0o700); err != nil {
		t.Fatal(err)
	}
	l = newLive(t, dir, func(s *Service) { s.DBs = []string{good, bad} })
	if err := <-l.ended; sysexits.Status(err) != sysexits.CannotMake || !strings.Contains(err.Error(), bad) {
		t.Fatalf("ended with %v", err)
	}
}

func TestHealth(t *testing.T) {
	l := newLive(t, t.TempDir(), func(s *Service) { s.Listen = "unix:" + filepath.Join(filepath.Dir(s.Spool), "h") })
	l.write(mail(1, time.Now())...)
	until(t, "a row", func() bool { return len(rowsOf(t, l.DBs[0])) == 1 })
	get := func(path string) (int, string) {
		t.Helper()
		res, err := daemon.Client(strings.TrimPrefix(l.Listen, "unix:")).Get("http://x" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	if code, body := get("/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("got %d %q", code, body)
	}
	_, body := get("/metrics")
	for _, want := range []string{
		`rol_logpipe_lines_total{host="mx1",program="smtpd"} 3`, `rol_logpipe_parsed_lines_total{database="` + l.DBs[0] + `",class="used"} 7`,
		"process_resident_memory_bytes", `rol_logpipe_source_lag_bytes{source="file:` + l.log + `"} 0`,
	} {
		if !strings.Contains(body, want+" ") && !strings.Contains(body, want+"\n") {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	r, err := Ask(t.Context(), l.Spool)
	if err != nil || len(r.Databases) != 1 || r.Databases[0].Lines != 7 || r.Degraded != nil || len(r.Hosts) != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
	l.stop()
	if _, err := Ask(t.Context(), l.Spool); err == nil {
		t.Error("an ended service answers")
	}
}

// TestAServiceGoesOnWhereARunEnded has a log that was read before there was a
// spool.
func TestAServiceGoesOnWhereARunEnded(t *testing.T) {
	dir := t.TempDir()
	l := &live{t: t, dir: dir, log: filepath.Join(dir, "mail.log")}
	now := time.Now()
	second := mail(2, now.Add(time.Second))
	l.write(mail(1, now)...)
	l.write(second[:4]...)
	job := &Job{Files: []string{l.log}, DB: filepath.Join(dir, "m.db"), Stdout: t.Output(), Stderr: t.Output()}
	if err := job.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.write(second[4:]...)
	l = newLive(t, dir, nil)
	until(t, "the second mail", func() bool { return sent(rowsOf(t, l.DBs[0])) == 2 })
	r, err := Ask(t.Context(), l.Spool)
	if err != nil || r.Databases[0].Lines != 3 {
		t.Errorf("%v, %+v", err, r)
	}
	l.stop()
}
